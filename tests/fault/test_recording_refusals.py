"""Recordings on a store that refuses, or can do less: told, mended, and never called a success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, Make, samples, speak
from faulty_store import FaultyStore, refusal, reset

from recorder import Recorder, State, VirtualClock
from recorder.events import Event, UploadFailed
from recorder.spool import RecordingExists
from uploader.errors import AccessDenied, NoSuchBucket, Unsupported


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
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 8 * RATE])


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


async def test_two_recordings_cannot_share_an_id(make: Make, store: FaultyStore) -> None:
    async with Recorder(make(), store=store) as recorder:
        call = await recorder.start("same")
        with pytest.raises(RecordingExists, match="'same'"):
            await recorder.start("same")
        await call.stop()
    async with Recorder(make(), store=store) as recorder:
        with pytest.raises(RecordingExists, match="a recording exists already"):
            await recorder.start("same")


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
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 6 * RATE])


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
