"""Whole recordings on a real server behind the fault proxy, and what must be true of them after."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fault_proxy import FaultProxy

from recorder import Recorder, RecordingResult, Session, Settings, State, VirtualClock
from recorder.events import Event, UploadFailed
from uploader.errors import BotRecorderError
from uploader.s3 import S3Store
from uploader.store import Store

RATE = 192_000
FRAME = RATE // 50
SECONDS = 16
VOICE = np.random.default_rng(5).integers(-9000, 9000, SECONDS * RATE, dtype=np.int16)
"""Stereo, it is three parts of 5 MiB at most; the second is whole after 13.7 s, in mid-call."""


@dataclass
class Server:
    """A real server, with a prefix of the test's own."""

    url: str
    bucket: str = "calls"
    access_key: str | None = "testing"
    secret_key: str | None = "testing"  # noqa: S105 - of a server for tests
    prefix: str = field(default_factory=lambda: f"proxied-{uuid.uuid4().hex}")

    def store(self, url: str | None = None, **options: Any) -> S3Store:
        """Return a store, not opened: past the proxy, unless its URL is given."""
        return S3Store(
            self.bucket,
            self.prefix,
            endpoint_url=url or self.url,
            access_key=self.access_key or "testing",
            secret_key=self.secret_key or "testing",
            **options,
        )


@dataclass
class Calls:
    """Makes recordings through a proxy."""

    server: Server
    proxy: FaultProxy
    spool: Path
    events: list[Event] = field(default_factory=list)

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "bucket": f"s3://{self.server.bucket}/{self.server.prefix}",
            "aws_endpoint_url_s3": self.proxy.url,
            "aws_access_key_id": self.server.access_key,
            "aws_secret_access_key": self.server.secret_key,
            "aws_region": "us-east-1",
            "spool_dir": self.spool,
            "sample_rate": RATE,
            "part_bytes": "5MiB",
            "chunk_seconds": 3.5,
            "hold_back_seconds": 0.2,
            "retry_base_seconds": 0.01,
            "retry_max_wait_seconds": 0.1,
            **changes,
        }
        return Settings(**values)

    async def record(
        self,
        *,
        during: Callable[[Session, int], Awaitable[None]] | None = None,
        seconds: int = SECONDS,
        step: int = 4,
        store: Store | None = None,
        **changes: Any,
    ) -> RecordingResult:
        """Record a call to its end.

        Args:
            during: Awaited after each `step`, with how many seconds there are.
            seconds: How long the call is.
            step: After how many seconds all that is sealed is waited for.
            store: Where it goes, instead of the settings' store.
            changes: To the settings.
        """
        clock, settings = VirtualClock(), self.settings(**changes)
        async with Recorder(settings, clock=clock, store=store) as recorder:
            call = await recorder.start("call", on_event=self.events.append)
            for second in range(0, seconds, step):
                speak(call, clock, second, second + step)
                await call.flush()
                if during is not None:
                    await during(call, second + step)
            return await call.stop()

    def failures(self) -> list[BotRecorderError]:
        """Return the errors that the user was told of."""
        return [event.error for event in self.events if isinstance(event, UploadFailed)]

    async def check(self, result: RecordingResult, seconds: int = SECONDS) -> None:
        """Assert that the call is in the bucket bit by bit, with its manifest, and nothing else."""
        assert result.state is State.COMPLETED, result.reason
        assert not list(self.spool.iterdir()), "the spool is not empty"
        async with self.server.store() as store:
            infos = [info async for info in store.list_objects()]
            names = {info.key.partition("/call/")[2]: info.key for info in infos}
            assert set(names) == {"audio.wav", "manifest.json", "peaks.json"}
            body = await store.get(names["audio.wav"])
            manifest = json.loads(await store.get(names["manifest.json"]))
            uploads = [upload async for upload in store.list_uploads()]
        audio = np.frombuffer(body[80:], dtype="<i2").reshape(-1, 2)
        np.testing.assert_array_equal(audio[:, 0], VOICE[: seconds * RATE])
        assert not audio[:, 1].any()
        assert manifest["state"] == "completed"
        assert not uploads, "uploads were left behind"


def speak(call: Session, clock: VirtualClock, start: float, end: float) -> None:
    """Write the voice's seconds [start, end) in 20 ms frames, in virtual time."""
    for index in range(round(start * 50), round(end * 50)):
        clock.advance_to(call.zero + (index + 1) / 50)
        call.write("user", VOICE[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)
