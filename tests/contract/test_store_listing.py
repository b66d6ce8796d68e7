"""The contract of `uploader.store`: listings, prefixes, and what a store is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from backends import Backend

from uploader.errors import (
    AccessDenied,
    InvalidRequest,
    NoSuchBucket,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from uploader.store import Part, Store


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list_objects(prefix)]


async def test_listing_tells_size_and_etag(store: Store) -> None:
    written = await store.put("object", b"bytes")
    [listed] = [info async for info in store.list_objects()]
    assert (listed.key, listed.size, listed.etag) == ("object", 5, written.etag)
    assert listed.modified is not None


async def test_listing_is_in_key_order(store: Store, backend: Backend) -> None:
    names = ["b", "a/c", "a/b/c", "a-b", "a.b", "a0", "A", "_", "a/b-c", "\u00e9", "~", "a/B"]
    for name in names:
        await store.put(name, b"")
    found = await keys(store)
    if "order-by-folder" in backend.quirks:
        assert found != sorted(names)
        assert sorted(found) == sorted(names)
    else:
        assert found == sorted(names)


async def test_listing_numbered_objects_is_in_order(store: Store) -> None:
    names = [f"chunks/{number:06d}.wav" for number in range(1, 30)]
    await asyncio.gather(*(store.put(name, b"") for name in reversed(names)))
    assert await keys(store, "chunks/") == names


async def test_a_prefix_is_any_beginning_of_a_key(store: Store) -> None:
    for name in ("call-1/a", "call-1/b/c", "call-10/a", "other"):
        await store.put(name, b"")
    assert await keys(store, "call-1") == ["call-1/a", "call-1/b/c", "call-10/a"]
    assert await keys(store, "call-1/") == ["call-1/a", "call-1/b/c"]
    assert await keys(store, "call-1/b/c") == ["call-1/b/c"]
    assert await keys(store, "call-2") == []
    assert await keys(store, "call-1/a/b") == []


@pytest.mark.parametrize("backend", ["local", "seaweed"], indirect=True)  # moto takes long
async def test_a_listing_of_more_than_a_page(store: Store, backend: Backend) -> None:
    count = 205 if backend.name == "local" else 1005
    names = [f"folder-{number % 2}/{number:05d}" for number in range(count)]
    gate = asyncio.Semaphore(32)

    async def put(name: str) -> None:
        async with gate:
            await store.put(name, b"")

    await asyncio.gather(*(put(name) for name in names))
    assert await keys(store) == sorted(names)
    level = await store.list_level("folder-1/")
    assert [info.key for info in level.objects] == sorted(n for n in names if "-1/" in n)


async def test_a_level_has_objects_and_folders(store: Store) -> None:
    for name in ("a", "b/c", "b/d/e", "b/d/f", "g/h/i", "z"):
        await store.put(name, b"bytes")
    top = await store.list_level()
    assert [info.key for info in top.objects] == ["a", "z"]
    assert [info.size for info in top.objects] == [5, 5]
    assert list(top.folders) == ["b/", "g/"]
    below = await store.list_level("b/")
    assert [info.key for info in below.objects] == ["b/c"]
    assert list(below.folders) == ["b/d/"]
    nothing = await store.list_level("nothing/")
    assert (list(nothing.objects), list(nothing.folders)) == ([], [])


async def test_folders_and_uploads_in_progress_are_no_objects(
    store: Store, backend: Backend
) -> None:
    await store.put("folder/object", b"")
    await store.delete("folder/object")
    await store.create_multipart("other/object")
    assert await keys(store) == []
    level = await store.list_level()
    assert list(level.objects) == []
    assert list(level.folders) == (["folder/"] if "empty-folders" in backend.quirks else [])


async def test_prefixes_that_are_none(store: Store) -> None:
    for prefix in ("/", "/a", "a//", "../", "a/../b", "a\n"):
        with pytest.raises(InvalidRequest):
            await keys(store, prefix)
        with pytest.raises(InvalidRequest):
            await store.list_level(prefix)
        with pytest.raises(InvalidRequest):
            [one async for one in store.list_uploads(prefix)]


async def test_the_prefix_of_a_level_ends_in_a_slash(store: Store) -> None:
    with pytest.raises(InvalidRequest):
        await store.list_level("folder")


async def test_stores_with_other_prefixes_do_not_see_each_other(backend: Backend) -> None:
    async with backend.make("a") as one, backend.make("ab/") as other, backend.make() as outer:
        await one.put("object", b"one")
        await other.put("object", b"other")
        upload = await one.create_multipart("upload")
        assert await one.get("object") == b"one"
        assert await keys(one) == ["object"]
        assert await keys(other) == ["object"]
        assert [one.key async for one in one.list_uploads()] == ["upload"]
        assert [one.key async for one in other.list_uploads()] == []
        assert await keys(outer) == ["a/object", "ab/object"]
        assert [one.upload_id async for one in outer.list_uploads("a/")] == [upload]
        assert one.url("object") != other.url("object")
        assert one.url("object").endswith("/a/object")


async def test_opening_does_not_contact_the_store(backend: Backend) -> None:
    async with backend.make(bucket="no/such" if backend.name == "local" else "no-such"):
        pass


async def test_closing_twice_is_no_error(backend: Backend) -> None:
    store = backend.make()
    async with store:
        await store.put("object", b"")
    await store.__aexit__(None, None, None)


IF_MATCH = 2  # of the operations below


async def every_operation(store: Store) -> list[StoreError]:
    """Return the error of each of the store's operations."""
    part = Part(1, 5, "0123456789abcdef0123456789abcdef")

    async def drain(found: AsyncIterator[object]) -> None:
        async for _ in found:
            pass

    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: store.put("object", b"bytes"),
        lambda: store.put("object", b"bytes", if_absent=True),
        lambda: store.put("object", b"bytes", if_match=part.etag),
        lambda: store.get("object"),
        lambda: store.get("object", start=1, end=2),
        lambda: store.read("object"),
        lambda: store.head("object"),
        lambda: drain(store.list_objects()),
        lambda: store.list_level(),
        lambda: store.delete("object"),
        lambda: store.create_multipart("object"),
        lambda: store.upload_part("object", "upload", 1, b"bytes"),
        lambda: store.list_parts("object", "upload"),
        lambda: drain(store.list_uploads()),
        lambda: store.complete_multipart("object", "upload", [part]),
        lambda: store.abort_multipart("object", "upload"),
    ]
    errors = []
    for operation in operations:
        with pytest.raises(StoreError) as raised:
            await operation()
        errors.append(raised.value)
    return errors


