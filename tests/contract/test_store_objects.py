"""The contract of `uploader.store`: whole objects."""

from __future__ import annotations

import asyncio
import os

import pytest
from backends import Backend

from uploader import limits
from uploader.checksum import crc64nvme
from uploader.errors import (
    ChecksumError,
    Conflict,
    InvalidRequest,
    NoSuchObject,
    PreconditionFailed,
)
from uploader.store import ObjectAttributes, ObjectInfo, Store

WAV = ObjectAttributes(
    content_type="audio/wav",
    content_disposition='inline; filename="call.wav"',
    metadata={"recorder-recording-id": "call-1", "start": "2026-01-02T03:04:05Z"},
    tags={"team": "voice", "a b": "c/d+e=f"},
)


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list_objects(prefix)]


@pytest.mark.parametrize("body", [b"", b"x", bytearray(b"abc"), os.urandom(3_000_001)])
async def test_what_was_put_is_read(store: Store, body: bytes) -> None:
    await store.put("folder/object", body)
    assert await store.get("folder/object") == bytes(body)


async def test_put_returns_what_head_returns(store: Store, backend: Backend) -> None:
    written = await store.put("call.wav", b"RIFF", WAV)
    found = await store.head("call.wav")
    assert (written.key, written.size, written.etag) == ("call.wav", 4, found.etag)
    assert (found.key, found.size) == ("call.wav", 4)
    expected = None if "no-checksum" in backend.quirks else crc64nvme(b"RIFF")
    assert written.checksum == found.checksum == expected
    assert found.modified is not None
    assert found.modified.tzinfo is not None


async def test_attributes_are_kept(store: Store) -> None:
    await store.put("call.wav", b"RIFF", WAV)
    info = await store.head("call.wav")
    assert info.content_type == "audio/wav"
    assert info.metadata == dict(WAV.metadata)


async def test_a_put_replaces_bytes_and_attributes(store: Store) -> None:
    before = await store.put("object", b"old", WAV)
    after = await store.put("object", b"new")
    data, info = await store.read("object")
    assert data == b"new"
    assert info.metadata == {}
    assert info.content_type == "application/octet-stream"
    assert info.etag == after.etag != before.etag


async def test_read_gives_bytes_and_info_of_one_version(store: Store) -> None:
    bodies = [bytes([number]) * (100_000 + number) for number in range(6)]
    etags = {}

    async def write() -> None:
        for body in bodies * 2:
            etags[(await store.put("object", body)).etag] = body

    async def read() -> None:
        while not writing.done():
            data, info = await store.read("object")
            seen.append((data, info))

    seen: list[tuple[bytes, ObjectInfo]] = []
    await store.put("object", bodies[0])
    writing = asyncio.create_task(write())
    await asyncio.gather(writing, read(), read())
    assert seen
    for data, info in seen:
        assert data in bodies
        assert info.size == len(data)
        assert etags[info.etag] == data


async def test_a_checksum_that_fits_is_accepted(store: Store) -> None:
    info = await store.put("object", b"bytes", checksum=crc64nvme(b"bytes"))
    assert info.size == 5


async def test_other_bytes_than_the_checksum_says_are_refused(
    store: Store, backend: Backend
) -> None:
    with backend.refuses(ChecksumError, unless="checksum-not-compared"):
        await store.put("object", b"bytes", checksum=crc64nvme(b"other"))
    with backend.refuses(NoSuchObject, unless="checksum-not-compared"):
        await store.head("object")


async def test_if_absent_writes_once(store: Store) -> None:
    first = await store.put("object", b"first", if_absent=True)
    with pytest.raises(PreconditionFailed):
        await store.put("object", b"second", WAV, if_absent=True)
    data, info = await store.read("object")
    assert data == b"first"
    assert info.etag == first.etag
    assert info.metadata == {}


async def test_if_absent_writes_again_after_a_delete(store: Store) -> None:
    await store.put("object", b"first", if_absent=True)
    await store.delete("object")
    await store.put("object", b"second", if_absent=True)
    assert await store.get("object") == b"second"


async def test_if_match_writes_over_that_version_only(store: Store) -> None:
    first = await store.put("object", b"first")
    second = await store.put("object", b"second", if_match=first.etag)
    with pytest.raises(PreconditionFailed):
        await store.put("object", b"third", if_match=first.etag)
    assert await store.get("object") == b"second"
    await store.put("object", b"third", if_match=second.etag)
    assert await store.get("object") == b"third"


