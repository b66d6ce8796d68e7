"""One multipart upload against a store that fails, lies and forgets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_store import FaultyStore, refusal, reset
from loguru import logger

from uploader.budget import ByteBudget
from uploader.checksum import crc64nvme
from uploader.completion import RECORDING_ID, Verification
from uploader.context import Context
from uploader.errors import (
    AccessDenied,
    Conflict,
    InvalidPart,
    NoSuchObject,
    NoSuchUpload,
    PreconditionFailed,
    TransientError,
)
from uploader.local import LocalStore
from uploader.probe import Capabilities
from uploader.retry import Deadline, Retrier, RetryPolicy
from uploader.store import MIN_PART_BYTES, Body, ObjectAttributes, ObjectInfo
from uploader.upload import Upload

PART = MIN_PART_BYTES
KEY = "dt=2026-11-23/call/audio.wav"
DATA = random.Random(5).randbytes(3 * PART + 12345)
ALL = Capabilities(conditional_writes=True, checksums=True, deletes=True, head=True)


class Memory:
    """A source; its first bytes depend on the total, like a header."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    async def read(self, start: int, end: int, total: int | None) -> Body:
        self.reads.append((start, end))
        if start == 0:
            assert total is not None, "part 1 was asked for before the length was known"
        return self.data[start:end]


