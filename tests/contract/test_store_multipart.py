"""The contract of `uploader.store`: multipart uploads."""

from __future__ import annotations

import asyncio
import os

import pytest
from backends import Backend

from uploader import limits
from uploader.checksum import crc64nvme
from uploader.errors import (
    ChecksumError,
    InvalidPart,
    InvalidRequest,
    NoSuchObject,
    NoSuchUpload,
    PreconditionFailed,
    TransientError,
)
from uploader.store import MIN_PART_BYTES, ObjectAttributes, ObjectInfo, Part, Store

FIRST = os.urandom(MIN_PART_BYTES)
SECOND = os.urandom(MIN_PART_BYTES)
TAIL = b"the tail"
KEY = "folder/audio.wav"
UNKNOWN = "0123456789abcdef0123456789abcdef"
WAV = ObjectAttributes(
    content_type="audio/wav", metadata={"recorder-recording-id": "call-1"}, tags={"a": "b"}
)


async def keys(store: Store) -> list[str]:
    return [info.key async for info in store.list_objects()]


async def uploads(store: Store, prefix: str = "") -> list[tuple[str, str]]:
    return [(one.key, one.upload_id) async for one in store.list_uploads(prefix)]


async def test_parts_become_one_object(store: Store, backend: Backend) -> None:
    upload = await store.create_multipart(KEY, WAV)
    parts = [
        await store.upload_part(KEY, upload, number, body)
        for number, body in enumerate((FIRST, bytearray(SECOND), TAIL), 1)
    ]
    whole = FIRST + SECOND + TAIL
    done = await store.complete_multipart(KEY, upload, parts, checksum=crc64nvme(whole))
    found = await store.head(KEY)
    assert (done.key, done.size, done.etag) == (KEY, len(whole), found.etag)
    assert found.size == len(whole)
    assert found.content_type == "audio/wav"
    assert found.metadata == {"recorder-recording-id": "call-1"}
    if "no-checksum" not in backend.quirks:
        assert done.checksum == found.checksum == crc64nvme(whole)
    assert await store.get(KEY) == whole
    edge = MIN_PART_BYTES
    assert await store.get(KEY, start=edge - 2, end=edge + 2) == FIRST[-2:] + SECOND[:2]
    assert await keys(store) == [KEY]
    assert await uploads(store) == []


async def test_parts_may_arrive_in_any_order_and_at_once(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    bodies = {3: TAIL, 2: SECOND, 1: FIRST}
    parts = await asyncio.gather(
        *(store.upload_part(KEY, upload, number, body) for number, body in bodies.items())
    )
    parts.sort(key=lambda part: part.number)
    await store.complete_multipart(KEY, upload, parts, checksum=crc64nvme(FIRST + SECOND + TAIL))
    assert await store.get(KEY) == FIRST + SECOND + TAIL


@pytest.mark.parametrize("body", [b"x", b"", TAIL])
async def test_the_last_part_may_be_small(store: Store, body: bytes) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, body)
    info = await store.complete_multipart(KEY, upload, [part], checksum=crc64nvme(body))
    assert info.size == len(body)
    assert await store.get(KEY) == body


