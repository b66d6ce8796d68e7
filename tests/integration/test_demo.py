"""The demo as a user runs it: a real pipeline, a real S3 server, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from commands import PROGRAM

from recorder.demo.script import SCRIPT

pytestmark = pytest.mark.realtime

RATE = 24_000
ENOUGH_FOR_THE_INTERRUPTION = "10"

Samples = np.ndarray[Any, np.dtype[np.int16]]


def read_wav(path: Path) -> Samples:
    with wave.open(str(path), "rb") as file:
        assert file.getframerate() == RATE
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def found_at(audio: Samples, part: Samples) -> int:
    """Return the sample at which exactly `part` is found; -1 if it is not."""
    width = 2
    position = audio.tobytes().find(part.tobytes())
    while position % width and position >= 0:
        position = audio.tobytes().find(part.tobytes(), position + 1)
    return position // width if position >= 0 else -1


def address_of(text: str) -> tuple[str, int]:
    found = re.search(r"http://\S+:\d+", text)
    assert found, text
    parts = urlsplit(found[0])
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def is_down(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) != 0


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Return a function that starts the demo with words; its data is in `tmp_path/demo`."""
    processes = []
    variables = {
        **os.environ,
        "RECORDER_BUCKET": "somebody-elses",  # nothing of the user's own settings counts
        "RECORDER_PREFIX": "somewhere",
        "RECORDER_KMS_KEY_ID": "a-key",
        "RECORDER_STORAGE_CLASS": "GLACIER",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_SESSION_TOKEN": "old",
    }

    def start(*words: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen(
                [str(PROGRAM), "demo", "--data-dir", str(tmp_path / "demo"), *words],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_call_with_an_interruption(tmp_path: Path, started: Any) -> None:
    process = started("--seconds", ENOUGH_FOR_THE_INTERRUPTION, "--json")
    printed, told = process.communicate(timeout=90)
    assert process.returncode == 0, told
    assert is_down(address_of(told))
    report = json.loads(printed)
    assert report["result"]["state"] == "completed"
    assert report["result"]["gaps"] == []

    # What appeared in the bucket, in the order that makes it safe.
    seen = [(one["what"], one["name"]) for one in report["timeline"]]
    assert seen[0] == ("manifest", "manifest.json")
    chunks = [name for what, name in seen if what == "chunk"]
    assert chunks == [f"chunks/{number:06d}.wav" for number in range(1, len(chunks) + 1)]
    assert len(chunks) == report["result"]["chunks"] >= 4
    for name in ("audio.wav", "user.wav", "bot.wav"):
        steps = [what for what, its_name in seen if its_name == name]
        assert steps == ["upload", "part", "object"]
        assert seen.index(("object", name)) > seen.index(("chunk", chunks[0]))
        assert seen.index(("object", name)) < seen.index(("removed", "chunks/"))
    removed = sum(one["number"] for one in report["timeline"] if one["what"] == "removed")
    assert removed == len(chunks)
    kept = {one["key"].rpartition("/")[2] for one in report["objects"]}
    assert {"manifest.json", "audio.wav", "user.wav", "bot.wav", "0003-bot.wav"} <= kept
    assert not any("/chunks/" in one["key"] for one in report["objects"])

    # What can be heard: the lines, whole, one behind the other; but the one that was cut short.
    folder = tmp_path / "demo" / report["recording_id"]
    assert {Path(name).parent for name in report["files"]} <= {folder, folder / "turns"}
    bot, user = read_wav(folder / "bot.wav"), read_wav(folder / "user.wav")
    audio = read_wav(folder / "audio.wav").reshape(-1, 2)
    assert np.array_equal(audio[:, 0], user)
    assert np.array_equal(audio[:, 1], bot)
    lines = [line.speech() for line in SCRIPT if line.speaker == "bot"]
    first, second = (np.frombuffer(speech.pcm, "<i2") for speech in lines[:2])
    assert found_at(bot, first) >= 0
    assert found_at(bot, second[:RATE]) > found_at(bot, first)
    assert found_at(bot, second[-RATE // 2 :]) == -1
    manifest = json.loads((folder / "manifest.json").read_text())
    turns = [(turn["track"], turn["interrupted"]) for turn in manifest["turns"]]
    assert turns[:4] == [("bot", False), ("user", False), ("bot", True), ("user", False)]
    assert not list((tmp_path / "demo" / "spool").iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_hangs_up_and_stops_the_server(
    tmp_path: Path, started: Any, number: signal.Signals, code: int
) -> None:
    process = started()
    shown = ""
    for line in process.stdout:
        shown += line
        if "user: " in line:
            process.send_signal(number)
            break
    rest, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert told == ""
    assert "completed" in rest
    assert is_down(address_of(shown))
    (audio,) = (tmp_path / "demo").glob("*/audio.wav")
    assert len(read_wav(audio)) > 2 * RATE


def test_a_signal_while_the_server_starts(tmp_path: Path, started: Any) -> None:
    process = started()
    assert process.stdout.readline().startswith("starting")
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "bot:" not in printed
    assert "Traceback" not in told
