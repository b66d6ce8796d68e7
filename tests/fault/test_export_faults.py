"""Exports that go wrong: nothing half-written looks done, nothing is replaced, errors say why."""

from __future__ import annotations

import asyncio
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, settings_in
from faulty_store import FaultyStore, refusal, reset
from stored import (
    LENGTH,
    STEREO,
    Counting,
    change_manifest,
    damage_chunk,
    decoded,
    files,
    forget,
    left_over,
    local,
    manifest_of,
    path_of,
    record,
    rewrite,
    uploads,
)

from recorder import Recorder
from recorder.at_rest import NotFinished
from recorder.catalog import NoSuchRecording
from recorder.export import (
    ExportError,
    NoAudio,
    StoreTarget,
    TargetExists,
    UnusableChunks,
    export,
)
from recorder.export_targets import _ObjectSink
from recorder.ffmpeg import FfmpegError, find_ffmpeg, run
from recorder.names import InvalidName
from uploader.errors import AccessDenied, BotRecorderError, NoSuchUpload
from uploader.store import MAX_PARTS, MIN_PART_BYTES, ObjectAttributes

# -- what is asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"recording_id": "nobody"}, NoSuchRecording, "no recording 'nobody'"),
        ({"recording_id": "../up"}, InvalidName, r"\.\./up"),
        ({"format": "aiff"}, ExportError, "'aiff': must be one of mp3, m4a, opus, flac, wav"),
        ({"end": LENGTH + 1}, ExportError, r"not within the recording, which has 5\.300 s"),
        ({"start": LENGTH}, ExportError, "is not within"),
        ({"start": 5, "end": 5}, ExportError, "is not within"),
        ({"start": -1}, ExportError, "is not within"),
        ({"format": "flac", "end": 15}, ExportError, "no fewer than 16 samples"),
        ({"layout": "quad"}, ExportError, "'quad': must be one of mono, stereo, track"),
        ({"layout": "track"}, ExportError, "which track"),
        ({"layout": "track", "tracks": ["ann"]}, ExportError, "'ann': the recording has user, bot"),
        ({"layout": "track", "tracks": ["bot", "bot"]}, ExportError, "named twice"),
        ({"layout": "mono", "tracks": ["bot"]}, ExportError, "has all tracks"),
        ({"format": "flac", "bitrate": 64_000}, ExportError, "flac has no bit rate"),
        ({"bitrate": 100}, ExportError, "bit rate 100: must be from"),
    ],
)
async def test_what_is_not_to_be_had_is_one_clear_error(
    tmp_path: Path, options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    await record(tmp_path)
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(kind, match=says):
            await export(store, **{"recording_id": "call", **options})
    assert files(tmp_path) == before


@pytest.mark.parametrize("state", ["recording", "pending", "failed"])
async def test_what_is_not_finished_is_not_exported(tmp_path: Path, state: str) -> None:
    await record(tmp_path)
    change_manifest(tmp_path, lambda document: {**document, "state": state})
    async with local(tmp_path) as store:
        with pytest.raises(NotFinished, match=f"'call' is {state}"):
            await export(store, "call")


async def test_nothing_is_replaced_unless_that_is_asked_for(tmp_path: Path) -> None:
    await record(tmp_path)
    path = tmp_path / "out.wav"
    path.write_bytes(b"mine")
    async with local(tmp_path) as store:
        await export(store, "call", format="opus")
        before = files(tmp_path)
        for output, what in ((None, r"exports/stereo\.opus exists"), (path, r"out\.wav exists")):
            with pytest.raises(TargetExists, match=what) as raised:
                await export(store, "call", format="opus", output=output)
            assert raised.value.hint == "--overwrite replaces it"
        assert (files(tmp_path), path.read_bytes()) == (before, b"mine")
        await export(store, "call", format="opus", overwrite=True, end=RATE)
        await export(store, "call", format="opus", overwrite=True)
        await export(store, "call", format="wav", output=path, overwrite=True)
    np.testing.assert_array_equal(await decoded(path, 2), STEREO[:LENGTH])
    listed = [one["key"].rpartition("/")[2] for one in manifest_of(tmp_path)["exports"]]
    assert listed == [f"stereo-0-{RATE}.opus", "stereo.opus"]


@pytest.mark.parametrize("kind", ["file", "object"])
async def test_who_is_quicker_keeps_the_name(tmp_path: Path, kind: str) -> None:
    """Something comes to be there after it was looked for, while the export is made."""
    await record(tmp_path)
    path = tmp_path / "out.wav"

    class Busy(FaultyStore):
        async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
            if kind == "file":
                path.write_bytes(b"theirs")
            else:
                await self.inner.put(key.replace("audio", "exports/stereo"), b"theirs")
            return await super().get(key, start=start, end=end)

    async with Busy(local(tmp_path)) as store:
        with pytest.raises(TargetExists, match="exists"):
            await export(store, "call", format="wav", output=path if kind == "file" else None)
    found = path if kind == "file" else path_of(tmp_path, "exports/stereo.wav")
    assert found.read_bytes() == b"theirs"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["audio.wav", "manifest.json", "chunks/000001.wav", "x.mp3"])
