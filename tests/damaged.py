"""A recording in a folder, to be damaged, and the call that it was made of."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from recorder import Recorder, Session, Settings, State, Track, VirtualClock
from recorder.verification import Report, verify
from uploader.local import LocalStore
from uploader.store import ObjectAttributes

RATE = 8000
FRAME = RATE // 50
VOICE = np.random.default_rng(5).integers(1, 9000, 40 * RATE, dtype=np.int16)
ALL = "stereo,mono,tracks,turns"
Record = Callable[..., Awaitable["Recorded"]]


class Recorded:
    """A recording in a folder, to be damaged."""

    def __init__(self, bucket: Path) -> None:
        self.bucket = bucket
        (self.folder,) = bucket.glob("dt=*/call")

    def key(self, name: str) -> str:
        return f"{self.folder.parent.name}/call/{name}"

    def path(self, name: str) -> Path:
        return self.folder / name

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path("manifest.json").read_text())
        return found

    def change(self, **changes: Any) -> None:
        self.path("manifest.json").write_text(json.dumps({**self.manifest(), **changes}))

    def rot(self, name: str, position: int = 4001) -> None:
        """Flip a bit so that the file system does not notice, as a failing disk does."""
        path = self.path(name)
        status, body = path.stat(), bytearray(path.read_bytes())
        body[position] ^= 1
        path.write_bytes(body)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    async def put(self, name: str, body: bytes, like: str = "") -> None:
        """Replace an object, with the attributes of another or of itself."""
        async with LocalStore(self.bucket) as store:
            info = await store.head(self.key(like or name))
            await store.put(self.key(name), body, attributes(info.content_type, info.metadata))

    async def verify(self, **options: Any) -> Report:
        async with LocalStore(self.bucket) as store:
            return await verify(store, "call", **options)

    async def found(self) -> list[str]:
        """Return the findings, with keys as they are within the folder."""
        report = await self.verify()
        return [str(one).replace(self.key(""), "") for one in report.findings]


def attributes(content_type: str, metadata: Any) -> ObjectAttributes:
    """Return what a store keeps beside an object's bytes."""
    return ObjectAttributes(content_type=content_type, metadata=metadata)


async def record_in(folder: Path, seconds: float = 5.3, **changes: Any) -> Recorded:
    """Record a call of two voices and two turns."""
    values: dict[str, Any] = {
        "bucket": (folder / "bucket").as_uri(),
        "spool_dir": folder / "spool",
        "chunk_seconds": 1.0,
        "sample_rate": RATE,
        "outputs": ALL,
        "peaks": False,  # what these tests damage and count is audio
        **changes,
    }
    clock = VirtualClock()
    async with Recorder(Settings(**values), clock=clock) as recorder:
        call = await recorder.start("call", tracks=[Track("user"), Track("bot", "playout")])
        call.start_turn("user", at=call.zero)
        await speak(call, clock, seconds)
        result = await call.stop()
    assert result.state is State.COMPLETED
    return Recorded(folder / "bucket")


async def speak(call: Session, clock: VirtualClock, seconds: float) -> None:
    """Let the user speak, and the bot from the first second to the third; a flush each second."""
    for index in range(round(seconds * 50)):
        clock.advance_to(call.zero + (index + 1) / 50)
        frame = VOICE[index * FRAME : (index + 1) * FRAME]
        call.write("user", frame.tobytes(), RATE)
        if 50 <= index < 150:
            if index == 50:
                call.end_turn("user")
                call.start_turn("bot")
            call.write("bot", (frame // 3).tobytes(), RATE)
        if index % 50 == 49:
            await call.flush()
