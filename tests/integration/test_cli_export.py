"""`recorder export`, `assemble` and `peaks` as they are typed, and what shows of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from calls import RATE
from commands import PROGRAM, Run, squeezed_lines, typed_in
from stored import LENGTH, STEREO, USER, decoded, files, forget, manifest_of, path_of, record

from recorder.embedded import EmbeddedS3
from uploader.s3 import S3Store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that types a command; the bucket is a folder."""
    return typed_in(tmp_path, monkeypatch)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A recording whose chunks were kept."""
    asyncio.run(record(tmp_path, keep_chunks=True))
    return tmp_path


@pytest.mark.parametrize("command", ["export", "assemble", "peaks"])
def test_every_command_says_what_it_does(run: Run, command: str) -> None:
    assert f" {command} " in run("--help").output
    assert run(command, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("begin", "end", "samples"),
    [
        ("0", "5.3", (0, LENGTH)),
        ("1.5", "0:02.75", (36_000, 66_000)),
        ("@1", "@19", (1, 19)),
        ("0:00:01", "@24480", (24_000, 24_480)),
        ("1.00002", "2", (24_000, 48_000)),  # half a sample: the nearer one, to even
        ("1.00003", "2", (24_001, 48_000)),
    ],
)
def test_a_range_is_written_in_seconds_minutes_or_samples(
    run: Run, kept: Path, begin: str, end: str, samples: tuple[int, int]
) -> None:
    done = run("export", "call", "--format", "flac", "--from", begin, "--to", end, "--output", "x")
    assert (done.exit_code, done.stderr) == (0, "")
    heard, _ = soundfile.read(kept / "x", dtype="int16")
    np.testing.assert_array_equal(heard, STEREO[slice(*samples)])


def test_what_was_exported_is_said_and_shown(run: Run, kept: Path) -> None:
    done = run("export", "call", "--format", "opus", "--layout", "mono", "--bitrate", "24k")
    assert done.exit_code == 0
    [line] = squeezed_lines(done.stdout)
    assert "/call/exports/mono.opus 5.30 s mono, 1 channel " in line
    said = json.loads(run("export", "call", "--format", "wav", "--from", "1", "--json").stdout)
    assert (said["start"], said["samples"], said["source"]) == (RATE, LENGTH - RATE, "output")
    shown = squeezed_lines(run("show", "call").stdout)
    assert any(line.startswith("peaks.json completed ") for line in shown)
    assert any(line.startswith("exports/mono.opus completed ") for line in shown)
    assert any(line.endswith("stereo, 4.30 s, from 1.00 s") for line in shown)
    assert "2 exports" in run("ls").stdout
    [listed] = json.loads(run("ls", "--json").stdout)
    assert (listed["peaks"], listed["exports"]) == (True, 2)
    path_of(kept, "exports/mono.opus").unlink()
    assert "but the object is missing" in run("show", "call").stdout
    verified = run("verify", "call")
    assert verified.exit_code == 1
    assert "exports/mono.opus: object: expected an object of" in verified.stdout


def test_of_opus_it_is_said_that_it_was_lossy(run: Run, tmp_path: Path) -> None:
    asyncio.run(record(tmp_path, format="opus"))
    done = run("export", "call", "--format", "flac", "--from", "1")
    assert (done.exit_code, done.stderr) == (0, "")
    [line] = squeezed_lines(done.stdout)
    assert line.endswith(" from Opus, which is lossy")
    assert manifest_of(tmp_path)["exports"][0]["lossy_source"] is True
    said = json.loads(run("export", "call", "--format", "wav", "--json").stdout)
    assert (said["source"], said["lossy_source"]) == ("output", True)
    shown = squeezed_lines(run("show", "call").stdout)
    assert any(line.endswith("stereo, 4.30 s, from 1.00 s, from Opus") for line in shown)
    drawn = run("peaks", "call", "--overwrite")
    assert "written, from output (lossy)" in drawn.stdout
    assert run("verify", "call").exit_code == 0


def test_tracks_are_channels_in_the_order_named(run: Run, kept: Path) -> None:
    words = ("export", "call", "--format", "wav", "--output", "x", "--track", "bot")
    assert run(*words, "--track", "user").exit_code == 0
    heard, _ = soundfile.read(kept / "x", dtype="int16")
    np.testing.assert_array_equal(heard, STEREO[:LENGTH, ::-1])
    assert run(*words[:-2], "--track", "user", "--overwrite", "--layout", "track").exit_code == 0
    heard, _ = soundfile.read(kept / "x", dtype="int16")
    np.testing.assert_array_equal(heard, USER[:LENGTH])


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["call", "--format", "aiff"], "--format 'aiff': must be one of mp3, m4a", 2),
        (["call", "--from", "soon"], "--from 'soon': must be seconds (12.5)", 2),
        (["call", "--from", "-1"], "--from '-1': must be seconds", 2),
        (["call", "--to", "9"], "which has 5.300 s (127200 samples)", 2),
        (["call", "--layout", "quad"], "--layout 'quad': must be mono, stereo or track", 2),
        (["call", "--layout", "track"], "--track NAME goes with the layout track", 2),
        (["call", "--layout", "mono", "--track", "bot"], "goes with the layout track", 2),
        (["call", "--track", "ann"], "'ann': the recording has user, bot", 2),
        (["call", "--bitrate", "lots"], "--bitrate 'lots': must be bits per second", 2),
        (["call", "--output", "ftp://x/y"], "must be a file, s3://bucket/key or -", 2),
        (["call", "--output", "s3://x"], "must be s3://bucket/key", 2),
        (["call", "--output", "s3://calls/"], "names a folder", 2),
        (["call", "--output", "no/folder"], "make the folder first", 1),
        (["call", "--day", "today"], "must be a day as YYYY-MM-DD", 2),
        (["nobody"], "no recording 'nobody'", 1),
        (["../up"], "'../up'", 2),
    ],
)
def test_wrong_input_is_one_line(
    run: Run, kept: Path, words: list[str], says: str, code: int
) -> None:
    before = files(kept)
    done = run("export", *words)
    assert done.exit_code == code, done.output
    [line] = done.stderr.splitlines()
    assert says in line
    assert files(kept) == before


def test_standard_output_is_the_audio_and_nothing_else(run: Run, kept: Path) -> None:
    command = [PROGRAM, "export", "call", "--format", "flac", "--output", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    heard = asyncio.run(decoded(done.stdout, 2))
    np.testing.assert_array_equal(heard, STEREO[:LENGTH])
    assert done.stderr.decode().startswith("-  5.30 s  stereo, 2 channels")


def test_a_reader_that_goes_away_is_one_line(run: Run, kept: Path) -> None:
    asyncio.run(record(kept, "long", sample_rate=192_000, chunk_seconds=10.0))  # than any pipe
    command = f"{PROGRAM} export long --format wav --output - | head -c 100"
    words = ["/bin/bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(words, capture_output=True, check=False)
    assert len(done.stdout) == 100
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert line == "Error: the output was closed: Broken pipe"


def test_a_second_export_does_not_replace_the_first(run: Run, kept: Path) -> None:
    for code in (0, 1):
        done = run("export", "call", "--format", "opus", "--output", "x.opus")
        assert done.exit_code == code
    assert "x.opus exists (--overwrite replaces it)" in done.stderr
    assert run("export", "call", "--output", "x.opus", "--overwrite").exit_code == 0


def test_an_object_in_the_bucket_and_in_another_folder_of_it(
    run: Run, tmp_path: Path, seaweed: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"s3://{seaweed.bucket}/cli-{tmp_path.name}"
    monkeypatch.setenv("RECORDER_BUCKET", root)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_key)

    def store(prefix: str) -> S3Store:
        return S3Store(
            seaweed.bucket,
            prefix,
            endpoint_url=seaweed.endpoint_url,
            access_key=seaweed.access_key,
            secret_key=seaweed.secret_key,
        )

    asyncio.run(record(tmp_path, store=store(f"cli-{tmp_path.name}"), seconds=1.0))
    words = ("export", "call", "--format", "wav", "--output")
    for target in (f"{root}/elsewhere/a.wav", f"s3://{seaweed.bucket}/other-{tmp_path.name}/b.wav"):
        assert run(*words, target).exit_code == 0
        again = run(*words, target)
        assert (again.exit_code, f"{target} exists" in again.stderr) == (1, True)
    own = next(line.split()[1] for line in run("show", "call").stdout.splitlines() if "at " in line)
    done = run(*words, f"{own}audio.wav", "--overwrite")
    assert (done.exit_code, "the recording's own objects" in done.stderr) == (2, True)
    assert run(*words, f"{own}exports/c.wav").exit_code == 0
    assert "exports/c.wav" in run("show", "call").stdout

    async def read() -> list[bytes]:
        async with store("") as opened:
            keys = (f"cli-{tmp_path.name}/elsewhere/a.wav", f"other-{tmp_path.name}/b.wav")
            return [await opened.get(key) for key in keys]

    for body in asyncio.run(read()):
        np.testing.assert_array_equal(asyncio.run(decoded(body, 2)), STEREO[:RATE])


def test_assemble_rebuilds_and_says_what(run: Run, kept: Path) -> None:
    whole = path_of(kept, "audio.wav").read_bytes()
    there = run("assemble", "call")
    assert there.exit_code == 1
    assert "audio.wav of recording 'call': there already (--overwrite replaces it)" in there.stderr
    forget(kept, "audio.wav")
    done = run("assemble", "call", "--layout", "stereo,mono")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split()[0] for line in squeezed_lines(done.stdout)] == ["output", "stereo", "mono"]
    assert path_of(kept, "audio.wav").read_bytes() == whole
    assert run("verify", "call").exit_code == 0
    assert "--layout 'all': must be of" in run("assemble", "call", "--layout", "all").stderr
    said = json.loads(run("assemble", "call", "--overwrite", "--json").stdout)
    assert [one["name"] for one in said["outputs"]] == ["stereo"]


def test_peaks_are_made_where_they_are_missing(run: Run, kept: Path) -> None:
    assert (
        "there already 53 points of 2400 samples, 2 channels"
        in squeezed_lines(run("peaks", "call").stdout)[0].partition("  ")[0]
    )
    forget(kept, "peaks.json")
    done = run("peaks", "call", "--samples-per-pixel", "480")
    assert "written, from output 265 points of 480 samples" in squeezed_lines(done.stdout)[0]
    refused = run("peaks", "call", "--samples-per-pixel", "64")
    assert (refused.exit_code, "has 480 samples per pixel, not 64" in refused.stderr) == (2, True)
    said: dict[str, Any] = json.loads(run("peaks", "call", "--overwrite", "--json").stdout)
    assert (said["samples_per_pixel"], said["written"]) == (2400, True)


def test_a_damaged_chunk_is_one_line_and_nothing_changes(run: Run, kept: Path) -> None:
    forget(kept, "audio.wav", "peaks.json")
    path_of(kept, "chunks/000002.wav").unlink()
    before = files(kept)
    for words in (["assemble"], ["peaks"], ["export", "--format", "wav"]):
        done = run(words[0], "call", *words[1:])
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
        assert "chunk 2 is missing" in done.stderr
    assert files(kept) == before
