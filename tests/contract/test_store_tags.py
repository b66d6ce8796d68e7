"""Object tags: given with an object, read, and replaced without touching it."""

from __future__ import annotations

import pytest
from backends import Backend

from uploader.errors import InvalidRequest, NoSuchObject
from uploader.store import ObjectAttributes, Store

SPECIAL = {"retention": "90d", "a b": "x=y+z", "caf\u00e9": "t\u00f6st", "path": "a/b:c@d", "e": ""}


async def test_an_object_has_the_tags_it_was_written_with(store: Store) -> None:
    await store.put("plain", b"bytes")
    await store.put("object", b"bytes", ObjectAttributes(tags={"team": "a b", "cost": "1"}))
    assert await store.tags("plain") == {}
    assert await store.tags("object") == {"team": "a b", "cost": "1"}


async def test_an_object_has_the_tags_its_upload_was_created_with(
    store: Store,
) -> None:
    upload = await store.create_multipart("object", ObjectAttributes(tags={"team": "x"}))
    part = await store.upload_part("object", upload, 1, b"bytes")
    await store.complete_multipart("object", upload, [part])
    assert await store.tags("object") == {"team": "x"}


async def test_tags_are_replaced_and_the_object_stays_as_it_is(store: Store) -> None:
    attributes = ObjectAttributes(
        content_type="audio/wav", metadata={"recorder-x": "1"}, tags={"team": "x"}
    )
    before = await store.put("object", b"bytes", attributes)
    await store.tag("object", SPECIAL)
    assert await store.tags("object") == SPECIAL
    body, info = await store.read("object")
    assert body == b"bytes"
    assert (info.etag, info.content_type) == (before.etag, "audio/wav")
    assert info.metadata == {"recorder-x": "1"}
    await store.put("object", b"other", if_match=before.etag)
    assert await store.tags("object") == {}


async def test_all_tags_can_be_taken_away(store: Store) -> None:
    await store.put("object", b"bytes", ObjectAttributes(tags={"team": "x"}))
    await store.tag("object", {})
    assert await store.tags("object") == {}


async def test_what_is_not_there_has_no_tags(store: Store, backend: Backend) -> None:
    await store.put("folder/object", b"bytes")
    for key, quirk in (("object", ""), ("folder", "tags-of-folders")):
        with backend.refuses(NoSuchObject, unless=quirk):
            await store.tags(key)
        with backend.refuses(NoSuchObject, unless=quirk):
            await store.tag(key, {"a": "b"})


async def test_tags_and_keys_out_of_limits_are_refused(store: Store) -> None:
    await store.put("object", b"bytes")
    await store.tag("object", {str(number): "x" for number in range(10)})
    with pytest.raises(InvalidRequest):
        await store.tag("object", {str(number): "x" for number in range(11)})
    for key in ("../object", "a//b"):
        with pytest.raises(InvalidRequest):
            await store.tags(key)
        with pytest.raises(InvalidRequest):
            await store.tag(key, {})
    assert len(await store.tags("object")) == 10
