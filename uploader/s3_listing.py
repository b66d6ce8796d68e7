"""Objects of a bucket, page by page, and what a listing tells of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from uploader import limits
from uploader.s3_answers import unquoted
from uploader.s3_bucket import Bucket
from uploader.store import Listing, ObjectInfo


async def objects(bucket: Bucket, prefix: str) -> AsyncIterator[ObjectInfo]:
    """Yield all objects whose keys begin so; see `Store.list_objects`."""
    limits.check_prefix("list_objects", prefix)
    async for page in _pages(bucket, "list_objects", prefix):
        for one in page.get("Contents", ()):
            yield _listed(bucket, one)


async def level(bucket: Bucket, prefix: str) -> Listing:
    """Return what is directly below a prefix; see `Store.list_level`."""
    limits.check_prefix("list_level", prefix, level=True)
    found: list[ObjectInfo] = []
    folders: list[str] = []
    cut = len(bucket.prefix)
    async for page in _pages(bucket, "list_level", prefix, Delimiter="/"):
        # A key that is the prefix itself is a folder marker, made by a console.
        files = (one for one in page.get("Contents", ()) if not one["Key"].endswith("/"))
        found.extend(_listed(bucket, one) for one in files)
        folders.extend(one["Prefix"][cut:] for one in page.get("CommonPrefixes", ()))
    return Listing(objects=found, folders=folders)


async def _pages(
    bucket: Bucket, op: str, prefix: str, **options: str
) -> AsyncIterator[Mapping[str, Any]]:
    pages = aiter(
        bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket.name, Prefix=bucket.whole(prefix), **cast("Any", options)
        )
    )
    while True:
        async with bucket.request(op, prefix):
            page = await anext(pages, None)
        if page is None:
            return
        yield cast("Mapping[str, Any]", page)


def _listed(bucket: Bucket, one: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        key=one["Key"][len(bucket.prefix) :],
        size=one["Size"],
        etag=unquoted(one["ETag"]),
        modified=one["LastModified"],
    )
