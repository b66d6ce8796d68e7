"""Takes back an import that did not get to its end: nobody has a use for a part of one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

from recorder.quota import SpoolQuota
from recorder.spool import Spool
from recorder.verification.objects import POLICY
from uploader.errors import AccessDenied, NoSuchUpload, Unsupported
from uploader.manifest import MANIFEST
from uploader.retry import Retrier
from uploader.store import Store, UploadInfo


async def discard(store: Store, folder: str, spool: Spool | None) -> None:
    """Remove all that there is of a recording: uploads, objects, the manifest last, then the spool.

    A death in between leaves a manifest or a spool, by which the next import finds the rest.

    Args:
        store: Open.
        folder: Key prefix of the recording.
        spool: Its local folder, locked, if there is one here.

    Raises:
        StoreError: Something cannot be deleted; the manifest and the spool are still there.
    """
    retrier = Retrier(POLICY)

    async def uploads() -> list[UploadInfo]:
        return [one async for one in store.list_uploads(folder)]

    async def objects() -> list[str]:
        return [one.key async for one in store.list_objects(folder)]

    try:
        found = await retrier.call("list_uploads", uploads)
    except (AccessDenied, Unsupported):  # a permission of its own; rules of the bucket abort them
        found = []
    for one in found:
        with contextlib.suppress(NoSuchUpload):
            await retrier.call("abort", functools.partial(_abort, store, one))
    keys = await retrier.call("list_objects", objects)
    manifest = folder + MANIFEST
    await _delete(retrier, store, [key for key in keys if key != manifest])
    if manifest in keys:
        await _delete(retrier, store, [manifest])
    if spool is not None:
        await asyncio.to_thread(spool.remove, SpoolQuota(0, 0))


async def _abort(store: Store, upload: UploadInfo) -> None:
    await store.abort_multipart(upload.key, upload.upload_id)


async def _delete(retrier: Retrier, store: Store, keys: Sequence[str]) -> None:
    if keys:
        failed = await retrier.call("delete", lambda: store.delete_many(keys))
        for error in failed.values():
            raise error


def left_spool(root: Path, recording_id: str) -> Spool | None:
    """Return the spool that a dead import has left, locked; None if there is none.

    Raises:
        SpoolBusy: The import is alive.
        OSError: It cannot be opened.
    """
    try:
        return Spool.open(root, recording_id)
    except FileNotFoundError:
        return None
