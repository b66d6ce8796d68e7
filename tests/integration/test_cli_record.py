"""`recorder record`: what it records, prints, and exits with, and what a signal does to it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import PROGRAM, typed

Samples = np.ndarray[Any, np.dtype[np.int16]]

RATE = 24_000
SECONDS = 60


def noise(count: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(-9000, 9000, count).astype(np.int16)


def write_wav(path: Path, samples: Samples, rate: int = RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def read_wav(path: Path) -> Samples:
    """Return samples of shape (samples, channels)."""
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getsampwidth()) == (RATE, 2)
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return found.reshape(-1, file.getnchannels())


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "RECORDER_BUCKET": (tmp_path / "bucket").as_uri(),
        "RECORDER_SPOOL_DIR": str(tmp_path / "spool"),
        "RECORDER_CHUNK_SECONDS": "1",
    }


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Record = Callable[..., Done]


@pytest.fixture
def record(environment: dict[str, str]) -> Record:
    """Return a function that runs `recorder record` with words and variables, in this process."""

    def run(*words: object, **variables: str) -> Done:
        done = typed("record", *words, env={**environment, **variables})
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def process(tmp_path: Path, environment: dict[str, str]) -> Record:
    """Return the same for a process of its own."""

    def run(*words: object, **variables: str) -> Done:
        done = subprocess.run(
            [str(PROGRAM), "record", *map(str, words)],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def folder_of(tmp_path: Path, result: dict[str, Any]) -> Path:
    (folder,) = (tmp_path / "bucket").glob(f"dt=*/{result['recording_id']}")
    return folder


# -- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["0", "40"])
def test_files_come_out_sample_for_sample(tmp_path: Path, process: Record, speed: str) -> None:
    user, bot = noise(RATE * 3 + 77, 1), noise(RATE * 2 + 5, 2)
    done = process(
        "--user",
        write_wav(tmp_path / "u.wav", user),
        "--bot",
        write_wav(tmp_path / "b.wav", bot),
        "--outputs",
        "stereo,tracks",
        "--speed",
        speed,
        "--json",
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["state"] == "completed"
    assert result["samples"] == len(user)
    assert result["chunks"] == 4
    assert result["gaps"] == []
    folder = folder_of(tmp_path, result)
    audio = read_wav(folder / "audio.wav")
    assert np.array_equal(audio[:, 0], user)
    assert np.array_equal(audio[:, 1], np.pad(bot, (0, len(user) - len(bot))))
    assert np.array_equal(read_wav(folder / "user.wav")[:, 0], user)
    for output in result["outputs"]:
        assert output["bytes"] == (folder / output["url"].rpartition("/")[2]).stat().st_size
        assert output["checksum"]
        assert output["parts"] == 1
        assert output["duration_seconds"] == pytest.approx(len(user) / RATE)


def test_in_real_time_samples_are_the_same(tmp_path: Path, record: Record) -> None:
    bot = noise(RATE + 77)
    done = record("--bot", write_wav(tmp_path / "b.wav", bot), "--json")
    assert done.returncode == 0
    audio = read_wav(folder_of(tmp_path, json.loads(done.stdout)) / "audio.wav")
    assert np.array_equal(audio[: len(bot), 1], bot)
    assert not audio[len(bot) :].any()
    assert not audio[:, 0].any()


def test_other_rates_and_channels_are_as_long(tmp_path: Path, record: Record) -> None:
    tone = (8000 * np.sin(np.arange(8000 * 2) * 2 * np.pi * 440 / 8000)).astype(np.int16)
    done = record(
        "--track",
        f"guest={write_wav(tmp_path / 'a.wav', np.repeat(tone, 2), 8000, 2)}",
        "--outputs=mono",
        "--speed=0",
        "--json",
    )
    assert done.returncode == 0
    result = json.loads(done.stdout)
    audio = read_wav(folder_of(tmp_path, result) / "audio.wav")
    assert audio.shape == (RATE * 2, 1)
    spectrum = np.abs(np.fft.rfft(audio[:RATE, 0]))
    assert np.argmax(spectrum) == 440


def test_turns_are_found_by_level(tmp_path: Path, record: Record) -> None:
    user = noise(RATE * 6, 1)
    user[RATE : RATE * 3] = 0
    user[RATE * 4 :] = 0
    bot = noise(RATE * 3, 2)
    bot[:RATE] = 0
    done = record(
        "--user",
        write_wav(tmp_path / "u.wav", user),
        "--bot",
        write_wav(tmp_path / "b.wav", bot),
        "--outputs=turns",
        "--speed=0",
        "--json",
        RECORDER_PRE_ROLL_SECONDS="0",
    )
    assert done.returncode == 0, done.stderr
    folder = folder_of(tmp_path, json.loads(done.stdout))
    clips = {path.name: len(read_wav(path)) / RATE for path in (folder / "turns").iterdir()}
    assert clips == pytest.approx({"0001-user.wav": 1.0, "0002-bot.wav": 2.0, "0003-user.wav": 1.0})


def test_id_and_metadata(tmp_path: Path, record: Record) -> None:
    path = write_wav(tmp_path / "u.wav", noise(2400))
    done = record("--user", path, "--id=call-7", "--metadata=customer=x=y", "--speed=0", "--json")
    result = json.loads(done.stdout)
    assert result["recording_id"] == "call-7"
    manifest = json.loads((folder_of(tmp_path, result) / "manifest.json").read_text())
    assert manifest["metadata"] == {"customer": "x=y"}
    assert manifest["state"] == "completed"
    again = record("--user", path, "--id=call-7", "--speed=0")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert again.stderr.count("\n") == 1


def test_without_json_the_result_is_a_table(tmp_path: Path, record: Record) -> None:
    path = write_wav(tmp_path / "u.wav", noise(RATE))
    done = record("--user", path, "--speed=0")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"state +completed", done.stdout)
    assert re.search(r"stereo +audio\.wav +completed +9\d\.\d KiB +1\.00 s +1 ", done.stdout)


def test_a_file_that_is_cut_off_is_recorded_and_told(tmp_path: Path, record: Record) -> None:
    path = write_wav(tmp_path / "u.wav", noise(RATE * 2))
    path.write_bytes(path.read_bytes()[: 44 + RATE * 2])
    done = record("--user", path, "--speed=0", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["samples"] == RATE
    assert "the last 1.00 s" in done.stderr


# -- what goes wrong -------------------------------------------------------------------------------


def test_no_bucket(tmp_path: Path, process: Record) -> None:
    done = process("--user", write_wav(tmp_path / "u.wav", noise(240)), RECORDER_BUCKET="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: RECORDER_BUCKET is not set")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RECORDER_SPOOL_DIR": "/proc/none/spool"}, "RECORDER_SPOOL_DIR"),
        ({"RECORDER_BUCKET": "file:///proc/none/bucket"}, "/proc/none/bucket"),
    ],
    ids=["spool", "bucket"],
)
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, process: Record, variables: dict[str, str], says: str
) -> None:
    path = write_wav(tmp_path / "u.wav", noise(240))
    done = process("--user", path, "--speed=0", **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_endpoint_that_is_down_keeps_the_audio(tmp_path: Path, process: Record) -> None:
    done = process(
        "--user",
        write_wav(tmp_path / "u.wav", noise(RATE * 3)),
        "--speed=0",
        "--json",
        RECORDER_BUCKET="calls",
        AWS_ENDPOINT_URL_S3="http://127.0.0.1:9",
        RECORDER_START_TIMEOUT_SECONDS="0.5",
        RECORDER_DRAIN_SECONDS="1",
    )
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["state"] == "pending"
    assert result["samples"] == RATE * 3
    spool = tmp_path / "spool" / result["recording_id"]
    assert result["spool"] == str(spool)
    chunks = sorted((spool / "chunks").glob("*.wav"))
    assert sum(len(read_wav(path)) for path in chunks) == RATE * 3
    reason = done.stderr.splitlines()[-1]
    assert reason.startswith("Error: pending: ")
    assert str(spool) in reason
    assert "127.0.0.1:9" in reason
    assert "Traceback" not in done.stderr


# -- signals and terminals -------------------------------------------------------------------------


class Terminal:
    """A process whose stderr is a terminal."""

    def __init__(self, words: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [str(PROGRAM), *words],
            cwd=cwd,
            env={**environment, "TERM": "xterm", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
        )
        os.close(slave)
        self.shown = ""

    def read(self) -> bool:
        """Take in what is shown; return whether there is more to come."""
        ready, _, _ = select.select([self.master], [], [], SECONDS)
        try:
            more = os.read(self.master, 4096) if ready else b""
        except OSError:  # Linux's way of saying that nobody has the other end any more
            return False
        self.shown += more.decode(errors="replace")
        return bool(more)

    def wait_for(self, pattern: str) -> None:
        while not re.search(pattern, self.shown):
            assert self.read(), self.shown

    def finish(self) -> tuple[int, str]:
        while self.read():
            pass
        assert self.process.stdout is not None
        return self.process.wait(SECONDS), self.process.stdout.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self.master)


@pytest.fixture
def terminal(
    tmp_path: Path, environment: dict[str, str]
) -> Iterator[Callable[[list[str]], Terminal]]:
    opened = []

    def open_terminal(words: list[str]) -> Terminal:
        opened.append(Terminal(words, tmp_path, environment))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_call_and_keeps_it(
    tmp_path: Path,
    terminal: Callable[[list[str]], Terminal],
    number: signal.Signals,
    code: int,
) -> None:
    samples = noise(RATE * 60)
    path = write_wav(tmp_path / "u.wav", samples)
    shell = terminal(["record", "--user", str(path), "--json"])
    shell.wait_for(r"[1-9] chunk")  # which a line that moves shows, on a terminal only
    shell.process.send_signal(number)
    returned, printed = shell.finish()
    assert returned == code, shell.shown
    result = json.loads(printed)
    assert result["state"] == "completed"
    audio = read_wav(folder_of(tmp_path, result) / "audio.wav")
    assert RATE < len(audio) < len(samples)
    heard = np.flatnonzero(audio[:, 0])[-1]
    assert heard > RATE
    assert np.array_equal(audio[:heard, 0], samples[:heard])
    assert "ending the call" in shell.shown
    assert "Traceback" not in shell.shown


def test_a_second_signal_leaves_the_rest_in_the_spool(
    tmp_path: Path,
    environment: dict[str, str],
    terminal: Callable[[list[str]], Terminal],
) -> None:
    environment |= {
        "RECORDER_BUCKET": "calls",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "RECORDER_START_TIMEOUT_SECONDS": "0.5",
        "RECORDER_DRAIN_SECONDS": "3600",
    }
    path = write_wav(tmp_path / "u.wav", noise(RATE * 600))
    shell = terminal(["record", "--user", str(path), "--id=twice"])
    shell.wait_for(r"recording.* [1-9]\.\d\d s")
    shell.process.send_signal(signal.SIGINT)
    shell.wait_for("ending the call")
    shell.process.send_signal(signal.SIGINT)
    assert shell.finish() == (130, "")
    spool = tmp_path / "spool" / "twice"
    assert (spool / "recording.json").exists()
    assert str(spool) in re.sub(r"\s", "", shell.shown)
    assert "Traceback" not in shell.shown
