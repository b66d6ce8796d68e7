"""A real S3 server, killed and started again in the middle of uploads: nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import die

from recorder import Outcome, Recorder, Session, Settings, State, VirtualClock
from recorder.embedded import EmbeddedS3
from recorder.events import Event, UploadFailed
from uploader.errors import StoreError

RATE = 192_000  # makes parts of 5 MiB quickly
NOISE = np.random.default_rng(3).integers(-9000, 9000, 40 * RATE, dtype=np.int16)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedS3]:
    """A server of this test's own: it is killed."""
    server = EmbeddedS3(tmp_path / "server", bucket="calls")
    await server.start()
    try:
        yield server
    finally:
        server.kill()


def settings_for(server: EmbeddedS3, folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "bucket": "s3://calls/killed",
        "aws_endpoint_url_s3": server.endpoint_url,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "spool_dir": folder / "spool",
        "sample_rate": RATE,
        "chunk_seconds": 2.0,
        "part_bytes": 5 * 1024**2,
        "retry_base_seconds": 0.05,
        "retry_max_wait_seconds": 0.5,
        **changes,
    }
    return Settings(**values)


def speak(call: Session, clock: VirtualClock, start: int, end: int) -> None:
    for second in range(start, end):
        clock.advance(1)
        call.write("user", NOISE[second * RATE : (second + 1) * RATE].tobytes(), RATE)


async def check(server: EmbeddedS3, samples: int) -> None:
    async with server.store("killed") as store:
        infos = [info async for info in store.list_objects()]
        names = sorted(info.key.rpartition("/")[2] for info in infos)
        assert names == ["audio.wav", "manifest.json", "peaks.json"]
        body = await store.get(next(info.key for info in infos if info.key.endswith(".wav")))
        assert [upload async for upload in store.list_uploads()] == []
    found = np.frombuffer(body[80:], dtype="<i2").reshape(-1, 2)[:, 0]
    np.testing.assert_array_equal(found, NOISE[:samples])


async def test_the_server_dies_in_mid_upload_and_comes_back(
    server: EmbeddedS3, tmp_path: Path
) -> None:
    clock, seen = VirtualClock(), list[Event]()
    async with Recorder(settings_for(server, tmp_path), clock=clock) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        speak(call, clock, 0, 16)
        await call.flush()
        speak(call, clock, 16, 24)  # on its way when the server dies
        server.kill()
        speak(call, clock, 24, 32)
        async with asyncio.timeout(60):
            while not any(isinstance(one, UploadFailed) for one in seen):  # noqa: ASYNC110 - a list
                await asyncio.sleep(0.01)
        await server.start()
        speak(call, clock, 32, 36)
        result = await call.stop()
    assert result.state is State.COMPLETED
    assert result.counts["failed_attempts"] > 0
    await check(server, 36 * RATE)


@pytest.mark.parametrize("disk", ["kept", "lost"])
async def test_server_and_recorder_die_together(
    server: EmbeddedS3, tmp_path: Path, disk: str
) -> None:
    clock = VirtualClock()
    recorder = Recorder(settings_for(server, tmp_path), clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    for second in range(0, 20, 2):
        speak(call, clock, second, second + 2)
        await call.flush()
    server.kill()
    speak(call, clock, 20, 24)
    await die(recorder)
    if disk == "lost":
        shutil.rmtree(tmp_path / "spool")
    again = settings_for(server, tmp_path, retry_deadline_seconds=1, start_timeout_seconds=0.5)
    async with Recorder(again, clock=clock, recover=False) as other:
        if disk == "kept":
            [one] = await other.recover()
            assert one.outcome is Outcome.PENDING
        else:
            with pytest.raises(StoreError):
                await other.recover(bucket=True, stale_after=0)
    await server.start()
    async with Recorder(settings_for(server, tmp_path), clock=clock, recover=False) as other:
        [one] = await other.recover(bucket=disk == "lost", stale_after=0)
    assert one.outcome is Outcome.RECOVERED
    await check(server, (24 if disk == "kept" else 18) * RATE)
