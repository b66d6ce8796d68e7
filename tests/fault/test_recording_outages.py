"""Recordings while the store is away, hangs or loses answers: nothing waits, nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, Make, samples, speak
from faulty_store import FaultyStore, refusal, reset
from loguru import logger

from recorder import Recorder, Session, State, VirtualClock
from recorder.events import Event, RecordingEnded, UploadFailed
from uploader.errors import AccessDenied, NoSuchUpload, TransientError


async def test_an_endpoint_that_is_down_at_the_start_gets_it_all_when_it_is_back(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock, seen = VirtualClock(), list[Event]()
    store.down = True
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        speak(call, clock, 0, 5)
        assert call.frames == 250
        store.down = False
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 5 * RATE])
    assert any(isinstance(event, UploadFailed) for event in seen)


async def test_an_outage_in_mid_call_costs_nothing(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 4)
        await call.flush()
        store.down = True
        speak(call, clock, 4, 20)
        store.down = False
        speak(call, clock, 20, 24)
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 24 * RATE])
    puts = [key for op, key, _ in store.log if op == "put" and "/chunks/" in key]
    assert puts == sorted(puts), "chunks did not go oldest first"


async def test_a_store_that_stays_away_makes_the_result_pending_and_keeps_the_spool(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock, seen = VirtualClock(), list[Event]()
    async with Recorder(make(retry_deadline_seconds=1), clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        speak(call, clock, 0, 3)
        store.down = True
        result = await call.stop()
    assert result.state is State.PENDING
    assert not result.durable
    assert result.reason
    assert all(output.reason for output in result.outputs)
    spool = tmp_path / "spool" / "call"
    assert result.spool == str(spool)
    assert json.loads((spool / "result.json").read_text())["state"] == "pending"
    assert json.loads((spool / "recording.json").read_text())["recording_id"] == "call"
    kept = sorted((spool / "chunks").glob("*.wav"))
    pcm = b"".join(path.read_bytes()[80:] for path in kept)
    np.testing.assert_array_equal(
        np.frombuffer(pcm, dtype="<i2").reshape(-1, 2)[:, 0], VOICE[: 3 * RATE]
    )
    assert isinstance(seen[-1], RecordingEnded)


async def test_stop_does_not_wait_longer_than_told_and_the_result_follows(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 2)
        store.down = True
        early = await call.stop(wait_seconds=0.05)
        assert early.state is State.PENDING
        assert early.reason
        store.down = False
    assert call.result is not None
    assert call.result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 2 * RATE])


async def test_an_upload_that_vanishes_in_mid_call_is_made_anew_before_the_end(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    """As by a lifecycle rule: the end of a long call must not be what has to send it all again."""
    clock = VirtualClock()
    settings = make(outputs="stereo", part_bytes="5MiB", chunk_seconds=5)
    told: list[Event] = []
    async with Recorder(settings, clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=told.append)
        for second in range(0, 125, 5):
            speak(call, clock, second, second + 5)
            await call.flush()
            if second == 95:
                [upload] = [one async for one in store.inner.list_uploads()]
                await store.inner.abort_multipart(upload.key, upload.upload_id)
        before = store.calls["upload_part"]
        result = await call.stop()
    assert result.state is State.COMPLETED
    failed = [event for event in told if isinstance(event, UploadFailed)]
    assert [type(event.error) for event in failed] == [NoSuchUpload]
    assert result.counts["upload_part"] == store.calls["upload_part"]
    assert store.calls["upload_part"] - before == 2, "part 1, and the tail"
    assert store.calls["create_multipart"] == 2
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 125 * RATE])
    assert not [one async for one in store.inner.list_uploads()]


@pytest.mark.parametrize("op", ["put_manifest", "create_multipart", "put", "complete_multipart"])
async def test_lost_answers_are_settled_not_guessed(
    make: Make, store: FaultyStore, tmp_path: Path, op: str
) -> None:
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        store.lose_answer(op, times=2)
        call = await recorder.start("call")
        speak(call, clock, 0, 2)
        await call.flush()
        store.lose_answer(op)
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 2 * RATE])


async def test_capture_makes_no_request_and_no_await(make: Make, store: FaultyStore) -> None:
    """With the store hanging, every write still returns: it is a plain function call."""
    clock = VirtualClock()
    async with Recorder(make(retry_deadline_seconds=1), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        store.refuse("put", reset("put"))
        before = sum(store.calls.values())
        speak(call, clock, 0, 0.9)
        assert sum(store.calls.values()) == before
        assert call.frames == 45
        store.refuse("put", None)
        await call.stop()


async def test_every_attempt_is_logged_with_the_recordings_id_and_counted(
    make: Make, store: FaultyStore
) -> None:
    lines: list[tuple[str, str]] = []

    def keep(message: Any) -> None:
        record = message.record
        lines.append((record["extra"].get("recording_id", ""), record["message"]))

    handler = logger.add(keep, level="DEBUG")
    clock = VirtualClock()
    try:
        async with Recorder(make(), clock=clock, store=store) as recorder:
            call = await recorder.start("logged")
            store.fail("upload_part", reset("upload_part"), times=2)
            speak(call, clock, 0, 1)
            result = await call.stop()
    finally:
        logger.remove(handler)
    for attempt in (1, 2, 3):
        assert ("logged", f"upload_part attempt {attempt}") in lines
    assert result.counts["failed_attempts"] == 2
    assert result.counts["upload_part"] == 1


async def test_where_refusals_are_no_error_a_start_waits_for_nothing(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    """A store that never answers: capture begins at once, and nothing waits in memory for it."""
    clock = VirtualClock()
    settings = make(start_timeout_seconds=0.1)
    store.hangs = True
    async with Recorder(settings, clock=clock, store=store, require_store=False) as recorder:
        call = await recorder.start()
        speak(call, clock, 0, 2)
        assert (call.frames, store.log) == (100, [])
        store.hangs = False
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 2 * RATE])


async def test_a_store_that_never_answers_delays_a_start_no_longer_than_told(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock = VirtualClock()
    store.hangs = True
    async with Recorder(make(start_timeout_seconds=0.1), clock=clock, store=store) as recorder:
        call = await recorder.start()
        store.hangs = False
        speak(call, clock, 0, 2)
        assert (await call.stop()).state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 2 * RATE])


async def test_a_start_that_is_cancelled_leaves_no_recording_running(
    make: Make, store: FaultyStore
) -> None:
    async with Recorder(make(start_timeout_seconds=5), store=store) as recorder:
        store.hangs = True
        starting = asyncio.ensure_future(_started(recorder))
        await asyncio.sleep(0.05)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        store.hangs = False
        # Closing would end it too: it must have ended, and been tidied up, before that.
        async with asyncio.timeout(30):
            while list(recorder.settings.spool_dir.iterdir()):  # noqa: ASYNC110 - a folder
                await asyncio.sleep(0.02)


async def _started(recorder: Recorder) -> Session:
    return await recorder.start("abandoned")


async def test_a_part_that_does_not_get_through_holds_up_no_chunk(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    """Neither chunks nor what is said of them: a lost host would cost more than the open chunk."""
    clock, seen = VirtualClock(), list[Event]()
    settings = make(part_bytes="5MiB", chunk_seconds=10.0)

    def errors() -> list[type[Exception]]:
        return [type(event.error) for event in seen if isinstance(event, UploadFailed)]

    async def until(told: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not told():  # noqa: ASYNC110 - files and lists have no event
                await asyncio.sleep(0.01)

    def chunks() -> int:
        return len(list(tmp_path.glob("bucket/dt=*/call/chunks/*")))

    async with Recorder(settings, clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        store.refuse("upload_part", reset("upload_part"))
        speak(call, clock, 0, 112)  # the second part is whole
        await until(lambda: TransientError in errors())
        await until(lambda: chunks() == 11)
        speak(call, clock, 112, 122)
        await until(lambda: chunks() == 12)
        store.refuse("put", refusal(AccessDenied, "put"))
        speak(call, clock, 122, 130)
        clock.advance(5)
        await until(lambda: AccessDenied in errors())
        store.refuse("put", None)
        store.refuse("upload_part", None)
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path)[: 130 * RATE], VOICE)


@pytest.mark.parametrize("op", ["upload_part", "head"])
async def test_the_reason_is_what_failed_and_not_what_there_was_no_time_for(
    make: Make, store: FaultyStore, op: str
) -> None:
    clock = VirtualClock()
    async with Recorder(make(retry_deadline_seconds=1), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        store.refuse(op, reset(op))
        speak(call, clock, 0, 2)
        result = await call.stop()
    assert result.state is State.PENDING
    assert "connection reset" in result.reason
    assert "recorder recover" in result.hint
    assert [output.hint for output in result.outputs] == [result.hint]


async def test_a_close_while_a_part_does_not_get_through_makes_no_noise(
    make: Make, store: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    settings = make(part_bytes="5MiB", chunk_seconds=10.0)
    async with Recorder(settings, clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        store.refuse("upload_part", reset("upload_part"))
        speak(call, clock, 0, 112)
        async with asyncio.timeout(20):
            while store.calls["upload_part"] < 2:  # noqa: ASYNC110 - a count has no event
                await asyncio.sleep(0.01)
        await recorder.close(wait_seconds=0)
    gc.collect()
    assert "never retrieved" not in caplog.text
