"""Recordings whose spool is full, damaged or let go of: what is missing is listed, not claimed."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import FRAME, RATE, VOICE, Make, samples, speak
from faulty_store import FaultyStore, refusal

from recorder import Recorder, State, VirtualClock
from recorder.engine import RecorderClosed
from recorder.events import CaptureFailed, Event
from recorder.quota import SpoolFull
from recorder.sealer import Sealer
from uploader.errors import AccessDenied


async def test_a_spool_that_is_full_is_a_listed_gap_and_no_error_in_the_bot(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock, seen = VirtualClock(), list[Event]()
    settings = make(spool_max_bytes="16MiB", chunk_seconds=60)
    async with Recorder(settings, clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        quota = recorder._quota
        speak(call, clock, 0, 30)
        allowed, quota.limit = quota.limit, 0  # the disk fills up
        speak(call, clock, 30, 90)  # more than the segment that was prepared takes
        lost = call.refused
        quota.limit = allowed
        speak(call, clock, 90, 93)
        result = await call.stop()
    assert lost > 0
    assert result.state is State.COMPLETED_WITH_GAPS
    [gap] = result.gaps
    assert gap.track == "user"
    assert (gap.end - gap.start) == pytest.approx(lost * FRAME, abs=2)
    assert len([event for event in seen if isinstance(event, CaptureFailed)]) == 1
    audio = samples(tmp_path)
    assert len(audio) == 93 * RATE
    np.testing.assert_array_equal(audio[: gap.start], VOICE[: gap.start])
    assert not audio[gap.start : gap.end].any()
    np.testing.assert_array_equal(audio[gap.end :], VOICE[gap.end : 93 * RATE])


async def test_what_cannot_be_sealed_is_never_called_complete(
    make: Make, store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the call cannot be written to the spool: the object without it is no success."""
    clock = VirtualClock()
    async with Recorder(make(retry_deadline_seconds=1), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 4)
        await call.flush()
        recorder._quota.limit = 0
        speak(call, clock, 4, 6)
        result = await call.stop()
    assert result.state is State.PENDING
    assert "spool" in result.reason
    assert not list(tmp_path.glob("bucket/dt=*/call/audio.wav"))
    assert list((tmp_path / "spool" / "call" / "journal").iterdir())


async def test_a_spool_folder_that_is_a_file_is_said_to_be_one(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("not a folder")
    async with Recorder(make(), store=store) as recorder:
        with pytest.raises(SpoolFull, match="is a file, not a folder"):
            await recorder.start("call")


async def test_a_chunk_file_that_is_damaged_is_named_and_not_sent(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        store.refuse("put", refusal(AccessDenied, "put"))
        speak(call, clock, 0, 3)
        await call.flush()
        path = tmp_path / "spool" / "call" / "chunks" / "000001.wav"
        body = bytearray(path.read_bytes())
        body[4001] ^= 1
        path.write_bytes(body)
        store.refuse("put", None)
        before = store.calls["put"]
        result = await call.stop()
    assert result.state is State.FAILED
    assert str(path) in result.reason
    assert result.hint
    assert store.calls["put"] == before
    assert path.read_bytes() == body


async def test_a_close_waits_for_who_is_sealing(
    make: Make, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush is the caller's, and goes on when he is not there any more."""
    clock, seen = VirtualClock(), list[str]()
    sealing, step, close = threading.Event(), Sealer.step, Sealer.close

    def slow_step(sealer: Sealer, *arguments: Any, **options: Any) -> Any:
        sealing.set()
        time.sleep(0.2)  # what a close must not use
        chunks = step(sealer, *arguments, **options)
        seen.append("sealed")
        return chunks

    def noted_close(sealer: Sealer) -> None:
        seen.append("closed")
        close(sealer)

    monkeypatch.setattr(Sealer, "step", slow_step)
    monkeypatch.setattr(Sealer, "close", noted_close)
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 5)
        flushing = asyncio.ensure_future(call.flush())
        await asyncio.to_thread(sealing.wait)
        await recorder.close(wait_seconds=0)
        assert seen[:2] == ["sealed", "closed"]
        assert seen.count("sealed") == 1
    with pytest.raises(RecorderClosed):
        await flushing


async def test_nothing_is_sealed_in_a_spool_that_was_let_go(
    make: Make, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 5)
        backstage: Any = call._backstage
        await recorder._engine.run(backstage._sealing.close(lambda: None))
        monkeypatch.setattr(Sealer, "step", pytest.fail)
        monkeypatch.setattr(Sealer, "open_chunk", pytest.fail)
        with pytest.raises(RecorderClosed):
            await call.flush()
        assert await recorder._engine.run(backstage._sealing.open_chunk(0, 1)) is None
        monkeypatch.undo()
        await recorder.close(wait_seconds=0)