async def test_a_recordings_own_objects_are_no_targets(tmp_path: Path, name: str) -> None:
    await record(tmp_path)
    before = files(tmp_path)
    async with local(tmp_path) as store:
        key = manifest_of(tmp_path)["outputs"][0]["key"].replace("audio.wav", name)
        with pytest.raises(ExportError, match="a place of the recording's own objects"):
            await export(store, "call", output=StoreTarget(store, key), overwrite=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["", "no/such/folder/out.mp3"])
async def test_a_file_that_cannot_be_is_told_at_once(tmp_path: Path, name: str) -> None:
    await record(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(BotRecorderError, match="folder"):
            await export(store, "call", output=tmp_path / name)


# -- what is stored --------------------------------------------------------------------------------


def damaged_output(folder: Path, how: str) -> None:
    path = path_of(folder, "audio.wav")
    body = bytearray(path.read_bytes())
    if how == "rotten":
        body[-3] ^= 1
    elif how == "header":
        body[24] ^= 1
    rewrite(path, body)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("rotten", r"audio\.wav has other bytes than were recorded: its checksum differs"),
        ("header", r"audio\.wav does not begin as it was recorded"),
    ],
)
@pytest.mark.parametrize("name", ["wav", "opus", "flac"])
async def test_an_output_that_is_damaged_becomes_nothing(
    tmp_path: Path, how: str, says: str, name: Any
) -> None:
    await record(tmp_path)
    damaged_output(tmp_path, how)
    before, path = files(tmp_path), tmp_path / "out"
    async with local(tmp_path) as store:
        for output in (None, path):
            with pytest.raises(NoAudio, match=says):
                await export(store, "call", format=name, output=output)
    assert files(tmp_path) == before
    assert not path.exists()
    assert left_over(tmp_path) == []


async def test_an_output_that_gets_shorter_on_the_way_becomes_nothing(tmp_path: Path) -> None:
    await record(tmp_path)

    class Shrinking(FaultyStore):
        async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
            return (await super().get(key, start=start, end=end))[: 80 + 4 * RATE]

    async with Shrinking(local(tmp_path)) as store:
        with pytest.raises(BotRecorderError, match=r"audio\.wav is cut off"):
            await export(store, "call", format="opus")
    assert not path_of(tmp_path, "exports").exists()
    assert left_over(tmp_path) == []


async def test_without_output_and_chunks_it_is_said_what_there_is(tmp_path: Path) -> None:
    await record(tmp_path, outputs=("mono",))
    async with local(tmp_path) as store:
        with pytest.raises(NoAudio, match=r"stereo of recording 'call'.*\(there is audio\.wav\)"):
            await export(store, "call")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", "chunk 2 is missing from"),
        ("truncated", r"chunks/000002\.wav has 1000 bytes, and 96080 by the manifest"),
        ("rotten", r"chunks/000002\.wav has other bytes than were recorded"),
        ("foreign", r"chunks/000002\.wav is a chunk of recording 'other'"),
    ],
)
async def test_a_chunk_that_is_not_as_recorded_becomes_nothing(
    tmp_path: Path, damage: str, says: str
) -> None:
    await record(tmp_path, keep_chunks=True)
    await damage_chunk(tmp_path, damage)
    forget(tmp_path, "audio.wav")
    before, path = files(tmp_path), tmp_path / "out"
    async with local(tmp_path) as store:
        for output in (None, path):
            with pytest.raises((NoAudio, UnusableChunks), match=says):
                await export(store, "call", format="flac", output=output)
    assert files(tmp_path) == before
    assert not path.exists()
    assert left_over(tmp_path) == []


# -- ffmpeg ----------------------------------------------------------------------------------------


@pytest.fixture
def path_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that makes a program called ffmpeg of a shell script, first on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def make(script: str) -> None:
        program = folder / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return make


def test_ffmpeg_is_taken_from_the_path_first(path_with: Any) -> None:
    assert "imageio_ffmpeg" in find_ffmpeg()
    path_with("exit 0")
    assert find_ffmpeg().endswith("/programs/ffmpeg")


