"""Complete recordings for post-processing, made by the recorder, and what was noted of them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recorder import Recorder, Settings, VirtualClock
from recorder.postprocess.subject import Place
from uploader.store import Store

RATE = 8000
FRAME = RATE // 50
VOICE = np.random.default_rng(7).integers(-9000, 9000, 4 * RATE, dtype=np.int16)
DAY = "2026-11-23"
SECRET = "whsec_" + "c2VjcmV0IG9mIHRlc3Rz" * 2


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings with bucket and spool in a folder, and quick retries."""
    values: dict[str, Any] = {
        "bucket": (folder / "bucket").as_uri(),
        "spool_dir": folder / "spool",
        "chunk_seconds": 1.0,
        "sample_rate": RATE,
        "retry_base_seconds": 0.01,
        "retry_max_wait_seconds": 0.1,
        "retry_deadline_seconds": 20,
        **changes,
    }
    return Settings(**values)


async def recorded(folder: Path) -> None:
    """Put a bucket with the complete recording `call` into a folder: made once, and copied."""
    global _made
    if _made is None:
        _made = Path(tempfile.mkdtemp(prefix="bot-recorder-tests-"))
        atexit.register(shutil.rmtree, _made, ignore_errors=True)
        await record(settings_for(_made), "call")
    shutil.copytree(_made / "bucket", folder / "bucket")


_made: Path | None = None


async def record(settings: Settings, *names: str, day: str = DAY, seconds: float = 1.2) -> None:
    """Record calls of one voice, one after the other, to their end."""
    start = datetime.fromisoformat(f"{day}T10:00:00").replace(tzinfo=UTC)
    clock = VirtualClock(utc=start)
    async with Recorder(settings, clock=clock, recover=False) as recorder:
        for name in names:
            call = await recorder.start(name, metadata={"call": name})
            for index in range(round(seconds * 50)):
                clock.advance_to(call.zero + (index + 1) / 50)
                call.write("user", VOICE[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)
            result = await call.stop()
            assert result.state == "completed", result


def place(name: str, day: str = DAY) -> Place:
    """Where such a recording is."""
    return Place(day, name)


async def noted(store: Store, name: str, day: str = DAY) -> dict[str, Any]:
    """What is noted of a recording; empty if nothing is."""
    keys = [info.key async for info in store.list_objects(place(name, day).record_key)]
    if not keys:
        return {}
    document: dict[str, Any] = json.loads(await store.get(keys[0]))
    return document
