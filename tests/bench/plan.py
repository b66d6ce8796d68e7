"""What a run of the benchmarks is to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from recorder.embedded import EmbeddedS3


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    Attributes:
        s3: Settings of the server.
        runs: How often each trial of CPU is run; the median counts.
        sessions: Of the fleets.
        sweep: Whether the largest fleets are looked for, too.
        fleet_seconds: How long a fleet is watched.
        recordings: That are recovered.
        recovery_seconds: How long that may take.
    """

    s3: dict[str, str]
    runs: int
    sessions: tuple[int, ...]
    sweep: bool
    fleet_seconds: float
    recordings: int
    recovery_seconds: float


@asynccontextmanager
async def server() -> AsyncIterator[dict[str, str]]:
    """SeaweedFS in a process of its own, with its data on the disk."""
    with TemporaryDirectory(prefix="bench-s3-") as folder:
        async with EmbeddedS3(Path(folder), bucket="bench") as started:
            yield {
                "bucket": started.bucket,
                "endpoint_url": started.endpoint_url,
                "access_key": started.access_key,
                "secret_key": started.secret_key,
                "region": started.region,
            }
