"""Calls for tests: settings, speech, a process's death without a process, and what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recorder import Recorder, Session, Settings, VirtualClock, shutdown, spool
from recorder.containers.wav import parse_header

RATE = 24_000
FRAME = RATE // 50
VOICE = np.random.default_rng(11).integers(-9000, 9000, 130 * RATE, dtype=np.int16)
Make = Callable[..., Settings]  # `settings_in`, with its folder


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Settings with bucket and spool in a folder, short chunks and quick retries."""
    values: dict[str, Any] = {
        "bucket": (folder / "bucket").as_uri(),
        "spool_dir": folder / "spool",
        "chunk_seconds": 1.0,
        "retry_base_seconds": 0.01,
        "retry_max_wait_seconds": 0.1,
        "start_timeout_seconds": 0.3,
        **changes,
    }
    return Settings(**values)


def speak(
    call: Session, clock: VirtualClock, start: float, end: float, track: str = "user"
) -> None:
    """Write `VOICE` from `start` to `end`, seconds, frame by frame as time goes on."""
    for index in range(round(start * 50), round(end * 50)):
        clock.advance_to(call.zero + (index + 1) / 50)
        call.write("user", VOICE[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)


async def die(recorder: Recorder) -> None:
    """Stop a recorder where it is, as its process's death would: nothing is finished or tidied."""
    engine = recorder.engine
    recorder._engine = None
    shutdown.forget(recorder)
    await asyncio.to_thread(engine.close)
    for one in list(spool._LOCKED):
        one.release()


def manifest(folder: Path, below: str = "") -> dict[str, Any]:
    """The manifest of the only recording in the bucket."""
    [path] = folder.glob(f"bucket/dt=*/*/{below}manifest.json")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def samples(folder: Path, name: str = "audio.wav", channel: int = 0) -> NDArray[np.int16]:
    """One channel of an output of the only recording in the bucket."""
    [path] = folder.glob(f"bucket/dt=*/*/{name}")
    body = path.read_bytes()
    header = parse_header(body[:4096])
    pcm = np.frombuffer(body, dtype="<i2", offset=header.data_offset)
    return pcm.reshape(-1, header.channels)[:, channel]


def leftovers(folder: Path) -> list[str]:
    """Chunk objects, uploads in progress and spool folders: nothing, if all is finished."""
    found = [*folder.glob("bucket/dt=*/**/chunks/*"), *folder.glob("bucket/.store/uploads/*")]
    found += folder.glob("spool/*")
    return sorted(str(path.relative_to(folder)) for path in found)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what it holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