async def test_numbers_may_have_gaps(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    tail = await store.upload_part(KEY, upload, 10_000, TAIL)
    first = await store.upload_part(KEY, upload, 7, FIRST)
    await store.complete_multipart(KEY, upload, [first, tail])
    assert await store.get(KEY) == FIRST + TAIL


async def test_a_part_tells_what_was_stored(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 2, TAIL, checksum=crc64nvme(TAIL))
    assert (part.number, part.size, part.checksum) == (2, len(TAIL), crc64nvme(TAIL))
    [listed] = await store.list_parts(KEY, upload)
    assert (listed.number, listed.size, listed.etag) == (2, len(TAIL), part.etag)
    assert listed.checksum in (None, part.checksum)


async def test_parts_are_listed_by_number(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    assert await store.list_parts(KEY, upload) == []
    for number in (11, 2, 1):
        await store.upload_part(KEY, upload, number, bytes([number]))
    assert [part.number for part in await store.list_parts(KEY, upload)] == [1, 2, 11]


async def test_a_part_sent_again_replaces_the_first(store: Store, backend: Backend) -> None:
    upload = await store.create_multipart(KEY)
    old = await store.upload_part(KEY, upload, 1, b"old bytes")
    new = await store.upload_part(KEY, upload, 1, b"new")
    assert old.etag != new.etag
    listed = [(part.size, part.etag) for part in await store.list_parts(KEY, upload)]
    untold = listed == [] and "part-times-in-seconds" in backend.quirks
    assert untold or listed == [(3, new.etag)]
    await store.complete_multipart(KEY, upload, [new], checksum=crc64nvme(b"new"))
    assert await store.get(KEY) == b"new"


async def test_the_same_part_sent_again_changes_nothing(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    first = await store.upload_part(KEY, upload, 1, TAIL)
    again = await store.upload_part(KEY, upload, 1, TAIL)
    assert first == again
    assert len(await store.list_parts(KEY, upload)) == 1
    await store.complete_multipart(KEY, upload, [first], checksum=crc64nvme(TAIL))
    assert await store.get(KEY) == TAIL


async def test_a_replaced_part_cannot_be_completed(store: Store, backend: Backend) -> None:
    upload = await store.create_multipart(KEY)
    old = await store.upload_part(KEY, upload, 1, b"old bytes")
    await store.upload_part(KEY, upload, 1, b"new")
    with backend.refuses(InvalidPart, unless="old-parts-live"):
        await store.complete_multipart(KEY, upload, [old])


async def test_an_upload_in_progress_is_no_object(store: Store) -> None:
    upload = await store.create_multipart(KEY, WAV)
    await store.upload_part(KEY, upload, 1, TAIL)
    with pytest.raises(NoSuchObject):
        await store.head(KEY)
    assert await keys(store) == []
    assert await uploads(store) == [(KEY, upload)]


async def test_an_object_stays_until_the_upload_is_completed(store: Store) -> None:
    await store.put(KEY, b"old")
    upload = await store.create_multipart(KEY, WAV)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    data, info = await store.read(KEY)
    assert (data, info.metadata) == (b"old", {})
    await store.complete_multipart(KEY, upload, [part])
    data, info = await store.read(KEY)
    assert (data, info.metadata) == (TAIL, dict(WAV.metadata))


async def test_uploads_are_listed_by_prefix(store: Store) -> None:
    names = ["a/one", "a/two", "ab/three", "c"]
    ids = {name: await store.create_multipart(name) for name in names}
    assert sorted(await uploads(store)) == sorted(ids.items())
    assert sorted(await uploads(store, "a/")) == [(n, ids[n]) for n in ("a/one", "a/two")]
    assert len(await uploads(store, "a")) == 3
    assert await uploads(store, "b") == []


async def test_one_key_can_have_several_uploads(store: Store) -> None:
    one, other = await store.create_multipart(KEY), await store.create_multipart(KEY)
    assert one != other
    await store.upload_part(KEY, one, 1, b"one")
    part = await store.upload_part(KEY, other, 1, b"other")
    assert [part.size for part in await store.list_parts(KEY, one)] == [3]
    await store.complete_multipart(KEY, other, [part])
    assert await store.get(KEY) == b"other"
    assert await uploads(store) == [(KEY, one)]


@pytest.mark.parametrize("number", [-1, 0, 10_001])
async def test_part_numbers_out_of_limits(store: Store, number: int) -> None:
    upload = await store.create_multipart(KEY)
    with pytest.raises(InvalidRequest):
        await store.upload_part(KEY, upload, number, TAIL)


async def test_a_part_is_limited_in_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PART_BYTES", 1000)
    upload = await store.create_multipart(KEY)
    await store.upload_part(KEY, upload, 1, bytes(999))
    await store.upload_part(KEY, upload, 2, bytes(1000))
    with pytest.raises(InvalidRequest):
        await store.upload_part(KEY, upload, 3, bytes(1001))
    assert [part.number for part in await store.list_parts(KEY, upload)] == [1, 2]


@pytest.mark.parametrize(("size", "accepted"), [(-1, False), (0, True), (1, True)])
async def test_parts_but_the_last_have_a_least_size(
    store: Store, size: int, accepted: bool
) -> None:
    upload = await store.create_multipart(KEY)
    body = os.urandom(MIN_PART_BYTES + size)
    first = await store.upload_part(KEY, upload, 1, body)
    tail = await store.upload_part(KEY, upload, 2, TAIL)
    if accepted:
        await store.complete_multipart(KEY, upload, [first, tail])
        assert await store.get(KEY) == body + TAIL
    else:
        with pytest.raises(InvalidRequest):
            await store.complete_multipart(KEY, upload, [first, tail])
        assert await keys(store) == []


async def test_parts_that_cannot_be_joined(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    first = await store.upload_part(KEY, upload, 1, FIRST)
    tail = await store.upload_part(KEY, upload, 2, SECOND)
    for parts in ([], [tail, first], [first, first]):
        with pytest.raises(InvalidRequest):
            await store.complete_multipart(KEY, upload, parts)
    assert await uploads(store) == [(KEY, upload)]


async def test_other_bytes_than_a_parts_checksum_says(store: Store, backend: Backend) -> None:
    upload = await store.create_multipart(KEY)
    with backend.refuses(ChecksumError, unless="checksum-not-compared"):
        await store.upload_part(KEY, upload, 1, TAIL, checksum=crc64nvme(b"other"))
    counted = 1 if "checksum-not-compared" in backend.quirks else 0
    assert len(await store.list_parts(KEY, upload)) == counted


async def test_other_bytes_than_the_wholes_checksum_says(store: Store, backend: Backend) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    with backend.refuses(ChecksumError, unless="checksum-not-compared"):
        await store.complete_multipart(KEY, upload, [part], checksum=crc64nvme(b"other"))
    with backend.refuses(NoSuchObject, unless="checksum-not-compared"):
        await store.head(KEY)


async def test_a_part_that_is_not_there(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    first = await store.upload_part(KEY, upload, 1, FIRST)
    missing = Part(2, len(TAIL), UNKNOWN)
    with pytest.raises(InvalidPart):
        await store.complete_multipart(KEY, upload, [first, missing])
    assert await keys(store) == []
    tail = await store.upload_part(KEY, upload, 2, TAIL)  # the upload lives on
    await store.complete_multipart(KEY, upload, [first, tail])
    assert await store.get(KEY) == FIRST + TAIL


async def test_a_part_with_another_etag(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    with pytest.raises(InvalidPart):
        await store.complete_multipart(KEY, upload, [Part(1, part.size, UNKNOWN)])
    assert await keys(store) == []
    await store.complete_multipart(KEY, upload, [part])  # the upload lives on
    assert await store.get(KEY) == TAIL


async def test_complete_only_where_no_object_is(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    await store.put(KEY, b"there")
    with pytest.raises(PreconditionFailed):
        await store.complete_multipart(KEY, upload, [part], if_absent=True)
    assert await store.get(KEY) == b"there"
    assert len(await store.list_parts(KEY, upload)) == 1  # the upload lives on
    await store.delete(KEY)
    await store.complete_multipart(KEY, upload, [part], if_absent=True)
    assert await store.get(KEY) == TAIL


async def test_completing_twice(store: Store) -> None:
    upload = await store.create_multipart(KEY, WAV)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    first = await store.complete_multipart(KEY, upload, [part])
    try:
        again = await store.complete_multipart(KEY, upload, [part])
    except NoSuchUpload:
        pass
    else:  # some servers remember for a while; then it is the same object
        assert (again.etag, again.size) == (first.etag, first.size)
    data, info = await store.read(KEY)
    assert (data, info.etag, info.metadata) == (TAIL, first.etag, dict(WAV.metadata))


async def test_completing_twice_at_once(store: Store, backend: Backend) -> None:
    upload = await store.create_multipart(KEY)
    parts = [
        await store.upload_part(KEY, upload, 1, FIRST),
        await store.upload_part(KEY, upload, 2, TAIL),
    ]
    results = await asyncio.gather(
        *(store.complete_multipart(KEY, upload, parts) for _ in range(2)), return_exceptions=True
    )
    done = [one for one in results if isinstance(one, ObjectInfo)]
    assert done
    losers: list[type[Exception]] = [NoSuchUpload]
    if "racing-completes-500" in backend.quirks:
        losers.append(TransientError)
    assert all(isinstance(one, (ObjectInfo, *losers)) for one in results), results
    assert await store.get(KEY) == FIRST + TAIL


@pytest.mark.parametrize("ending", ["unknown", "complete", "abort", "other key"])
async def test_an_upload_that_is_not_there(store: Store, ending: str, backend: Backend) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    key = KEY
    if ending == "unknown":
        upload = UNKNOWN
    elif ending == "complete":
        await store.complete_multipart(KEY, upload, [part])
    elif ending == "abort":
        await store.abort_multipart(KEY, upload)
    else:
        key = "folder/other.wav"
    if ending == "other key" and "upload-of-another-key" in backend.quirks:
        await store.upload_part(key, upload, 2, TAIL)
        return
    with pytest.raises(NoSuchUpload):
        await store.upload_part(key, upload, 2, TAIL)
    with pytest.raises(NoSuchUpload):
        await store.list_parts(key, upload)
    if ending != "complete":  # see test_completing_twice
        with pytest.raises(NoSuchUpload):
            await store.complete_multipart(key, upload, [part])
    await store.abort_multipart(key, upload)


@pytest.mark.parametrize("upload_id", ["..", "../tmp", "a/b", "x" * 300, "caf\u00e9", "a b"])
async def test_an_upload_id_that_is_none(store: Store, upload_id: str) -> None:
    refused = (NoSuchUpload, InvalidRequest)
    with pytest.raises(refused):
        await store.upload_part(KEY, upload_id, 1, TAIL)
    with pytest.raises(refused):
        await store.list_parts(KEY, upload_id)
    with pytest.raises(refused):
        await store.complete_multipart(KEY, upload_id, [Part(1, 1, UNKNOWN)])


async def test_an_aborted_upload_is_gone(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    await store.upload_part(KEY, upload, 1, TAIL)
    await store.abort_multipart(KEY, upload)
    assert await uploads(store) == []
    assert await keys(store) == []
    await store.abort_multipart(KEY, upload)


async def test_aborting_what_was_completed_leaves_the_object(store: Store) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, TAIL)
    await store.complete_multipart(KEY, upload, [part])
    await store.abort_multipart(KEY, upload)
    assert await store.get(KEY) == TAIL


async def test_attributes_that_no_object_can_have(store: Store) -> None:
    with pytest.raises(InvalidRequest):
        await store.create_multipart(KEY, ObjectAttributes(metadata={"a": "x" * 2048}))
    assert await uploads(store) == []
