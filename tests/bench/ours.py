"""This recorder, set up for a trial."""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.audio import RATE
from faulty_store import FaultyStore

from recorder import Recorder, Session, Settings, VirtualClock
from uploader.clock import Clock
from uploader.local import LocalStore
from uploader.store import Store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from recorder.pipecat import RecorderProcessor


def folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the spool, on the disk."""
    return tempfile.TemporaryDirectory(prefix="bench-")


def settings(root: Path, s3: dict[str, str] | None, **changes: Any) -> Settings:
    """Defaults but for places; without a server, a bucket in a folder."""
    values: dict[str, Any] = {"spool_dir": root / "spool", "spool_max_bytes": 1 << 40}
    if s3 is None:
        values["bucket"] = (root / "bucket").as_uri()
    else:
        values |= {
            "bucket": f"s3://{s3['bucket']}",
            "aws_endpoint_url_s3": s3["endpoint_url"],
            "aws_access_key_id": s3["access_key"],
            "aws_secret_access_key": s3["secret_key"],
            "aws_region": s3["region"],
        }
    return Settings(_env_file=None, **(values | changes))


def silent(root: Path) -> Store:
    """A store that never answers, and costs nothing: what is left is capture and sealing."""
    store = FaultyStore(LocalStore(root / "bucket"))
    store.dead = True
    return store


@asynccontextmanager
async def opened(
    root: Path,
    s3: dict[str, str] | None,
    *,
    uploads: bool = True,
    clock: Clock | None = None,
    **changes: Any,
) -> AsyncIterator[Recorder]:
    """An open recorder.

    Args:
        root: Where its files are.
        s3: Settings of the server.
        uploads: Whether it has a store that takes anything.
        clock: Its clock; virtual by default.
        changes: To the settings.
    """
    recorder = Recorder(
        settings(root, s3, **changes),
        clock=clock or VirtualClock(),
        store=None if uploads else silent(root),
        require_store=uploads,
        recover=False,
    )
    async with recorder:
        yield recorder
        if not uploads:
            await recorder.close(wait_seconds=0)


def processor(recorder: Recorder) -> RecorderProcessor:
    """The processor, which records from its start."""
    return RecorderProcessor(
        sample_rate=RATE, num_channels=2, auto_start_recording=True, recorder=recorder
    )


async def session_of(one: RecorderProcessor) -> Session:
    """The session behind a processor: to have what is due sealed and sent, as time would."""
    while one._latest is None or one._latest.session is None:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return one._latest.session


async def seal(call: Session) -> None:
    """Have what is due sealed, as time would, whatever the store does."""
    backstage: Any = call._backstage
    await backstage._engine.run(backstage._sealing.seal(call.now_ns()))
