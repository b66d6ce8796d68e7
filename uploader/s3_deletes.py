"""Deleting many objects by one request, and what an S3 server answers to that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from uploader.errors import NoSuchObject, StoreError
from uploader.s3_bucket import Bucket
from uploader.s3_errors import Answer, to_error

MAX_KEYS = 1000
"""Of one request (Amazon S3 API Reference, "DeleteObjects")."""


async def delete_batches(bucket: Bucket, keys: Sequence[str]) -> dict[str, StoreError]:
    """Delete objects; return what was refused, by key, each as a single delete's error."""
    failed: dict[str, StoreError] = {}
    for batch in _batches(keys, bucket.prefix):
        async with bucket.request("delete", keys[0]):
            answer = await bucket.client.delete_objects(
                Bucket=bucket.name, Delete=cast("Any", batch)
            )
        failed |= _failures(answer, bucket)
    return failed


def _batches(keys: Sequence[str], prefix: str) -> Iterator[dict[str, Any]]:
    """Yield what each request names: keys below `prefix`, of which only failures are told."""
    for start in range(0, len(keys), MAX_KEYS):
        named = [{"Key": prefix + key} for key in keys[start : start + MAX_KEYS]]
        yield {"Objects": named, "Quiet": True}


def _failures(answer: Mapping[str, Any], bucket: Bucket) -> dict[str, StoreError]:
    """Return what an answer says was not deleted, by key, each as a single delete's error."""
    found: dict[str, StoreError] = {}
    for told in answer.get("Errors", ()):
        key = told.get("Key", "")[len(bucket.prefix) :]
        code, message = told.get("Code", ""), told.get("Message", "")
        error = to_error(Answer("delete", key, bucket.name, bucket.region, code, message, 200, {}))
        if not isinstance(error, NoSuchObject):
            found[key] = error
    return found
