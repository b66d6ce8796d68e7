"""`recorder verify` as it is typed: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import PROGRAM, Run, squeezed_lines, typed

from recorder import Recorder, Settings, VirtualClock
from recorder.embedded import EmbeddedS3
from recorder.stores import make_store
from recorder.verification import verify
from uploader.store import MIN_PART_BYTES, ObjectAttributes

RATE = 24_000
FRAME = RATE // 50
VOICE = np.random.default_rng(8).integers(-9000, 9000, 130 * RATE, dtype=np.int16)


async def record(settings: Settings, name: str, seconds: float = 2.5) -> None:
    clock = VirtualClock()
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start(name)
        for index in range(round(seconds * 50)):
            clock.advance_to(call.zero + (index + 1) / 50)
            call.write("user", VOICE[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)
        assert (await call.stop()).durable


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(), spool_dir=tmp_path / "spool", chunk_seconds=1
    )


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that types `recorder verify`."""
    monkeypatch.setenv("COLUMNS", "200")
    return partial(typed, "verify", "--bucket", settings.bucket)


@pytest.fixture
async def call(settings: Settings) -> str:
    await record(settings, "call")
    return "call"


def test_a_proved_recording_is_success_and_says_what_was_proved(run: Run, call: str) -> None:
    done = run(call)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = squeezed_lines(done.stdout)
    assert "state completed" in lines
    assert "length 2.50 s (60,000 samples at 24000 Hz)" in lines
    assert any(line.startswith("audio.wav 234.5 KiB 2.50 s ") for line in lines)
    assert "no gaps: the manifest tells of no missing audio" in lines
    assert any(line.startswith("peaks.json ") for line in lines)
    assert lines[-1].startswith("proved: nothing differs (2 objects read, 234.8 KiB; ")


def test_what_differs_is_a_line_and_a_failure(run: Run, call: str, tmp_path: Path) -> None:
    [path] = tmp_path.glob("bucket/dt=*/call/audio.wav")
    path.unlink()
    done = run(call)
    assert done.exit_code == 1
    lines = squeezed_lines(done.stdout)
    assert lines[-2].startswith("not proved: 1 finding (1 object read, 377 B; ")
    expected = "audio.wav: object: expected an object of 240080 bytes, found no object"
    assert lines[-1] == expected


def test_json_is_one_document_for_all(run: Run, call: str) -> None:
    done = run(call, "nobody", call, "--json")
    assert done.exit_code == 1
    good, unknown = json.loads(done.stdout)
    assert (good["ok"], good["recording_id"], good["findings"]) == (True, "call", [])
    audio, peaks = good["proofs"]
    assert (audio["bytes"], peaks["kind"]) == (240_080, "peaks")
    assert good["counts"]["bytes"] == audio["bytes"] + peaks["bytes"]
    assert (unknown["ok"], unknown["recording_id"]) == (False, "nobody")
    assert "no recording 'nobody'" in unknown["error"]
    assert "no recording 'nobody'" in done.stderr


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        ([], "Missing argument 'ID...'", 2),
        (["../up"], "'../up'", 2),
        (["call", "--day", "today"], "--day 'today': must be a day as YYYY-MM-DD", 2),
        (["nobody"], "no recording 'nobody'", 1),
        (["call", "--day", "2001-01-01"], "no recording 'call'", 1),
    ],
)
def test_wrong_input_is_one_clear_error(
    run: Run, call: str, words: list[str], says: str, code: int
) -> None:
    done = run(*words)
    assert done.exit_code == code
    assert says in done.stderr
    assert done.stdout == ""


def test_an_unreadable_manifest_is_one_clear_error(run: Run, call: str, tmp_path: Path) -> None:
    [path] = tmp_path.glob("bucket/dt=*/call/manifest.json")
    path.write_text("[]")
    done = run(call)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1
    assert "manifest.json is not a manifest" in done.stderr


def test_what_a_bucket_says_moves_no_cursor(run: Run, call: str, tmp_path: Path) -> None:
    [path] = tmp_path.glob("bucket/dt=*/call/manifest.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "state": "\x1b[2J[red]x"}))
    done = run(call)
    assert done.exit_code == 1
    assert "\x1b" not in done.stdout
    assert "\\x1b[2J[red]x" in done.stdout


def test_progress_goes_to_the_terminal_and_results_to_the_pipe(
    settings: Settings, call: str
) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [str(PROGRAM), "verify", "--bucket", str(settings.bucket), call],
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
            check=False,
        )
        os.close(theirs)
        shown = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
    assert done.returncode == 0
    assert f"verifying {call}" in shown
    assert b"verifying" not in done.stdout


async def test_recordings_on_a_real_server_are_proved(seaweed: EmbeddedS3, tmp_path: Path) -> None:
    where: dict[str, Any] = {
        "bucket": f"s3://{seaweed.bucket}/{uuid.uuid4().hex}",
        "aws_endpoint_url_s3": seaweed.endpoint_url,
        "aws_access_key_id": seaweed.access_key,
        "aws_secret_access_key": seaweed.secret_key,
        "aws_region": seaweed.region,
        "spool_dir": tmp_path / "spool",
        "part_bytes": MIN_PART_BYTES,
        "chunk_seconds": 10,
        "outputs": "stereo,mono",
    }
    settings = Settings(**where, keep_chunks=True)
    await record(settings, "kept", 125)  # three parts
    await record(Settings(**where), "gone")
    async with make_store(settings) as store:
        kept, gone = await verify(store, "kept"), await verify(store, "gone")
        assert [*kept.findings, *gone.findings] == []
        outputs = [one for one in kept.proofs if one.kind == "output"]
        assert all(one.rendered and one.compared for one in outputs)
        assert len(outputs) == 2
        assert outputs[0].bytes > 2 * MIN_PART_BYTES
        upload = await store.create_multipart(outputs[0].key)
        await store.upload_part(outputs[0].key, upload, 1, bytes(MIN_PART_BYTES))
        await store.put(f"{kept.folder}foreign.txt", b"x")
        damaged = bytearray(await store.get(outputs[1].key))
        info = await store.head(outputs[1].key)
        damaged[90_000] ^= 1
        await store.put(outputs[1].key, damaged, ObjectAttributes(metadata=info.metadata))
        found = (await verify(store, "kept")).findings
    assert [(one.key, one.check) for one in found] == [
        (outputs[0].key, "upload in progress"),
        (f"{kept.folder}foreign.txt", "object"),
        (outputs[1].key, "checksum"),
    ]
    assert found[2].found.endswith("from sample 44960 (1.873 s) on")