async def test_if_match_writes_over_an_object_that_was_completed(store: Store) -> None:
    upload = await store.create_multipart("object")
    part = await store.upload_part("object", upload, 1, b"first")
    first = await store.complete_multipart("object", upload, [part])
    await store.put("object", b"second", if_match=first.etag)
    assert await store.get("object") == b"second"


async def test_if_match_fails_where_no_object_is(store: Store) -> None:
    with pytest.raises(PreconditionFailed):
        await store.put("object", b"bytes", if_match="0123456789abcdef0123456789abcdef")
    assert await keys(store) == []


async def test_two_conditions_exclude_each_other(store: Store) -> None:
    with pytest.raises(InvalidRequest):
        await store.put("object", b"bytes", if_absent=True, if_match="etag")
    assert await keys(store) == []


async def test_of_writers_that_race_to_create_one_wins(store: Store) -> None:
    bodies = [f"writer {number}".encode() for number in range(8)]
    results = await asyncio.gather(
        *(store.put("object", body, if_absent=True) for body in bodies), return_exceptions=True
    )
    winners = [body for body, one in zip(bodies, results, strict=True) if _won(one)]
    assert len(winners) == 1
    assert await store.get("object") == winners[0]


async def test_of_writers_that_race_to_replace_a_version_one_wins(store: Store) -> None:
    version = await store.put("object", b"start")
    bodies = [f"writer {number}".encode() for number in range(8)]
    results = await asyncio.gather(
        *(store.put("object", body, if_match=version.etag) for body in bodies),
        return_exceptions=True,
    )
    winners = [body for body, one in zip(bodies, results, strict=True) if _won(one)]
    assert len(winners) == 1
    assert await store.get("object") == winners[0]


def _won(result: object) -> bool:
    if isinstance(result, ObjectInfo):
        return True
    assert isinstance(result, PreconditionFailed | Conflict), repr(result)
    return False


async def test_a_put_is_limited_in_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PUT_BYTES", 1000)
    await store.put("below", bytes(999))
    await store.put("at", bytes(1000))
    with pytest.raises(InvalidRequest):
        await store.put("above", bytes(1001))
    assert await keys(store) == ["at", "below"]


RANGES: list[tuple[int, int | None, bytes]] = [
    (0, None, b"0123456789"),
    (0, 10, b"0123456789"),
    (0, 11, b"0123456789"),
    (0, 1, b"0"),
    (3, 6, b"345"),
    (3, None, b"3456789"),
    (9, None, b"9"),
    (9, 10, b"9"),
    (9, 1000, b"9"),
    (4, 4, b""),
    (0, 0, b""),
]
NO_RANGES = [(-1, None), (-1, 5), (10, None), (10, 11), (10, 10), (11, None), (5, 4)]


async def test_get_a_range(store: Store) -> None:
    await store.put("object", b"0123456789")
    for start, end, expected in RANGES:
        assert await store.get("object", start=start, end=end) == expected, (start, end)


async def test_a_range_outside_the_object_is_refused(store: Store) -> None:
    await store.put("object", b"0123456789")
    for start, end in NO_RANGES:
        with pytest.raises(InvalidRequest):
            await store.get("object", start=start, end=end)


async def test_a_range_of_an_empty_object_is_empty(store: Store) -> None:
    await store.put("object", b"")
    for end in (None, 0, 1, 100):
        assert await store.get("object", end=end) == b""
        with pytest.raises(InvalidRequest):
            await store.get("object", start=1, end=end)


async def test_what_is_not_there_cannot_be_read(store: Store) -> None:
    await store.put("folder/object", b"")
    for key in ("object", "folder", "folder/object/more", "folder/objec"):
        with pytest.raises(NoSuchObject):
            await store.get(key)
        with pytest.raises(NoSuchObject):
            await store.get(key, start=5, end=9)
        with pytest.raises(NoSuchObject):
            await store.get(key, end=0)
        with pytest.raises(NoSuchObject):
            await store.read(key)
        with pytest.raises(NoSuchObject):
            await store.head(key)


async def test_a_deleted_object_is_gone(store: Store) -> None:
    await store.put("a/b/object", b"bytes")
    await store.delete("a/b/object")
    with pytest.raises(NoSuchObject):
        await store.get("a/b/object")
    assert await keys(store) == []


async def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    await store.delete("object")
    await store.put("folder/object", b"bytes")
    await store.delete("folder")
    await store.delete("folder/other")
    assert await keys(store) == ["folder/object"]


