"""`recorder import` as it is typed: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import PROGRAM, Run, squeezed_lines, typed_in
from provider_files import ALICE, BOB, noise, raw_track, read_wav, speech, write_wav

SID = "RE0123456789abcdef0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that types a command; bucket and spool are folders."""
    monkeypatch.setenv("RECORDER_CHUNK_SECONDS", "1")
    return typed_in(tmp_path, monkeypatch)


def test_an_import_is_a_recording_like_any(run: Run, tmp_path: Path) -> None:
    pcm = noise(8000 * 2, 1, channels=2)
    path = write_wav(tmp_path / f"{SID}.wav", pcm, 8000)
    words = ("import", path, "--started-at", "2026-11-23T15:44:02Z", "--metadata", "case=7")
    done = run(*words)
    assert (done.exit_code, done.stderr) == (0, "")
    said = squeezed_lines(done.stdout)
    name = said[0].removeprefix("recording ")
    assert re.fullmatch(r"20261123T154402Z-[0-9a-f]{12}", name)
    assert "length 2.00 s at 8000 Hz, 2 chunks" in said
    [audio] = tmp_path.glob(f"bucket/dt=2026-11-23/{name}/audio.wav")
    assert np.array_equal(read_wav(audio), pcm)
    assert name in run("ls").stdout
    shown = squeezed_lines(run("show", name).stdout)
    assert f"imported from twilio {SID}" in shown
    assert path.as_uri() in shown
    assert "metadata case=7" in shown
    assert squeezed_lines(run("verify", name).stdout)[-1].startswith("proved: nothing differs")
    again = run(*words)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == f"there already: {audio.parent.as_uri()}/\n".replace("%3D", "=")


def test_json_is_one_document(run: Run, tmp_path: Path) -> None:
    raw_track(tmp_path, ALICE, speech(48_000, 1, 1), 0)
    raw_track(tmp_path, BOB, speech(48_000, 1, 2), 0.5)
    words = ("import", *tmp_path.glob("17*"), "--name", f"{BOB}=bot", "--json")
    document = json.loads(run(*words).stdout)
    assert (document["created"], document["result"]["state"]) == (True, "completed")
    assert [one["tracks"] for one in document["imported"]["files"]] == [["user"], ["bot"]]
    again = json.loads(run(*words).stdout)
    assert (again["created"], again["result"]) == (False, None)
    assert again["recording_id"] == document["recording_id"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Missing argument 'SOURCE...'"),
        (["{}/none.wav"], "No such file or directory"),
        (["{}/text"], "cannot be decoded"),
        (["{}/a.wav", "--provider", "zoom"], "--provider 'zoom': must be one of daily, livekit"),
        (
            ["{}/a.wav", "--started-at", "noon"],
            "--started-at 'noon': must be a time",
        ),
        (["{}/a.wav", "--started-at", "2026-11-23T15:44:02"], "must be a time with a timezone"),
        (["{}/a.wav", "--offsets", "-1"], "--offsets '-1': must be seconds, 0 or more"),
        (["{}/a.wav", "--tracks", "a,b"], "2 track names for 1 channels"),
        (["{}/a.wav", "--tracks", "A"], "track 'A'"),
        (["{}/a.wav", "--name", "x"], "--name 'x': must be NAME=VALUE"),
        (["{}/a.wav", "--id", "../up"], "'../up'"),
        (["{}/a.wav", "--outputs", "8d"], "'8d' is no output"),
        (["{}/a.wav", "--sample-rate", "9"], "sample_rate"),
    ],
)
def test_wrong_input_is_one_clear_error(
    run: Run, tmp_path: Path, words: list[str], says: str
) -> None:
    write_wav(tmp_path / "a.wav", noise(8000, 1), 8000)
    (tmp_path / "text").write_text("no audio at all\n" * 100)
    done = run("import", *(word.format(tmp_path) for word in words))
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "bucket").exists()


def test_one_voice_is_mono_unless_stereo_is_asked_for(run: Run, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(8000, 1), 8000)
    made = json.loads(run("import", path, "--json").stdout)
    assert [one["name"] for one in made["result"]["outputs"]] == ["mono"]
    other = json.loads(run("import", path, "--json", "--outputs", "stereo", "--id", "b").stdout)
    assert [one["name"] for one in other["result"]["outputs"]] == ["stereo"]


def test_interrupted_it_takes_back_what_it_has_begun(run: Run, tmp_path: Path) -> None:
    """Ctrl-C while chunks are being sent: nothing is left, and the exit says so."""
    path = write_wav(tmp_path / "a.wav", noise(48_000 * 90, 1), 48_000)
    with subprocess.Popen(
        [str(PROGRAM), "import", str(path)],
        env={**os.environ, "RECORDER_CHUNK_SECONDS": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("bucket/dt=*/*/chunks/*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [one for one in tmp_path.glob("bucket/dt=*/**/*") if one.is_file()]
    assert not list(tmp_path.glob("spool/*"))


def test_without_the_extra_the_error_names_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "recorder.imports.av_audio", raising=False)
    path: Any = raw_track(tmp_path, ALICE, speech(48_000, 1, 1), 0)
    done = run("import", path)
    assert done.exit_code == 2
    assert "pip install 'bot-recorder[import]'" in done.stderr
    wav = write_wav(tmp_path / "a.wav", noise(8000, 1), 8000)
    assert run("import", wav).exit_code == 0