class VirtualTime:
    """Backoff that takes no time."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FaultyStore]:
    async with FaultyStore(LocalStore(tmp_path / "store")) as faulty:
        yield faulty


def make(
    store: FaultyStore,
    data: bytes = DATA,
    *,
    recording_id: str = "call",
    capabilities: Capabilities = ALL,
    limit: int = 4 * PART,
    kind: type[Memory] = Memory,
) -> tuple[Upload, Memory, ByteBudget]:
    time = VirtualTime()
    budget = ByteBudget(limit)
    context = Context(
        store=store,
        retrier=Retrier(RetryPolicy(), sleep=time.sleep, monotonic=time.monotonic),
        budget=budget,
        capabilities=capabilities,
        deadline=Deadline(600.0),
        recording_id=recording_id,
        log=logger,
        on_failure=lambda failed: None,
    )
    attributes = ObjectAttributes("audio/wav", metadata={RECORDING_ID: recording_id})
    source = kind(data)
    return Upload(context, KEY, attributes, PART, source), source, budget


async def finished(store: FaultyStore, upload: Upload, data: bytes = DATA) -> None:
    info = await upload.finish(len(data))
    assert info.size == len(data)
    assert await store.inner.get(KEY) == data
    assert upload.checksum() == crc64nvme(data)
    assert [u async for u in store.inner.list_uploads()] == []


async def test_parts_go_as_they_are_whole_and_part_1_last(store: FaultyStore) -> None:
    upload, _, _ = make(store)
    await upload.create()
    for available in (100, PART - 1, PART, 2 * PART - 1, 2 * PART, 2 * PART + 1, 3 * PART):
        await upload.advance(available)
        sent = [number for op, _, number in store.log if op == "upload_part"]
        assert sent == list(range(2, available // PART + 1))
    await finished(store, upload)
    sent = [number for op, _, number in store.log if op == "upload_part"]
    assert sorted(sent) == [1, 2, 3, 4]
    assert store.calls["upload_part"] == 4


@pytest.mark.parametrize("size", [80, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART])
async def test_sizes_round_a_parts_end(store: FaultyStore, size: int) -> None:
    data = DATA[:size]
    upload, _, _ = make(store, data)
    await upload.create()
    await upload.advance(size)
    await finished(store, upload, data)
    assert len(upload.parts) == max(1, -(-size // PART))
    assert all(part.size == PART for number, part in upload.parts.items() if number * PART < size)


async def test_a_small_object_that_was_not_begun_is_one_request_and_a_look(
    store: FaultyStore,
) -> None:
    upload, _, _ = make(store, b"small")
    await finished(store, upload, b"small")
    assert dict(store.calls) == {"put": 1, "head": 1}


@pytest.mark.parametrize("op", ["create_multipart", "upload_part", "complete_multipart", "head"])
async def test_a_broken_connection_is_tried_again(store: FaultyStore, op: str) -> None:
    upload, _, _ = make(store)
    store.fail(op, reset(op), times=3)
    await upload.create()
    await finished(store, upload)


@pytest.mark.parametrize("op", ["create_multipart", "upload_part", "complete_multipart", "head"])
async def test_a_lost_answer_is_settled(store: FaultyStore, op: str) -> None:
    upload, _, _ = make(store)
    store.lose_answer(op)
    await upload.create()
    info = await upload.finish(len(DATA))
    assert info.size == len(DATA)
    assert await store.inner.get(KEY) == DATA


@pytest.mark.parametrize("kind", [NoSuchUpload, PreconditionFailed, Conflict, InvalidPart])
async def test_whatever_a_second_complete_answers_the_object_decides(
    store: FaultyStore, kind: type[NoSuchUpload]
) -> None:
    upload, _, _ = make(store)
    await upload.create()
    store.lose_answer("complete_multipart", refusal(kind, "complete_multipart"))
    await finished(store, upload)
    assert store.calls["complete_multipart"] == 1


async def test_an_upload_that_a_lifecycle_rule_removed_is_made_anew(store: FaultyStore) -> None:
    upload, source, _ = make(store)
    first = await upload.create()
    await upload.advance(2 * PART)
    await store.inner.abort_multipart(KEY, first)
    await finished(store, upload)
    assert upload.upload_id != first
    assert source.reads.count((PART, 2 * PART)) == 2


async def test_a_part_the_store_lost_is_sent_again_and_only_that(store: FaultyStore) -> None:
    upload, source, _ = make(store)
    upload_id = await upload.create()
    await upload.advance(3 * PART)
    await store.inner.upload_part(KEY, upload_id, 3, b"z" * PART)  # somebody's other bytes
    await finished(store, upload)
    assert source.reads.count((2 * PART, 3 * PART)) == 2
    assert source.reads.count((PART, 2 * PART)) == 1


async def test_a_permanent_refusal_comes_up_at_once_and_the_rest_goes_on_later(
    store: FaultyStore,
) -> None:
    upload, _, _ = make(store)
    await upload.create()
    store.refuse("upload_part", refusal(AccessDenied, "upload_part"))
    with pytest.raises(AccessDenied):
        await upload.advance(2 * PART)
    assert store.calls["upload_part"] == 1
    store.refuse("upload_part", None)
    await finished(store, upload)
    assert store.calls["abort_multipart"] == 0


async def test_the_deadline_ends_it_and_nothing_is_aborted(store: FaultyStore) -> None:
    upload, _, _ = make(store)
    await upload.create()
    store.refuse("upload_part", reset("upload_part"))
    with pytest.raises(TransientError):
        await upload.finish(len(DATA))
    assert store.calls["abort_multipart"] == 0
    assert len([u async for u in store.inner.list_uploads()]) == 1


async def test_what_there_was_no_time_for_says_what_took_it(store: FaultyStore) -> None:
    upload, _, _ = make(store)
    await upload.create()
    store.fail("upload_part", refusal(AccessDenied, "upload_part"))
    with pytest.raises(AccessDenied):
        await upload.finish(len(DATA))
    upload._context.deadline.move(-1)
    with pytest.raises(TransientError, match=r"deadline has passed; .*upload_part refused") as told:
        await upload.finish(len(DATA))
    assert told.value.hint == "ask for permission"


async def test_somebody_elses_object_is_never_replaced(store: FaultyStore) -> None:
    await store.inner.put(KEY, b"theirs", ObjectAttributes(metadata={RECORDING_ID: "other"}))
    upload, _, _ = make(store)
    await upload.create()
    with pytest.raises(PreconditionFailed) as raised:
        await upload.finish(len(DATA))
    assert "move it away" in raised.value.hint
    assert await store.inner.get(KEY) == b"theirs"


async def test_the_same_bytes_by_somebody_else_are_not_ours(store: FaultyStore) -> None:
    await store.inner.put(KEY, DATA, ObjectAttributes(metadata={RECORDING_ID: "other"}))
    upload, _, _ = make(store)
    await upload.create()
    with pytest.raises(PreconditionFailed):
        await upload.finish(len(DATA))


async def test_an_object_that_is_not_what_was_sent_is_no_success(store: FaultyStore) -> None:
    upload, _, _ = make(store, capabilities=ALL)
    await upload.create()
    inner_head = store.inner.head

    async def shorter(key: str) -> object:
        info = await inner_head(key)
        return type(info)(info.key, info.size - 1, info.etag, info.checksum, "", info.metadata)

    store.inner.head = shorter  # type: ignore[method-assign, assignment]  # a store that lies
    with pytest.raises(Verification, match="bytes"):
        await upload.finish(len(DATA))


async def test_without_head_completes_answer_is_what_there_is(store: FaultyStore) -> None:
    store.refuse("head", refusal(AccessDenied, "head"))
    nobody_looks = Capabilities(conditional_writes=True, checksums=True, deletes=True, head=False)
    upload, _, _ = make(store, capabilities=nobody_looks)
    await upload.create()
    info = await upload.finish(len(DATA))
    assert (info.size, info.checksum) == (len(DATA), crc64nvme(DATA))
    assert store.calls["head"] == 0


async def test_memory_is_bounded_by_the_budget_and_no_part_is_in_flight_twice(
    store: FaultyStore,
) -> None:
    upload, _, budget = make(store, limit=2 * PART)
    await upload.create()
    store.fail("upload_part", reset("upload_part"), times=4)
    await finished(store, upload)
    assert budget.peak <= 2 * PART
    assert budget.in_use == 0
    assert store.most_parts_at_once == 1


async def test_an_object_that_vanished_after_complete_is_no_success(store: FaultyStore) -> None:
    upload, _, _ = make(store)
    await upload.create()
    store.refuse("head", refusal(NoSuchObject, "head"))
    with pytest.raises(Verification, match="not there"):
        await upload.finish(len(DATA))


async def test_an_object_with_another_checksum_is_no_success(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, _, _ = make(store)
    await upload.create()
    says(store, monkeypatch, checksum=crc64nvme(DATA) ^ 1)
    with pytest.raises(Verification, match="checksum"):
        await upload.finish(len(DATA))


async def test_an_object_that_says_it_is_somebody_elses_is_no_success(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, _, _ = make(store)
    await upload.create()
    says(store, monkeypatch, metadata={RECORDING_ID: "other"})
    with pytest.raises(Verification, match="'other'"):
        await upload.finish(len(DATA))


@pytest.mark.parametrize("found", [{"size": 1}, {"checksum": 1}, {"metadata": {}}])
@pytest.mark.parametrize("data", [DATA, b"small"])
async def test_a_refused_condition_is_no_success_unless_the_object_is_just_this(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, data: bytes, found: dict[str, object]
) -> None:
    upload, _, _ = make(store, data)
    if data is DATA:
        await upload.create()
    for op in ("put", "complete_multipart"):
        store.lose_answer(op, refusal(PreconditionFailed, op))
    says(store, monkeypatch, **found)
    with pytest.raises(PreconditionFailed):
        await upload.finish(len(data))
    assert upload.superseded == []


@pytest.mark.parametrize("data", [DATA, b"small"])
async def test_everything_is_sent_with_its_checksum(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    sent: list[tuple[str, object]] = []
    for op in ("put", "upload_part", "complete_multipart"):
        real = getattr(store, op)

        async def noted(*args: object, op: str = op, real: Any = real, **options: object) -> object:
            sent.append((op, options["checksum"]))
            return await real(*args, **options)

        monkeypatch.setattr(store, op, noted)
    upload, _, _ = make(store, data)
    if data is DATA:
        await upload.create()
    await upload.finish(len(data))
    parts = [DATA[start : start + PART] for start in range(0, len(DATA), PART)]
    expected = [("put", crc64nvme(data))]
    if data is DATA:
        expected = [("upload_part", crc64nvme(part)) for part in parts]
        expected.append(("complete_multipart", crc64nvme(DATA)))
    assert sorted(sent, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("listed", ["refused", "gone", "as they were"])
async def test_parts_that_are_called_invalid_and_nobody_knows_which_are_sent_anew(
    store: FaultyStore, listed: str
) -> None:
    upload, _, _ = make(store)
    first = await upload.create()
    store.fail("complete_multipart", refusal(InvalidPart, "complete_multipart"))
    if listed != "as they were":
        kind = AccessDenied if listed == "refused" else NoSuchUpload
        store.refuse("list_parts", refusal(kind, "list_parts"))
    info = await upload.finish(len(DATA))
    assert info.size == len(DATA)
    assert await store.inner.get(KEY) == DATA
    assert upload.superseded == [first]
    await upload.drop_superseded()
    assert [one async for one in store.inner.list_uploads()] == []


def says(store: FaultyStore, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Have the store say something else of every object."""
    real = store.inner.head

    async def head(key: str) -> ObjectInfo:
        return replace(await real(key), **changes)

    monkeypatch.setattr(store.inner, "head", head)
