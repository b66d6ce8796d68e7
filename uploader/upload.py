"""Drives one multipart upload: bytes in, numbered parts out, each acknowledged, completed once.

The upload pulls: it asks its source for the bytes of a part when there is room in the budget to
hold them, and asks again if they must be sent again. Parts are pure functions of what was recorded,
so sending one twice is harmless. Nothing here aborts an upload: what was sent stays usable for
whoever goes on with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from uploader.budget import ByteBudget
from uploader.checksum import combine, crc64nvme, encode
from uploader.errors import (
    AccessDenied,
    BotRecorderError,
    Conflict,
    InvalidPart,
    NoSuchObject,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    Unsupported,
)
from uploader.parts import PartRange, tail_parts, whole_parts
from uploader.probe import Capabilities
from uploader.retry import AttemptFailed, Deadline, OutOfTime, Retrier
from uploader.store import Body, ObjectAttributes, ObjectInfo, Part, Store

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")

RECORDING_ID = "recorder-recording-id"
"""User metadata that says whose object it is; settles whether a lost Complete was ours."""

ATTEMPTS_TO_REBUILD = 2
_IN_THE_WAY = "another object has this key, and is never replaced: move it away"
MAX_PARALLEL_PARTS = 4
LOOK_BYTES = 65_536
"""Of an object's beginning and end: what tells whether it holds the same as another."""
_PIECE_BYTES = 8 * 1024**2


_MD5 = re.compile(r"[0-9a-f]{32}")


class Verification(BotRecorderError):
    """The object in the store is not the one that was sent."""


class PartDiffers(BotRecorderError):
    """Under a part's number the store holds other bytes: the upload must be made anew.

    Some servers join the older of two bodies that were sent under one number.
    """


class Source(Protocol):
    """Where an object's bytes come from."""

    async def read(self, start: int, end: int, total: int | None) -> Body:
        """Return the object's bytes [start, end); `total` is its size once that is known."""
        ...


@runtime_checkable
class ManyFoldSource(Source, Protocol):
    """The same content may be other bytes, where another library made them."""

    def recognizes(self, head: bytes, tail: bytes) -> bool:
        """Return whether an object of other bytes holds the same: by its first and last ones.

        Asked only of what this recording's owners made; `LOOK_BYTES` of each, or all there are.
        """
        ...


@dataclass(slots=True)
class Context:
    """What all requests of a recording share.

    `capabilities` may be replaced when more is known of the store; `counts` has the recording's
    requests by operation, and `last_failure` the latest attempt's that failed, and not for want
    of time.
    """

    store: Store
    retrier: Retrier
    budget: ByteBudget
    capabilities: Capabilities
    deadline: Deadline
    recording_id: str
    log: Logger
    on_failure: Callable[[AttemptFailed], None]
    counts: Counter[str] = field(default_factory=Counter)
    last_failure: StoreError | None = None

    async def call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        """Make one request through the retry layer, and count it; see `Retrier.call`."""
        self.counts[op] += 1
        try:
            return await self.retrier.call(
                op,
                request,
                deadline=self.deadline,
                log=self.log,
                on_attempt_failed=self._failed,
            )
        except OutOfTime as error:
            took = self.last_failure
            if took is None:
                raise
            said = f"{Exception.__str__(error)}; what failed last is {Exception.__str__(took)}"
            raise OutOfTime(said, op=op, code=error.code, hint=took.hint) from took

    def _failed(self, failed: AttemptFailed) -> None:
        self.counts["failed_attempts"] += 1
        if not isinstance(failed.error, OutOfTime):
            self.last_failure = failed.error
        self.on_failure(failed)


