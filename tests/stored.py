"""Finished recordings for tests of what is made of them: two voices whose every sample is known."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from calls import FRAME, RATE, settings_in
from faulty_store import FaultyStore
from numpy.typing import NDArray

from recorder import Recorder, Track, VirtualClock
from recorder.embedded import EmbeddedS3
from uploader.local import LocalStore
from uploader.s3 import S3Store
from uploader.store import ObjectAttributes, ObjectInfo, Store

Samples = NDArray[np.int16]
Make = Callable[[], Store]

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


def on_seaweed(server: EmbeddedS3, prefix: str) -> S3Store:
    """A store on that server."""
    return S3Store(
        server.bucket,
        prefix,
        endpoint_url=server.endpoint_url,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )


def maker(request: pytest.FixtureRequest, folder: Path) -> Make:
    """A function that returns the same store anew: `local`, `moto` or `seaweed`, as a parameter."""
    prefix = f"stored-{uuid.uuid4().hex}"
    if request.param == "local":
        return lambda: LocalStore(folder / "bucket", prefix)
    if request.param == "moto":
        url = request.getfixturevalue("moto_url")
        return lambda: S3Store("calls", prefix, endpoint_url=url)
    server: EmbeddedS3 = request.getfixturevalue("seaweed")
    return lambda: on_seaweed(server, prefix)


class Counting(FaultyStore):
    """Counts the bytes of audio that were handed out."""

    given = 0

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        body = await super().get(key, start=start, end=end)
        self.given += len(body)
        return body


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


def left_over(folder: Path) -> list[str]:
    """Files that are no objects, nor exports that are done; uploads in progress included."""
    return [path.name for path in folder.rglob("*.part")] + uploads(folder)


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


def rewrite(path: Path, body: bytes | bytearray) -> None:
    """Change an object's bytes, and nothing of what is told of it."""
    status = path.stat()
    path.write_bytes(body)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


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