async def test_without_ffmpeg_both_places_are_named_and_wav_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(tmp_path, seconds=1.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(FfmpegError, match="PATH nor in the package imageio-ffmpeg"):
            await export(store, "call")
        assert files(tmp_path) == before
        await export(store, "call", format="wav")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo one >&2; echo 'no such encoder' >&2; exit 3", "code 3: one; no such encoder"),
        ("cat >/dev/null; exit 1", "code 1: it said nothing"),
        ("exit 0", "code 0"),  # without having taken the audio
        ("kill -9 $$", "code -9"),
        ("i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1", "line 4999"),
    ],
)
@pytest.mark.parametrize("name", ["opus", "mp3"])
async def test_what_ffmpeg_said_last_is_told_and_nothing_is_left(
    tmp_path: Path, path_with: Any, script: str, says: str, name: Any
) -> None:
    await record(tmp_path)
    path_with(script)
    before, path = files(tmp_path), tmp_path / "out"
    async with local(tmp_path) as store:
        for output in (None, path):
            with pytest.raises(FfmpegError, match=says) as raised:
                await export(store, "call", format=name, output=output)
            assert "line 1;" not in str(raised.value)
    assert files(tmp_path) == before
    assert not path.exists()
    assert left_over(tmp_path) == []


# -- the target ------------------------------------------------------------------------------------


def long_call() -> dict[str, Any]:
    """Settings of a recording whose export has more than one part."""
    return {"sample_rate": 192_000, "chunk_seconds": 10.0}