class Upload:
    """One object on its way.

    Args:
        context: Store, retries, budget.
        key: The object's key.
        attributes: Set when the upload is created; must carry `RECORDING_ID` in its metadata.
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
        self._taken: ObjectInfo | None = None
        self._found: dict[int, Part] = {}
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

        The known parts that the store still holds count as sent, but for part 1 and what is not a
        whole part: those depend on a length that may not have been the last word. They, and what
        else it holds, are compared with what belongs there before anything is sent under a number.

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
        held = {part.number: part for part in listed}
        for number, part in known.items():
            if number in held and held[number].etag == part.etag:
                held[number] = part
        self.parts = {
            number: part
            for number, part in held.items()
            if part is known.get(number) and number > 1 and part.size == self._part_bytes
        }
        self._found = {number: part for number, part in held.items() if number not in self.parts}

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
                if await self._is_there(total):
                    self._supersede()
                    break
                if attempt == ATTEMPTS_TO_REBUILD:
                    raise
                await self._forget_lost_parts(error)
        return await self._verify(total)

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
            sent = await self._found_part(part, body, checksum)
            if sent is None:
                sent = await self._call(
                    "upload_part",
                    lambda: store.upload_part(
                        self.key, upload_id, part.number, body, checksum=checksum
                    ),
                )
        acknowledged = Part(part.number, len(body), sent.etag, checksum)
        self._found.pop(part.number, None)
        self.parts[part.number] = acknowledged
        self._on_part(acknowledged)

    async def _found_part(self, part: PartRange, body: Body, checksum: int) -> Part | None:
        """Return what the store holds of an adopted upload under a part's number, if it is this.

        Raises:
            PartDiffers: It is something else, or might be.
        """
        found = self._found.get(part.number)
        if found is None:
            return None
        same = await asyncio.to_thread(_is_same, found, body, checksum)
        whole = part.number > 1 and part.size == self._part_bytes
        if same is None and whole and not isinstance(self._source, ManyFoldSource):
            return None  # a whole part is the same bytes whoever sent it: sent again, no harm
        if not same:
            raise PartDiffers(f"part {part.number} of {self.key} in the store has other bytes")
        return found

    async def _complete(self, total: int) -> None:
        context, upload_id = self._context, self.upload_id
        if upload_id is None:
            raise RuntimeError("complete comes after create()")
        parts = [self.parts[number] for number in sorted(self.parts)]
        if sum(part.size for part in parts) != total:
            raise PartDiffers(f"parts of {self.key} do not add up to {total} bytes")
        try:
            await self._call(
                "complete_multipart",
                lambda: context.store.complete_multipart(
                    self.key,
                    upload_id,
                    parts,
                    checksum=self.checksum(),
                    if_absent=context.capabilities.conditional_writes,
                ),
            )
        except PreconditionFailed as error:
            # Either an earlier Complete of ours succeeded and its answer was lost, or the key is
            # somebody else's: only the object itself can tell.
            if not await self._is_there(total):
                error.hint = error.hint or _IN_THE_WAY
                raise
            self._supersede()

    async def _put_whole(self, total: int) -> ObjectInfo:
        context = self._context
        async with context.budget.reserve(total):
            body = await self._source.read(0, total, total)
            self._whole = crc64nvme(body)
            try:
                await context.call(
                    "put",
                    lambda: context.store.put(
                        self.key,
                        body,
                        self._attributes,
                        checksum=self._whole,
                        if_absent=context.capabilities.conditional_writes,
                    ),
                )
            except PreconditionFailed as error:
                if not await self._is_there(total):
                    error.hint = error.hint or _IN_THE_WAY
                    raise
        return await self._verify(total)

    def checksum(self) -> int:
        """Return the CRC-64/NVME of the whole, combined from the acknowledged parts' own."""
        if self._taken is not None and self._taken.checksum is not None:
            return self._taken.checksum
        if self._whole is not None:
            return self._whole
        parts = (self.parts[number] for number in sorted(self.parts))
        return combine((part.checksum or 0, part.size) for part in parts)

    async def _head(self) -> ObjectInfo | None:
        try:
            return await self._call("head", lambda: self._context.store.head(self.key))
        except NoSuchObject:
            return None

    async def _is_there(self, total: int) -> bool:
        """Return whether the finished object is in the store, by this recording."""
        if not self._context.capabilities.head:
            return False
        info = await self._head()
        if info is None or info.metadata.get(RECORDING_ID) != self._context.recording_id:
            return False
        if info.size == total and info.checksum in (None, self.checksum()):
            return True
        source = self._source
        return isinstance(source, ManyFoldSource) and await self._is_as_good(info, source)

    async def _is_as_good(self, info: ObjectInfo, source: ManyFoldSource) -> bool:
        """Return whether an object holds the same in other bytes: then it is this upload's, too.

        It was made by an owner before, whose library encodes in another way.
        """
        store, checksum, head, tail = self._context.store, 0, b"", b""
        for start in range(0, info.size, _PIECE_BYTES):
            request = partial(store.get, self.key, start=start, end=start + _PIECE_BYTES)
            body = await self._call("get", request)
            if start == 0:
                head = body[:LOOK_BYTES]
            checksum = crc64nvme(body, checksum)
            tail = (tail + body)[-LOOK_BYTES:]
        if info.checksum not in (None, checksum) or not source.recognizes(head, tail):
            return False
        self._taken = replace(info, checksum=checksum)
        return True

    async def _verify(self, total: int) -> ObjectInfo:
        if not self._context.capabilities.head:
            # Nobody may look at the object: what Complete was told and answered is all there is.
            return ObjectInfo(self.key, total, "", self.checksum())
        info = await self._head()
        if info is None:
            raise Verification(f"{self.key} was completed and is not there")
        found = info.metadata.get(RECORDING_ID)
        if found != self._context.recording_id:
            raise Verification(f"{self.key} belongs to recording {found!r}")
        if self._taken is not None and info.etag == self._taken.etag:
            return self._taken
        if info.size != total:
            raise Verification(f"{self.key} has {info.size} bytes, {total} were sent")
        expected = self.checksum()
        if info.checksum not in (None, expected):
            raise Verification(
                f"{self.key} has checksum {encode(info.checksum or 0)}, sent {encode(expected)}"
            )
        return info

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
        self.parts, self._found = {}, {}

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


def _is_same(found: Part, body: Body, checksum: int) -> bool | None:
    """Return whether a part in the store is these bytes; None where it does not tell."""
    if found.size != len(body):
        return False
    if found.checksum is not None:
        return found.checksum == checksum
    if _MD5.fullmatch(found.etag):
        # Not for a part that is encrypted with a key of KMS: its ETag is no digest, and differs.
        return found.etag == hashlib.md5(body, usedforsecurity=False).hexdigest() or None
    return None