async def test_a_bucket_that_is_not_there(backend: Backend) -> None:
    bucket = "no/such" if backend.name == "local" else "no-such-bucket"
    async with backend.make(bucket=bucket) as store:
        errors = await every_operation(store)
        if "precondition-first" in backend.quirks:
            assert type(errors.pop(IF_MATCH)) is PreconditionFailed
        for error in errors:
            assert type(error) is NoSuchBucket, repr(error)
            assert not error.retryable
            assert error.hint


async def test_an_endpoint_that_is_not_there(s3_backend: Backend) -> None:
    async with s3_backend.make(endpoint_url="http://127.0.0.1:1") as store:
        for error in await every_operation(store):
            assert type(error) is TransientError, repr(error)
            assert error.retryable
            assert "127.0.0.1:1" in str(error)


async def test_credentials_that_are_wrong(s3_backend: Backend) -> None:
    if "no-signatures" in s3_backend.quirks:
        async with s3_backend.make(access_key="unknown", secret_key="wrong") as store:  # noqa: S106 - it is wrong
            await store.put("object", b"bytes")
        return
    for changes in ({"secret_key": "wrong-secret"}, {"access_key": "unknown"}):
        async with s3_backend.make(**changes) as store:
            for error in await every_operation(store):
                assert type(error) is AccessDenied, repr(error)
                assert not error.retryable
                assert error.hint
                assert "wrong-secret" not in str(error)


async def test_a_cancelled_put_leaves_nothing_behind(store: Store) -> None:
    before = asyncio.all_tasks()
    for delay in range(6):
        task = asyncio.create_task(store.put("cancelled", bytes(2_000_000)))
        for _ in range(delay * 5):
            await asyncio.sleep(0)
        if task.cancel():  # on a slow machine it may be done already
            with pytest.raises(asyncio.CancelledError):
                await task
    assert asyncio.all_tasks() == before
    await store.put("object", b"bytes")
    assert await store.get("object") == b"bytes"
    # It may have had its effect, but then the whole of it.
    assert [info.size async for info in store.list_objects("cancelled")] in ([], [2_000_000])
