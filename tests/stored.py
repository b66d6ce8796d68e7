"""Finished recordings for tests of what is made of them: two voices whose every sample is known."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from calls import FRAME, RATE, settings_in
from numpy.typing import NDArray

from recorder import Recorder, Track, VirtualClock
from uploader.local import LocalStore
from uploader.store import ObjectAttributes, ObjectInfo, Store

Samples = NDArray[np.int16]

SECONDS = 5.3
LENGTH = round(SECONDS * RATE)


def _voice(seed: int) -> Samples:
    """Something between noise and a tone, so that lossy codecs keep its length and its place."""
    at = np.arange(round(20 * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 300, len(at))
    tone = 6000 * np.sin(2 * np.pi * (200 + 60 * seed) * at) * (np.sin(2 * np.pi * at / 1.7) > 0)
    return (tone + noise).astype(np.int16)


USER, BOT = _voice(1), _voice(2)
STEREO = np.stack([USER, BOT], axis=1)
MONO = np.clip(STEREO.astype(np.int32).sum(axis=1), -32768, 32767).astype(np.int16)


_MADE: dict[str, tempfile.TemporaryDirectory[str]] = {}


async def record(
    folder: Path, name: str = "call", *, store: Store | None = None, **changes: Any
) -> None:
    """Record `SECONDS` of both voices, and two turns, from second 1 and from second 2.5.

    Into the store, else into a folder `bucket`. What was recorded there before, with the same
    settings, is copied.
    """
    if store is not None or name != "call":
        await _record(folder, name, store, changes)
        return
    made = _MADE.get(repr(changes))
    if made is None:
        made = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        await _record(Path(made.name), name, None, dict(changes))
        _MADE[repr(changes)] = made
    shutil.copytree(Path(made.name) / "bucket", folder / "bucket")


async def _record(folder: Path, name: str, store: Store | None, changes: dict[str, Any]) -> None:
    clock, seconds = VirtualClock(), changes.pop("seconds", SECONDS)
    settings = settings_in(folder, **changes)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start(name, tracks=[Track("user"), Track("bot", "playout")])
        for index in range(round(seconds * 50)):
            clock.advance_to(call.zero + (index + 1) / 50)
            frames = slice(index * FRAME, (index + 1) * FRAME)
            for track, voice in (("user", USER), ("bot", BOT)):
                end = call.zero + (index + 1) / 50
                call.write(track, voice[frames].tobytes(), RATE, at=end)
            if index in (50, 125):
                call.start_turn(("user", "bot")[index // 100], at=call.zero + index / 50)
            if index in (100, 200):
                call.end_turn(("user", "bot")[index // 150], at=call.zero + index / 50)
            if index % 50 == 49:
                await call.flush()
        result = await call.stop()
        assert result.durable, result


def local(folder: Path) -> LocalStore:
    """The store that `record` fills, by default."""
    return LocalStore(folder / "bucket")


def path_of(folder: Path, name: str, recording: str = "call") -> Path:
    """A file in a recording's folder."""
    [found] = folder.glob(f"bucket/dt=*/{recording}")
    return found / name


def manifest_of(folder: Path, recording: str = "call") -> dict[str, Any]:
    """A recording's manifest."""
    document: dict[str, Any] = json.loads(path_of(folder, "manifest.json", recording).read_text())
    return document


def files(folder: Path) -> dict[str, bytes]:
    """All objects in the bucket, but for what a store keeps for itself, and their bytes."""
    bucket = folder / "bucket"
    found = (path for path in bucket.glob("dt=*/**/*") if path.is_file())
    return {str(path.relative_to(bucket)): path.read_bytes() for path in found}


def uploads(folder: Path) -> list[str]:
    """Uploads in progress: none, if nothing was left behind."""
    return sorted(path.name for path in folder.glob("bucket/.store/uploads/*"))


async def decoded(source: Path | bytes, channels: int, rate: int = RATE) -> Samples:
    """What ffmpeg hears: shape (samples, channels)."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    given = ["-"] if isinstance(source, bytes) else [str(source)]
    command = [ffmpeg, "-v", "error", "-i", *given, "-f", "s16le", "-ar", str(rate), "-"]

    def run() -> bytes:
        body = source if isinstance(source, bytes) else None
        return subprocess.run(command, input=body, capture_output=True, check=True).stdout

    pcm = await asyncio.to_thread(run)
    return np.frombuffer(pcm, "<i2").reshape(-1, channels)


async def ffmpeg(*words: object, cwd: Path | None = None) -> None:
    """Run ffmpeg; a failure is an error with what it said."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, words)]

    def run() -> None:
        done = subprocess.run(command, capture_output=True, cwd=cwd, check=False)
        assert done.returncode == 0, done.stderr.decode()

    await asyncio.to_thread(run)


def forget(folder: Path, *names: str) -> None:
    """Take objects away."""
    for name in names:
        path_of(folder, name).unlink()


def change_manifest(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], recording: str = "call"
) -> None:
    """Write another manifest."""
    path = path_of(folder, "manifest.json", recording)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


async def damage_chunk(folder: Path, damage: str) -> None:
    """Make the second chunk object `missing`, `truncated`, `rotten` or another recording's."""
    path = path_of(folder, "chunks/000002.wav")
    async with local(folder) as store:
        key = str(path.relative_to(folder / "bucket"))
        if damage == "missing":
            await store.delete(key)
        elif damage == "foreign":
            await record(folder, "other", keep_chunks=True, sample_rate=RATE)
            body = bytearray(path.read_bytes())
            body[-2] ^= 1
            info = await store.head(key.replace("/call/", "/other/"))
            await store.put(key, bytes(body), _like(info))
        else:
            body = bytearray(path.read_bytes())
            body[-2] ^= 1
            info = await store.head(key)
            await store.put(key, bytes(body[:1000] if damage == "truncated" else body), _like(info))


def _like(info: ObjectInfo) -> ObjectAttributes:
    return ObjectAttributes(content_type=info.content_type, metadata=info.metadata)
