"""How an object is completed once, and verified: what the store holds decides, not a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from uploader.checksum import crc64nvme, encode
from uploader.context import Context
from uploader.errors import BotRecorderError, NoSuchObject, PreconditionFailed
from uploader.source import LOOK_BYTES, ManyFoldSource, Source
from uploader.store import Body, ObjectAttributes, ObjectInfo, Part

RECORDING_ID = "recorder-recording-id"
"""User metadata that says whose object it is; settles whether a lost Complete was ours."""

_IN_THE_WAY = "another object has this key, and is never replaced: move it away"
_PIECE_BYTES = 8 * 1024**2


class Verification(BotRecorderError):
    """The object in the store is not the one that was sent."""


class Completion:
    """Makes one object appear, and looks at it.

    Args:
        context: Store, retries, capabilities.
        key: The object's key.
        source: The object's bytes.
        sent: Returns the CRC-64/NVME of the whole as it is sent.
    """

    def __init__(self, context: Context, key: str, source: Source, sent: Callable[[], int]) -> None:
        self._context = context
        self._key = key
        self._source = source
        self._sent = sent
        self._taken: ObjectInfo | None = None

    def checksum(self) -> int:
        """Return the CRC-64/NVME of the object, which may be one that an owner before made."""
        if self._taken is not None and self._taken.checksum is not None:
            return self._taken.checksum
        return self._sent()

    async def complete(self, upload_id: str, parts: Sequence[Part], total: int) -> bool:
        """Make the object of its parts; return False if it was there already.

        Args:
            upload_id: Of the upload.
            parts: All of it, by number.
            total: The object's size.

        Raises:
            PreconditionFailed: The key is another object's.
            StoreError: Refused, or not acknowledged before the deadline.
        """
        context = self._context
        try:
            await context.call(
                "complete_multipart",
                lambda: context.store.complete_multipart(
                    self._key,
                    upload_id,
                    parts,
                    checksum=self.checksum(),
                    if_absent=context.capabilities.conditional_writes,
                ),
            )
        except PreconditionFailed as error:
            # Either an earlier Complete of ours succeeded and its answer was lost, or the key is
            # somebody else's: only the object itself can tell.
            if not await self.is_there(total):
                error.hint = error.hint or _IN_THE_WAY
                raise
            return False
        return True

    async def put(self, body: Body, attributes: ObjectAttributes, total: int) -> None:
        """Put the object whole, unless it is there already.

        Args:
            body: All of it.
            attributes: Set with it.
            total: The object's size.

        Raises:
            PreconditionFailed: The key is another object's.
            StoreError: Refused, or not acknowledged before the deadline.
        """
        context = self._context
        try:
            await context.call(
                "put",
                lambda: context.store.put(
                    self._key,
                    body,
                    attributes,
                    checksum=self._sent(),
                    if_absent=context.capabilities.conditional_writes,
                ),
            )
        except PreconditionFailed as error:
            if not await self.is_there(total):
                error.hint = error.hint or _IN_THE_WAY
                raise

    async def is_there(self, total: int) -> bool:
        """Return whether the finished object is in the store, by this recording.

        Args:
            total: The object's size.

        Raises:
            StoreError: Refused, or not to be had before the deadline.
        """
        if not self._context.capabilities.head:
            return False
        info = await self._head()
        if info is None or info.metadata.get(RECORDING_ID) != self._context.recording_id:
            return False
        if info.size == total and info.checksum in (None, self.checksum()):
            return True
        source = self._source
        return isinstance(source, ManyFoldSource) and await self._is_as_good(info, source)

    async def verify(self, total: int) -> ObjectInfo:
        """Return what the store says of the object.

        Args:
            total: Bytes that were sent.

        Raises:
            StoreError: Refused, or not to be had before the deadline.
            Verification: It is not what was sent.
        """
        if not self._context.capabilities.head:
            # Nobody may look at the object: what Complete was told and answered is all there is.
            return ObjectInfo(self._key, total, "", self.checksum())
        info = await self._head()
        if info is None:
            raise Verification(f"{self._key} was completed and is not there")
        found = info.metadata.get(RECORDING_ID)
        if found != self._context.recording_id:
            raise Verification(f"{self._key} belongs to recording {found!r}")
        if self._taken is not None and info.etag == self._taken.etag:
            return self._taken
        if info.size != total:
            raise Verification(f"{self._key} has {info.size} bytes, {total} were sent")
        expected = self.checksum()
        if info.checksum not in (None, expected):
            raise Verification(
                f"{self._key} has checksum {encode(info.checksum or 0)}, sent {encode(expected)}"
            )
        return info

    async def _head(self) -> ObjectInfo | None:
        context = self._context
        try:
            return await context.call("head", lambda: context.store.head(self._key))
        except NoSuchObject:
            return None

    async def _is_as_good(self, info: ObjectInfo, source: ManyFoldSource) -> bool:
        """Return whether an object holds the same in other bytes: then it is this upload's, too.

        It was made by an owner before, whose library encodes in another way.
        """
        context, checksum, head, tail = self._context, 0, b"", b""
        for start in range(0, info.size, _PIECE_BYTES):
            request = partial(context.store.get, self._key, start=start, end=start + _PIECE_BYTES)
            body = await context.call("get", request)
            if start == 0:
                head = body[:LOOK_BYTES]
            checksum = crc64nvme(body, checksum)
            tail = (tail + body)[-LOOK_BYTES:]
        if info.checksum not in (None, checksum) or not source.recognizes(head, tail):
            return False
        self._taken = replace(info, checksum=checksum)
        return True
