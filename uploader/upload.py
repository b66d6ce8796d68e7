"""Drives one multipart upload: bytes in, numbered parts out, each acknowledged, completed once.

The upload pulls: it asks its source for the bytes of a part when there is room in the budget to
hold them, and asks again if they must be sent again. Parts are pure functions of what was recorded,
so sending one twice is harmless. Nothing here aborts an upload: what was sent stays usable for
whoever goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from uploader.adoption import FoundParts
from uploader.checksum import combine, crc64nvme
from uploader.completion import Completion
from uploader.context import Context
from uploader.errors import (
    AccessDenied,
    BotRecorderError,
    Conflict,
    InvalidPart,
    NoSuchUpload,
    Unsupported,
)
from uploader.parts import PartDiffers, PartRange, tail_parts, whole_parts
from uploader.source import Source
from uploader.store import ObjectAttributes, ObjectInfo, Part, Store

T = TypeVar("T")

ATTEMPTS_TO_REBUILD = 2
MAX_PARALLEL_PARTS = 4


class Upload:
    """One object on its way.

    Args:
        context: Store, retries, budget.
        key: The object's key.
        attributes: Set when the upload is created; must carry `RECORDING_ID` in its
            metadata, see `Completion`.
        part_bytes: Size of every part but the last.
        source: The object's bytes.
        on_part: Told of each acknowledged part.

    Attributes:
        upload_id: Of the upload in progress, or the last one.
        parts: Acknowledged parts by number.
        superseded: Ids of uploads that others replaced: to be dropped when the object is there.
        doubtful: Whether the store may have an upload of this object that nobody knows.
    """

    def __init__(
        self,
        context: Context,
        key: str,
        attributes: ObjectAttributes,
        part_bytes: int,
        source: Source,
        on_part: Callable[[Part], None] = lambda part: None,
    ) -> None:
        self.key = key
        self.upload_id: str | None = None
        self.parts: dict[int, Part] = {}
        self.superseded: list[str] = []
        self.doubtful = False
        self._context = context
        self._attributes = attributes
        self._part_bytes = part_bytes
        self._source = source
        self._on_part = on_part
        self._whole: int | None = None
        self._found = FoundParts(key, part_bytes, source)
        self._completion = Completion(context, key, source, self._sent_checksum)
        self._slots = asyncio.Semaphore(MAX_PARALLEL_PARTS)

    async def create(self) -> str:
        """Begin the upload in the store; return its id. Does nothing if it has begun.

        A lost answer leaves an upload behind that nobody knows, see `doubtful`: it has no parts.

        Raises:
            StoreError: Refused, or not to be had before the deadline.
        """
        if self.upload_id is None:
            store, attempts = self._context.store, 0

            async def request() -> str:
                nonlocal attempts
                attempts += 1
                self.doubtful = self.doubtful or attempts > 1
                return await store.create_multipart(self.key, self._attributes)

            try:
                self.upload_id = await self._call("create_multipart", request)
            except BaseException:
                self.doubtful = self.doubtful or attempts > 0
                raise
        return self.upload_id

    async def adopt(self, upload_id: str, known: Mapping[int, Part]) -> None:
        """Go on with an upload that another owner, or an earlier process, began.

        The whole parts that are known and still there count as sent. What else the store holds is
        compared with what belongs there before anything is sent under its number.

        Args:
            upload_id: Of the upload.
            known: Parts that were acknowledged, with ETags and checksums.

        Raises:
            StoreError: Refused, or not to be had before the deadline.
        """
        self.upload_id = upload_id
        self.parts = dict(known)
        store = self._context.store
        try:
            listed = await self._call("list_parts", lambda: store.list_parts(self.key, upload_id))
        except NoSuchUpload:
            return  # completed, or gone: `finish` finds out which
        except (AccessDenied, Unsupported):
            # What is there cannot be seen, so nothing may be sent under its numbers.
            self._supersede()
            self.upload_id = None
            self.parts = {}
            return
        self.parts = self._found.sort(listed, known)

    def sent_bytes(self) -> int:
        """Return up to which byte every part behind part 1 is acknowledged: not needed again."""
        number = 1
        while number + 1 in self.parts:
            number += 1
        return number * self._part_bytes if number > 1 else 0

    async def advance(self, available: int) -> None:
        """Send every part that is whole, given the object's first `available` bytes are final.

        Raises:
            NoSuchUpload: It was aborted by somebody else, or by a lifecycle rule; the next call
                makes it anew.
            StoreError: A part was refused, or not acknowledged before the deadline.
        """
        after = self.sent_bytes() // self._part_bytes
        missing = [
            part
            for part in whole_parts(available, self._part_bytes, after)
            if part.number not in self.parts
        ]
        try:
            await self._send(missing, None)
        except NoSuchUpload:
            self._start_anew()
            raise

    async def prepare(self, total: int) -> None:
        """Send what is left, part 1 with the true header too: nothing but to complete remains.

        Raises:
            StoreError: Refused, or not acknowledged before the deadline; call again to go on.
        """
        if self._is_put_whole(total):
            return
        for attempt in range(1, ATTEMPTS_TO_REBUILD + 1):
            try:
                await self._send(self._missing(total), total)
                return
            except _MAKE_ANEW as error:
                if attempt == ATTEMPTS_TO_REBUILD:
                    raise
                await self._forget_lost_parts(error)

    async def finish(self, total: int) -> ObjectInfo:
        """Send what is left, complete, and verify.

        An object of one part whose upload was never begun is put whole: one request, not three.

        Raises:
            StoreError: Refused, or not acknowledged before the deadline; call again to go on.
            Verification: What the store holds is not what was sent.
        """
        if self._is_put_whole(total):
            return await self._put_whole(total)
        for attempt in range(1, ATTEMPTS_TO_REBUILD + 1):
            try:
                await self._send(self._missing(total), total)
                await self._complete(total)
                break
            except _MAKE_ANEW as error:
                if await self._completion.is_there(total):
                    self._supersede()
                    break
                if attempt == ATTEMPTS_TO_REBUILD:
                    raise
                await self._forget_lost_parts(error)
        return await self._completion.verify(total)

    def restart(self) -> None:
        """Make the upload anew: what there is of it holds other bytes, or is gone."""
        self._start_anew()

    async def drop_superseded(self) -> None:
        """Abort the uploads that are superseded: only when the object is there and verified.

        Raises:
            StoreError: Refused, or not to be had before the deadline.
        """
        store = self._context.store
        while self.superseded:
            await self._drop(store, self.superseded[-1])
            self.superseded.pop()

    async def abandon(self) -> None:
        """Abort the upload in progress, too: only where its object can be made anew at any time.

        Raises:
            StoreError: Refused, or not to be had before the deadline.
        """
        self._start_anew()
        await self.drop_superseded()

    async def _drop(self, store: Store, upload_id: str) -> None:
        await self._call("abort_multipart", lambda: store.abort_multipart(self.key, upload_id))

    # ------------------------------------------------------------------------------------------

    def _is_put_whole(self, total: int) -> bool:
        return self.upload_id is None and not self.superseded and total <= self._part_bytes

    def _supersede(self) -> None:
        """Take note that the upload at hand is not, or no longer, what makes the object."""
        if self.upload_id is not None:
            self.superseded.append(self.upload_id)

    def _missing(self, total: int) -> list[PartRange]:
        return [
            part for part in tail_parts(total, self._part_bytes, 1) if part.number not in self.parts
        ]

    async def _send(self, ranges: list[PartRange], total: int | None) -> None:
        if not ranges:
            return
        await self.create()
        # A failed part does not cancel its neighbours: what they send is work done.
        results = await asyncio.gather(
            *(self._send_part(part, total) for part in ranges), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_part(self, part: PartRange, total: int | None) -> None:
        store, upload_id = self._context.store, self.upload_id
        if upload_id is None:
            raise RuntimeError("parts are sent after create()")
        async with self._slots, self._context.budget.reserve(part.size):
            body = await self._source.read(part.start, part.end, total)
            checksum = crc64nvme(body)
            sent = await self._found.compare(part, body, checksum)
            if sent is None:
                sent = await self._call(
                    "upload_part",
                    lambda: store.upload_part(
                        self.key, upload_id, part.number, body, checksum=checksum
                    ),
                )
        acknowledged = Part(part.number, len(body), sent.etag, checksum)
        self._found.settle(part.number)
        self.parts[part.number] = acknowledged
        self._on_part(acknowledged)

    async def _complete(self, total: int) -> None:
        upload_id = self.upload_id
        if upload_id is None:
            raise RuntimeError("complete comes after create()")
        parts = [self.parts[number] for number in sorted(self.parts)]
        if sum(part.size for part in parts) != total:
            raise PartDiffers(f"parts of {self.key} do not add up to {total} bytes")
        if not await self._completion.complete(upload_id, parts, total):
            self._supersede()

    async def _put_whole(self, total: int) -> ObjectInfo:
        async with self._context.budget.reserve(total):
            body = await self._source.read(0, total, total)
            self._whole = crc64nvme(body)
            await self._completion.put(body, self._attributes, total)
        return await self._completion.verify(total)

    def checksum(self) -> int:
        """Return the CRC-64/NVME of the whole, combined from the acknowledged parts' own."""
        return self._completion.checksum()

    def _sent_checksum(self) -> int:
        if self._whole is not None:
            return self._whole
        parts = (self.parts[number] for number in sorted(self.parts))
        return combine((part.checksum or 0, part.size) for part in parts)

    async def _forget_lost_parts(self, error: BotRecorderError) -> None:
        """Keep the parts the store still has; the others are sent again.

        Where it does not say which these are, the upload is made anew.
        """
        kept: dict[int, Part] = {}
        if isinstance(error, InvalidPart):
            held = await self._held()
            kept = {no: part for no, part in self.parts.items() if held.get(no) == part.etag}
        if not kept or len(kept) == len(self.parts):
            self._start_anew()
        else:
            self.parts = kept

    def _start_anew(self) -> None:
        self._supersede()
        self.upload_id = None
        self.parts = {}
        self._found.clear()

    async def _held(self) -> dict[int, str]:
        """Return the ETags of the parts the store has, by number; none where it does not tell."""
        store, upload_id = self._context.store, self.upload_id
        if upload_id is None:
            return {}
        try:
            listed = await self._call("list_parts", lambda: store.list_parts(self.key, upload_id))
        except (AccessDenied, NoSuchUpload, Unsupported):
            return {}
        return {part.number: part.etag for part in listed}

    async def _call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        return await self._context.call(op, request)


_MAKE_ANEW = (NoSuchUpload, InvalidPart, Conflict, PartDiffers)