async def test_many_are_deleted_and_nothing_else(store: Store) -> None:
    some = [f"chunks/{number:06d}.wav" for number in range(12)]
    await asyncio.gather(*(store.put(key, b"bytes") for key in (*some, "chunks/kept", "kept")))
    assert await store.delete_many([*some, "chunks/never-there"]) == {}
    assert await store.delete_many(some[:1]) == {}
    assert await store.delete_many([]) == {}
    assert sorted(await keys(store)) == ["chunks/kept", "kept"]


async def test_more_are_deleted_than_a_request_of_s3_takes(store: Store) -> None:
    await store.put("chunks/000000.wav", b"bytes")
    await store.put("chunks/001001.wav", b"bytes")
    assert await store.delete_many([f"chunks/{number:06d}.wav" for number in range(1002)]) == {}
    assert await keys(store) == []


async def test_odd_keys_are_deleted_together(store: Store) -> None:
    await asyncio.gather(*(store.put(key, b"bytes") for key in ODD))
    assert await store.delete_many(ODD) == {}
    assert await keys(store) == []


async def test_of_many_each_key_is_checked(store: Store) -> None:
    await store.put("object", b"bytes")
    try:
        refused = await store.delete_many(["object", "../other"])
        assert list(refused) == ["../other"]
    except InvalidRequest:
        assert await keys(store) == ["object"]


ODD = [
    "a b.wav",
    "a'b(1)!*.wav",
    "a+b=c&d.wav",
    "a,b;c:d@e.wav",
    "caf\u00e9/\u65e5\u672c/\U0001f3a4.wav",
    "dt=2026-01-02/call.wav",
    "per%20cent%2Fencoded",
    'quote".wav',
    "tilde~/.hidden",
    "x?y#z.wav",
    "~",
]


async def test_odd_keys(store: Store) -> None:
    for key in ODD:
        await store.put(key, key.encode())
        assert await store.get(key) == key.encode()
        assert (await store.head(key)).key == key
        assert key in await keys(store)
        assert await keys(store, key[:3]) == [key]
        upload = await store.create_multipart(key)
        assert [one.key async for one in store.list_uploads()] == [key]
        part = await store.upload_part(key, upload, 1, b"part")
        assert [one.etag for one in await store.list_parts(key, upload)] == [part.etag]
        await store.complete_multipart(key, upload, [part])
        assert await store.get(key) == b"part"
    assert sorted(await keys(store)) == sorted(ODD)
    for key in ODD:
        await store.delete(key)
    assert await keys(store) == []


NO_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "../a",
    "a/./b",
    "a\nb",
    "a\x00b",
    "k" * 1025,
]


async def test_keys_that_are_none(store: Store) -> None:
    for key in NO_KEYS:
        with pytest.raises(InvalidRequest):
            await store.put(key, b"")
        with pytest.raises(InvalidRequest):
            await store.get(key)
        with pytest.raises(InvalidRequest):
            await store.read(key)
        with pytest.raises(InvalidRequest):
            await store.head(key)
        with pytest.raises(InvalidRequest):
            await store.delete(key)
        with pytest.raises(InvalidRequest):
            await store.create_multipart(key)


async def test_the_longest_key(backend: Backend) -> None:
    async with backend.make() as store:
        room = 1024 - len(f"{backend.prefix}/")
        longest = "/".join(["k" * 99] * 11)[:room]
        assert len(longest) == room
        await store.put(longest, b"bytes")
        assert await keys(store) == [longest]
        with pytest.raises(InvalidRequest):
            await store.put(longest + "k", b"bytes")


async def test_metadata_and_tags_are_limited(store: Store) -> None:
    def metadata(size: int) -> ObjectAttributes:
        return ObjectAttributes(metadata={"name": "v" * (size - 4)})

    await store.put("below", b"", metadata(2047))
    await store.put("at", b"", metadata(2048))
    for refused in (
        metadata(2049),
        ObjectAttributes(metadata={"Upper": "x"}),
        ObjectAttributes(metadata={"name": "caf\u00e9"}),
        ObjectAttributes(metadata={"name": "line\nbreak"}),
        ObjectAttributes(tags={str(number): "x" for number in range(11)}),
    ):
        with pytest.raises(InvalidRequest):
            await store.put("above", b"", refused)
        with pytest.raises(InvalidRequest):
            await store.create_multipart("above", refused)
    await store.put("tags", b"", ObjectAttributes(tags={str(n): "x" for n in range(10)}))
    assert await keys(store) == ["at", "below", "tags"]