async def test_an_upload_of_many_parts_is_the_same_bytes(tmp_path: Path) -> None:
    await record(tmp_path, seconds=18.0, **long_call())
    store = FaultyStore(local(tmp_path))
    async with store:
        done = await export(store, "call", format="wav")
    assert store.calls["upload_part"] == -(-done.bytes // MIN_PART_BYTES) == 3
    assert (
        path_of(tmp_path, "exports/stereo.wav").read_bytes()
        == path_of(tmp_path, "audio.wav").read_bytes()
    )
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("op", ["upload_part", "complete_multipart", "put"])
async def test_a_moment_without_the_store_is_nothing(tmp_path: Path, op: str) -> None:
    await record(tmp_path, seconds=2.0 if op == "put" else 18.0, **long_call())
    store = FaultyStore(local(tmp_path))
    async with store:
        store.fail(op, reset(op), times=2)
        if op != "put":
            store.lose_answer(op)
        await export(store, "call", format="wav")
    assert (
        path_of(tmp_path, "exports/stereo.wav").read_bytes()
        == path_of(tmp_path, "audio.wav").read_bytes()
    )
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("op", ["create_multipart", "upload_part", "complete_multipart"])
@pytest.mark.parametrize("error", [AccessDenied, NoSuchUpload])
async def test_a_store_that_refuses_keeps_nothing(
    tmp_path: Path, op: str, error: type[Any]
) -> None:
    await record(tmp_path, seconds=18.0, **long_call())
    before = files(tmp_path)
    store = FaultyStore(local(tmp_path))
    async with store:
        store.refuse(op, refusal(error, op))
        with pytest.raises(BotRecorderError):
            await export(store, "call", format="wav")
    assert files(tmp_path) == before
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("output", ["file", "object"])
@pytest.mark.parametrize("name", ["wav", "opus", "m4a"])
async def test_a_cancelled_export_leaves_nothing(tmp_path: Path, name: Any, output: str) -> None:
    await record(tmp_path, seconds=18.0, **long_call())
    before, path = files(tmp_path), tmp_path / "out"
    reached, store = asyncio.Event(), FaultyStore(local(tmp_path))

    async def hang(op: str, key: str, done: bool) -> None:
        if op == "get" and store.calls["get"] > 13:  # of 16: two parts are on their way
            reached.set()
            await asyncio.Event().wait()

    async with store:
        store.hook = hang
        target = path if output == "file" else None
        task = asyncio.ensure_future(export(store, "call", format=name, output=target))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert files(tmp_path) == before
    assert not path.exists()
    assert left_over(tmp_path) == []
    assert not list(tmp_path.glob(".out*"))


async def test_a_killed_export_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    """SIGKILL in mid-export: an upload in progress, a temporary name; then recovery clears up."""
    await record(tmp_path, seconds=18.0, **long_call())
    before, path = files(tmp_path), tmp_path / "out.wav"
    script = f"""
import asyncio, os, signal, sys
from pathlib import Path
from recorder.export import export
from recorder.export_targets import FileTarget, _ObjectSink, _FileSink
from uploader.local import LocalStore
async def main():
    kind = {{"file": _FileSink, "object": _ObjectSink}}[sys.argv[1]]
    write, seen = kind.write, [0]
    async def dying(self, data):
        await write(self, data)
        seen[0] += len(data)
        if seen[0] > 12_000_000:
            os.kill(os.getpid(), signal.SIGKILL)
    kind.write = dying
    async with LocalStore(Path({str(tmp_path / "bucket")!r})) as store:
        output = Path({str(path)!r}) if sys.argv[1] == "file" else None
        await export(store, "call", format="wav", output=output)
asyncio.run(main())
"""
    for kind in ("file", "object"):
        command = [sys.executable, "-c", script, kind]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert files(tmp_path) == before
    assert not path.exists()
    assert len(uploads(tmp_path)) == 1
    settings = settings_in(tmp_path, spool_dir=tmp_path / "other")
    async with Recorder(settings, recover=False) as recorder:
        [one] = await recorder.recover(bucket=True, stale_after=0)
    assert one.outcome == "cleaned"
    assert uploads(tmp_path) == []
    assert files(tmp_path) == before


async def test_a_lost_answer_of_the_manifest_is_asked_for_again(tmp_path: Path) -> None:
    await record(tmp_path, seconds=1.0)
    store = FaultyStore(local(tmp_path))
    async with store:
        store.lose_answer("put_manifest")
        done = await export(store, "call", format="wav")
    [listed] = manifest_of(tmp_path)["exports"]
    assert listed["key"] == done.key


async def test_two_exports_at_once_are_both_listed(tmp_path: Path) -> None:
    await record(tmp_path, seconds=1.0)
    async with local(tmp_path) as store:
        formats: list[Any] = ["wav", "flac", "opus"]
        await asyncio.gather(*(export(store, "call", format=name) for name in formats))
    listed = {one["format"] for one in manifest_of(tmp_path)["exports"]}
    assert listed == {"wav", "flac", "opus"}


# -- memory ----------------------------------------------------------------------------------------


class Stalled:
    """A stream that takes a little and then waits, in its thread, for leave to go on."""

    def __init__(self) -> None:
        self.leave = threading.Event()
        self.size = 0

    def write(self, data: Any) -> int:
        if self.size:
            self.leave.wait()
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("name", ["wav", "opus"])
async def test_nothing_is_read_faster_than_it_is_taken(tmp_path: Path, name: Any) -> None:
    """The output stands still, so the encoder does, so reading does: after a few MiB of 14."""
    await record(tmp_path, seconds=18.0, **long_call())
    stream: Any = Stalled()
    store = Counting(local(tmp_path))
    async with store:
        # Opus makes little of much: its bit rate is raised so that its pipe fills, too.
        rate = 512_000 if name == "opus" else None
        task = asyncio.ensure_future(
            export(store, "call", format=name, output=stream, bitrate=rate)
        )
        before = -1
        while (store.given != before or not stream.size) and not task.done():
            before = store.given
            await asyncio.sleep(0.3)
        whole = path_of(tmp_path, "audio.wav").stat().st_size
        if name == "wav":
            assert store.given <= 4 * 1024**2 < whole
        stream.leave.set()
        done = await task
    assert store.given == whole + 80  # the header twice
    assert stream.size == done.bytes


async def test_ffmpeg_is_fed_no_faster_than_it_is_read_from() -> None:
    """What comes out is as much as what goes in, and is not taken: a few pipes are filled."""
    block, fed, leave, taken = bytes(1024**2), [0], asyncio.Event(), [0]

    async def audio() -> AsyncGenerator[memoryview, None]:
        for _ in range(64):
            fed[0] += 1
            yield memoryview(block)

    async def take(data: bytes) -> None:
        await leave.wait()
        taken[0] += len(data)

    pcm = ("-f", "s16le", "-ar", "48000", "-ac", "2")
    running = asyncio.ensure_future(run((*pcm, "-i", "pipe:0", *pcm, "pipe:1"), audio(), take))
    before = -1
    while fed[0] != before or not fed[0]:
        before = fed[0]
        await asyncio.sleep(0.3)
    assert fed[0] <= 16
    leave.set()
    await running
    assert taken[0] == 64 * len(block)


@pytest.mark.parametrize("name", ["wav", "opus", "flac"])
async def test_what_is_held_does_not_grow_with_the_recording(tmp_path: Path, name: Any) -> None:
    held = {}
    for seconds in (9.0, 18.0):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        await record(folder, seconds=seconds, **long_call())
        async with local(folder) as store:
            held[seconds] = (await export(store, "call", format=name)).held_bytes
    assert held[18.0] <= 2 * 1024**2 + 2 * MIN_PART_BYTES
    if name == "wav":
        assert held[18.0] == 2 * 1024**2 // 4 * 4 + 2 * MIN_PART_BYTES


def test_the_parts_of_a_large_object_are_large_enough() -> None:
    total = 100 * 1024**3
    context: Any = None
    sink = _ObjectSink(context, "k", ObjectAttributes(), total)
    assert sink._part * MAX_PARTS >= total
