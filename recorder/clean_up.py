"""Deletes what a finished recording leaves behind: chunk objects and uploads nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recorder.chunks import CHUNKS, Chunk
from recorder.deliverable import Deliverable
from recorder.plan import Plan
from uploader.context import Context
from uploader.errors import AccessDenied, InvalidRequest, StoreError, Unsupported
from uploader.manifest import ManifestFile
from uploader.store import UploadInfo

MAX_PARALLEL_ABORTS = 8
REFUSALS = (AccessDenied, InvalidRequest, Unsupported)


def listed_leftovers(document: Mapping[str, Any]) -> set[str]:
    """Return what a manifest lists as left over."""
    listed = document.get("leftovers")
    return {one for one in listed if isinstance(one, str)} if isinstance(listed, list) else set()


def upload_name(key: str, upload_id: str) -> str:
    """Return what a multipart upload is listed as among the leftovers."""
    return f"{key}?uploadId={upload_id}"


class CleanUp:
    """Of one recording, whose outputs are verified in the store and whose manifest says so.

    Args:
        plan: Of the recording.
        context: Store, retries.

    Attributes:
        leftovers: Keys of objects that could not be deleted, and uploads that could not be
            aborted, because that is refused.
    """

    def __init__(self, plan: Plan, context: Context) -> None:
        self.leftovers: list[str] = []
        self._plan = plan
        self._context = context
        self._slots = asyncio.Semaphore(MAX_PARALLEL_ABORTS)

    async def run(
        self,
        chunks: Sequence[Chunk],
        outputs: Sequence[Deliverable],
        *,
        thorough: bool,
        also: Iterable[str] = (),
    ) -> bool:
        """Delete all there is to delete.

        Args:
            chunks: Of the recording.
            outputs: Whose superseded uploads are dropped.
            thorough: Whether there may be more than this process knows of: look for it.
            also: Keys of further objects that nobody needs.

        Returns:
            Whether nothing is left that another try could delete.
        """
        try:
            keys = {self._plan.chunk_key(chunk) for chunk in chunks if not chunk.lost}
            keys.update(also)
            there = await self._chunk_objects() if thorough else None
            keys |= there or set()
            if self._plan.keep_chunks:
                keys -= {self._plan.chunk_key(chunk) for chunk in chunks}
            if self._context.capabilities.deletes:
                await self._delete(sorted(keys))
            else:
                self._keep(*keys)
            if there is not None:  # to delete what is not there is refused, too
                self.leftovers = [key for key in self.leftovers if key in there]
            for output in outputs:
                try:
                    await output.drop_superseded()
                except REFUSALS:
                    self._keep(*(upload_name(output.key, one) for one in output.superseded))
            if thorough or any(output.doubtful for output in outputs):
                await self._abort_uploads()
        except StoreError as error:
            self._context.log.warning("not all that is superfluous could be deleted: {}", error)
            return not error.retryable
        if self.leftovers:
            self._context.log.warning(
                "{} chunk objects or uploads could not be deleted; they are listed in the manifest",
                len(self.leftovers),
            )
        return True

    async def list_leftovers(self, owner: str) -> None:
        """Note what could not be deleted in the manifest, unless it is there already.

        Args:
            owner: Token of who writes.

        Raises:
            LostOwnership: Somebody else has just written it.
            BotRecorderError: It cannot be read.
            StoreError: Refused, or not to be had before the deadline.
        """
        if not self.leftovers:
            return
        manifest = ManifestFile(self._context, self._plan.manifest_key, owner)
        stored = await manifest.read()
        if stored is None:
            return
        listed = listed_leftovers(stored.document)
        if not listed.issuperset(self.leftovers):
            await manifest.take_over(stored, {"leftovers": sorted(listed | {*self.leftovers})})

    def _keep(self, *names: str) -> None:
        self.leftovers = sorted({*self.leftovers, *names})

    async def _all(self, work: Iterable[object]) -> None:
        results = await asyncio.gather(*work, return_exceptions=True)  # type: ignore[call-overload]
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _delete(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        store = self._context.store
        refused = await self._context.call("delete", lambda: store.delete_many(keys))
        for error in refused.values():
            if not isinstance(error, REFUSALS):
                raise error
        self._keep(*refused)

    async def _chunk_objects(self) -> set[str] | None:
        """Return the keys of chunk objects; None if they may not be listed."""
        store, prefix = self._context.store, f"{self._plan.folder}{CHUNKS}"

        async def collect() -> set[str]:
            return {info.key async for info in store.list_objects(prefix)}

        try:
            return await self._context.call("list_objects", collect)
        except (AccessDenied, Unsupported) as error:  # those that are known go all the same
            self._context.log.info("chunk objects cannot be looked for: {}", error)
            return None

    async def _abort_uploads(self) -> None:
        """Abort the uploads that lie in the recording's own folder: none is needed any more."""
        store, folder = self._context.store, self._plan.folder

        async def collect() -> list[UploadInfo]:
            return [info async for info in store.list_uploads(folder)]

        try:
            found = await self._context.call("list_uploads", collect)
        except (AccessDenied, Unsupported) as error:  # a permission of its own
            self._context.log.info("superseded uploads cannot be looked for: {}", error)
            return
        await self._all(self._abort(one) for one in found if self._is_own(one.key))

    def _is_own(self, key: str) -> bool:
        return not key[len(self._plan.folder) :].startswith("continuation-")

    async def _abort(self, upload: UploadInfo) -> None:
        store = self._context.store
        async with self._slots:
            try:
                await self._context.call(
                    "abort_multipart", lambda: store.abort_multipart(upload.key, upload.upload_id)
                )
            except REFUSALS:
                self._keep(upload_name(upload.key, upload.upload_id))
