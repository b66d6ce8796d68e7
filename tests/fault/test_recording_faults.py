"""Recordings while the store is away, refuses, or the disk is full: nothing is lost or claimed."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_store import FaultyStore, refusal, reset
from loguru import logger

from recorder import Recorder, Session, Settings, State, VirtualClock
from recorder.engine import RecorderClosed
from recorder.events import CaptureFailed, Event, RecordingEnded, UploadFailed
from recorder.quota import SpoolFull
from recorder.sealer import Sealer
from recorder.spool import RecordingExists
from uploader.errors import AccessDenied, NoSuchBucket, NoSuchUpload, TransientError, Unsupported
from uploader.local import LocalStore

RATE = 24000
FRAME = RATE // 50
VOICE = np.random.default_rng(11).integers(-9000, 9000, 130 * RATE, dtype=np.int16)
Make = Callable[..., Settings]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def settings(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "bucket": (tmp_path / "bucket").as_uri(),
            "spool_dir": tmp_path / "spool",
            "chunk_seconds": 1.0,
            "retry_base_seconds": 0.01,
            "retry_max_wait_seconds": 0.1,
            "start_timeout_seconds": 0.3,
            **changes,
        }
        return Settings(**values)

    return settings


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    """Opened and closed by the recorder."""
    return FaultyStore(LocalStore(tmp_path / "bucket"))


def speak(call: Session, clock: VirtualClock, start: float, end: float) -> None:
    for index in range(round(start * 50), round(end * 50)):
        clock.advance_to(call.zero + (index + 1) / 50)
        call.write("user", VOICE[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)


def recorded(folder: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    [path] = folder.glob("bucket/dt=*/*/audio.wav")
    raw = np.frombuffer(path.read_bytes()[80:], dtype="<i2")
    return raw.reshape(-1, 2)[:, 0]


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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 5 * RATE])
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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 24 * RATE])
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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 2 * RATE])


@pytest.mark.parametrize("kind", [AccessDenied, NoSuchBucket])
async def test_a_bucket_that_refuses_is_found_before_the_call(
    make: Make, store: FaultyStore, kind: type[AccessDenied]
) -> None:
    store.refuse("put", refusal(kind, "put"))
    with pytest.raises(kind):
        async with Recorder(make(), store=store):
            pytest.fail("opened all the same")


async def test_a_refused_manifest_is_found_at_the_start_and_leaves_no_spool(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    store.refuse("put_manifest", refusal(AccessDenied, "put"))
    async with Recorder(make(), store=store) as recorder:
        with pytest.raises(AccessDenied):
            await recorder.start("call")
    assert not list((tmp_path / "spool").iterdir())


async def test_a_refusal_in_mid_call_is_told_at_once_and_mended_with_the_next_chunk(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock, seen = VirtualClock(), list[Event]()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        store.refuse("put", refusal(AccessDenied, "put"))
        speak(call, clock, 0, 4)
        await call.flush()
        errors = [event.error for event in seen if isinstance(event, UploadFailed)]
        assert [type(error) for error in errors] == [AccessDenied] * len(errors)
        assert errors
        store.refuse("put", None)
        speak(call, clock, 4, 8)
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 8 * RATE])


async def test_a_refusal_to_the_end_is_a_failure_that_says_why(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 2)
        store.refuse("complete_multipart", refusal(AccessDenied, "complete_multipart"))
        result = await call.stop()
    assert result.state is State.FAILED
    assert [output.state for output in result.outputs] == [State.FAILED]
    assert result.hint == "ask for permission"
    manifest = json.loads(next(tmp_path.glob("bucket/dt=*/call/manifest.json")).read_text())
    assert manifest["state"] == "failed"
    assert (tmp_path / "spool" / "call" / "chunks" / "000001.wav").exists()
    assert list(tmp_path.glob("bucket/dt=*/call/chunks/*.wav"))


async def test_nothing_is_deleted_or_called_completed_before_it_is_verified(
    make: Make, store: FaultyStore
) -> None:
    """Invariant: the order of writes."""
    clock = VirtualClock()
    settings = make(outputs="stereo", part_bytes="5MiB", chunk_seconds=5)
    async with Recorder(settings, clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        for second in range(0, 130, 5):
            speak(call, clock, second, second + 5)
            await call.flush()
        await call.stop()
    log = [(op, key.rsplit("/", 1)[-1], n) for op, key, n in store.log if "probe" not in key]
    ops = [op for op, _, _ in log]
    assert ops[0] == "put_manifest"
    last_manifest = len(ops) - 1 - ops[::-1].index("put_manifest")
    completes = [index for index, op in enumerate(ops) if op == "complete_multipart"]
    heads = [index for index, op in enumerate(ops) if op == "head"]
    deletes = [index for index, op in enumerate(ops) if op == "delete"]
    assert len(completes) == len(heads) == 1
    assert max(completes) < max(heads) < last_manifest < min(deletes)
    parts = [index for index, op in enumerate(ops) if op == "upload_part"]
    assert [log[index][2] for index in parts[:1]] == [2], "part 2 goes while the call goes on"
    assert max(parts) < min(completes)
    assert store.calls["abort_multipart"] == 0
    assert store.most_parts_at_once == 1
    assert len(deletes) == 27, "of 26 chunks, and of the one that was open"
    assert store.calls["get"] == 0, "part 1 was not made from what is still on disk"


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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 125 * RATE])
    assert not [one async for one in store.inner.list_uploads()]


async def test_two_recordings_cannot_share_an_id(make: Make, store: FaultyStore) -> None:
    async with Recorder(make(), store=store) as recorder:
        call = await recorder.start("same")
        with pytest.raises(RecordingExists, match="'same'"):
            await recorder.start("same")
        await call.stop()
    async with Recorder(make(), store=store) as recorder:
        with pytest.raises(RecordingExists, match="a recording exists already"):
            await recorder.start("same")


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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 2 * RATE])


async def test_a_store_without_conditional_writes_is_found_out_and_served(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    plain_put, plain_complete = store.inner.put, store.inner.complete_multipart

    async def put(*args: Any, if_absent: bool = False, if_match: Any = None, **rest: Any) -> Any:
        if if_absent or if_match:
            raise Unsupported("conditional", op="put", code="NotImplemented")
        return await plain_put(*args, **rest)

    async def complete(*args: Any, if_absent: bool = False, **rest: Any) -> Any:
        assert not if_absent
        return await plain_complete(*args, **rest)

    store.inner.put = put  # type: ignore[method-assign]  # a server that can do less
    store.inner.complete_multipart = complete  # type: ignore[method-assign]  # likewise
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        assert not recorder.capabilities.conditional_writes
        call = await recorder.start("call")
        speak(call, clock, 0, 2)
        assert (await call.stop()).state is State.COMPLETED
    async with Recorder(make(), store=store) as recorder:
        with pytest.raises(RecordingExists):
            await recorder.start("call")
    manifest = json.loads(next(tmp_path.glob("bucket/dt=*/call/manifest.json")).read_text())
    assert manifest["conditional_writes"] is False


async def test_a_bucket_that_forbids_deletes_keeps_the_chunks_and_says_so(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    store.refuse("delete", refusal(AccessDenied, "delete"))
    clock = VirtualClock()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 2)
        assert (await call.stop()).state is State.COMPLETED
    manifest = json.loads(next(tmp_path.glob("bucket/dt=*/call/manifest.json")).read_text())
    assert manifest["chunks_kept"] is True
    assert len(list(tmp_path.glob("bucket/dt=*/call/chunks/*.wav"))) == 2
    assert not list((tmp_path / "spool").iterdir())


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
    audio = recorded(tmp_path)
    assert len(audio) == 93 * RATE
    np.testing.assert_array_equal(audio[: gap.start], VOICE[: gap.start])
    assert not audio[gap.start : gap.end].any()
    np.testing.assert_array_equal(audio[gap.end :], VOICE[gap.end : 93 * RATE])


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


async def test_an_error_nobody_thought_of_is_told_and_not_called_success(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    clock, seen = VirtualClock(), list[Event]()
    async with Recorder(make(), clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=seen.append)
        store.fail("put", lambda: ZeroDivisionError("a bug"))
        speak(call, clock, 0, 4)
        await call.flush()
        assert any("ZeroDivisionError: a bug" in str(e.error) for e in seen if hasattr(e, "error"))
        speak(call, clock, 4, 6)
        assert (await call.stop()).state is State.COMPLETED
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 6 * RATE])


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


async def test_uploads_begin_with_the_recording(make: Make, store: FaultyStore) -> None:
    settings = make(outputs="stereo,tracks")
    async with Recorder(settings, clock=VirtualClock(), store=store) as recorder:
        call = await recorder.start("call")
        await call.flush()
        begun = {upload.key.rsplit("/", 1)[1] async for upload in store.inner.list_uploads()}
        manifest = json.loads(await store.inner.get(store.log[-1][1]))
        await call.stop()
    assert begun == {"audio.wav", "user.wav", "bot.wav"}
    assert all(output["upload_id"] for output in manifest["outputs"])


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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 2 * RATE])


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
    np.testing.assert_array_equal(recorded(tmp_path), VOICE[: 2 * RATE])


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


async def test_a_spool_folder_that_is_a_file_is_said_to_be_one(
    make: Make, store: FaultyStore, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("not a folder")
    async with Recorder(make(), store=store) as recorder:
        with pytest.raises(SpoolFull, match="is a file, not a folder"):
            await recorder.start("call")


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
    np.testing.assert_array_equal(recorded(tmp_path)[: 130 * RATE], VOICE)


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


async def test_of_several_outputs_the_reason_is_the_worst_ones(
    make: Make, store: FaultyStore
) -> None:
    async def refuse(op: str, key: str, done: bool) -> None:
        if op == "complete_multipart" and key.endswith("audio.wav"):
            raise reset(op)()
        if op == "complete_multipart" and key.endswith("user.wav"):
            raise refusal(AccessDenied, op)()

    clock = VirtualClock()
    settings = make(outputs="stereo,tracks", retry_deadline_seconds=1)
    async with Recorder(settings, clock=clock, store=store) as recorder:
        call = await recorder.start("call")
        store.hook = refuse
        speak(call, clock, 0, 2)
        result = await call.stop()
        store.hook = None
    states = {output.name: output.state for output in result.outputs}
    assert states == {"stereo": State.PENDING, "user": State.FAILED, "bot": State.COMPLETED}
    assert result.state is State.FAILED
    assert "complete_multipart refused" in result.reason
    for output in result.outputs:
        assert output.state is State.COMPLETED or (output.reason and output.hint)


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
