"""The one interface to object storage. Its docstrings are the contract every store is tested on.

The shape is S3's own: whole-object puts with conditions, and multipart uploads whose parts are
numbered, may arrive in any order, and become an object only by `complete_multipart`.

Common to all methods:
    * Every method may raise `TransientError` (retryable), `AccessDenied`, `NoSuchBucket` or
      `WrongRegion`. No store retries by itself: that is `uploader.retry`'s work alone.
    * A method that returns has made its effect durable.
    * A cancelled call may or may not have had its effect; it leaves no lock and no task behind.
    * Keys are relative to the store's bucket and prefix: segments separated by `/`, none of them
      empty, `.` or `..`, and no control characters. Anything else, and metadata or tags out of
      limits, is an `InvalidRequest` before anything is sent (`uploader.limits`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from uploader.errors import NoSuchBucket, StoreError, Unsupported, WrongRegion

Body = bytes | bytearray | memoryview
"""What is sent: one contiguous buffer, not changed by anyone until the call has ended."""

#: Limits of Amazon S3 multipart uploads (S3 User Guide, "Amazon S3 multipart upload limits").
MIN_PART_BYTES = 5 * 1024**2  # every part but the last
MAX_PART_BYTES = 5 * 1024**3
MAX_PARTS = 10_000
MAX_PUT_BYTES = 5 * 1024**3

MAX_PRESIGN_SECONDS = 7 * 24 * 3600
"""Longest life of a presigned URL (S3 User Guide, "Download and upload objects with presigned
URLs"); credentials that are temporary end it sooner."""

MAX_PARALLEL_DELETES = 8
"""Single deletes under way at a time, where many are asked for."""


@dataclass(frozen=True, slots=True)
class ObjectAttributes:
    """What a person sees beside an object in the console; set when it, or its upload, is created.

    Attributes:
        content_type: Media type (RFC 9110, section 8.3).
        content_disposition: e.g. `inline; filename="call.wav"` (RFC 6266).
        metadata: User metadata: ASCII names and values, 2 KB in all (S3 User Guide, "User-defined
            object metadata"). Names are lower case.
        tags: Object tags: at most 10.
        storage_class: e.g. `STANDARD_IA`; the bucket's default if None. Ignored where there are
            no storage classes.
    """

    content_type: str = "application/octet-stream"
    content_disposition: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the store says of an object.

    Attributes:
        key: Key relative to the store.
        size: Bytes.
        etag: Opaque version token, without quotes; changes whenever the bytes change.
        checksum: CRC-64/NVME of the whole object, or None when the store keeps none.
        content_type: Media type; empty from `list_objects`.
        metadata: User metadata; empty from `list_objects`.
        modified: When it was written, by the store's clock.
    """

    key: str
    size: int
    etag: str
    checksum: int | None = None
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """An acknowledged part of a multipart upload; `checksum` is its CRC-64/NVME if known."""

    number: int
    size: int
    etag: str
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """A multipart upload in progress."""

    key: str
    upload_id: str
    initiated: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One level of keys: the objects directly below a prefix, and the folders (ending in `/`)."""

    objects: Sequence[ObjectInfo]
    folders: Sequence[str]


class Store(ABC):
    """Object storage below one bucket and prefix. Used as an async context manager, shared."""

    @abstractmethod
    def url(self, key: str) -> str:
        """Return where a person finds the object, e.g. `s3://bucket/prefix/key`. No I/O."""

    def web_url(self, key: str) -> str | None:
        """Return the address a web client reads the object at, if it may; None if there is none.

        Percent-encoded, without a signature. No I/O.
        """
        return None

    async def presigned_url(self, key: str, seconds: int) -> str:
        """Return an address at which anybody may read the object for a while. No I/O.

        Args:
            key: Which object; it need not be there.
            seconds: For how long, from now: 1 to `MAX_PRESIGN_SECONDS`.

        Raises:
            Unsupported: The store has no such addresses.
            InvalidRequest: `seconds` is out of limits.
        """
        raise Unsupported(
            f"{self.url(key)} has no address that can be signed", op="presigned_url", key=key
        )

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open connections. Does not contact the store: an endpoint that is down is no error."""

    @abstractmethod
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close connections. Idempotent."""

    @abstractmethod
    async def put(
        self,
        key: str,
        body: Body,
        attributes: ObjectAttributes | None = None,
        *,
        checksum: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write a whole object, atomically: readers see the old bytes or the new.

        Args:
            key: Where.
            body: Bytes, at most `MAX_PUT_BYTES`.
            attributes: Set with the object; an existing object's are replaced.
            checksum: CRC-64/NVME of `body`, if the caller has it; computed otherwise. The store
                compares it with what arrived.
            if_absent: Write only if nothing is there (`If-None-Match: *`).
            if_match: Write only over the object with this ETag.

        Returns:
            Info with size, ETag and checksum as written.

        Raises:
            PreconditionFailed: The condition does not hold; nothing was written. Also for
                `if_match` where no object is.
            Conflict: A conditional write ran beside this one; nothing was written. Where doing
                the same again settles it, it is a `TransientError`.
            ChecksumError: Other bytes arrived than were sent; nothing was written.
            InvalidRequest: Both conditions were given, or a limit is exceeded.
        """

    @abstractmethod
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Read bytes [start, end) of an object; `end` None or beyond it means to its end.

        Raises:
            NoSuchObject: There is none.
            InvalidRequest: `start` is negative, beyond the object's last byte and not 0, or
                after `end`.
        """

    @abstractmethod
    async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """Read a small object and its info in one consistent look (same version of both).

        Raises:
            NoSuchObject: There is none.
        """

    @abstractmethod
    async def head(self, key: str) -> ObjectInfo:
        """Return an object's info, metadata and checksum included.

        Raises:
            NoSuchObject: There is none.
        """

    @abstractmethod
    async def tags(self, key: str) -> dict[str, str]:
        """Return an object's tags.

        Raises:
            NoSuchObject: There is none.
            Unsupported: The server has no tags.
        """

    @abstractmethod
    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Give an object these tags, at most 10, instead of those it has; it stays as it is.

        Raises:
            NoSuchObject: There is none.
            InvalidRequest: A limit is exceeded.
            Unsupported: The server has no tags.
        """

    @abstractmethod
    def list_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order (code points).

        SeaweedFS keeps the order inside each folder only.
        """

    @abstractmethod
    async def list_level(self, prefix: str = "") -> Listing:
        """Return objects and folders directly below `prefix` (which is empty or ends in `/`).

        Some servers list a folder for a while after its last object.
        """

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Delete an object. One that is not there is no error."""

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StoreError]:
        """Delete any number of objects in few requests. One that is not there is no error.

        Args:
            keys: Which; each is tried, whatever becomes of the others.

        Returns:
            What was refused, by key: those objects may still be there.

        Raises:
            TransientError: Some may still be there for no lasting reason; call again with all.
            NoSuchBucket: There is nothing to delete from.
            WrongRegion: Nor was it looked for in the right place.
        """
        slots = asyncio.Semaphore(MAX_PARALLEL_DELETES)

        async def one(key: str) -> StoreError | None:
            async with slots:
                try:
                    await self.delete(key)
                except StoreError as error:
                    return error
            return None

        answers = await asyncio.gather(*(one(key) for key in keys))
        return refused(dict(zip(keys, answers, strict=True)))

    @abstractmethod
    async def create_multipart(self, key: str, attributes: ObjectAttributes | None = None) -> str:
        """Begin a multipart upload and return its id. Nothing is visible under `key` by it."""

    @abstractmethod
    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, checksum: int | None = None
    ) -> Part:
        """Store part `number` (1..`MAX_PARTS`); a part sent before under the number is replaced.

        Args:
            key: The upload's key.
            upload_id: From `create_multipart`.
            number: Part number; parts are joined in its order, in whatever order they arrive.
            body: At least `MIN_PART_BYTES` for every part but the last (checked at complete by
                stores that check it), at most `MAX_PART_BYTES`.
            checksum: CRC-64/NVME of `body`, if the caller has it; computed otherwise.

        Raises:
            NoSuchUpload: Unknown, completed or aborted upload.
            ChecksumError: Other bytes arrived than were sent; the part does not count.
            InvalidRequest: Number or size out of limits.
        """

    @abstractmethod
    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """Return the parts the store has acknowledged, by number, one each (the newest).

        A part is left out where the server does not tell which of two bodies is the newer.

        Raises:
            NoSuchUpload: Unknown, completed or aborted upload.
        """

    @abstractmethod
    def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
        """Yield multipart uploads in progress whose key starts with `prefix`."""

    @abstractmethod
    async def complete_multipart(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        checksum: int | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Join the parts into the object and end the upload.

        Args:
            key: The upload's key.
            upload_id: From `create_multipart`.
            parts: All parts, ascending by number, with the ETags they were acknowledged with.
            checksum: CRC-64/NVME of the whole object; the store compares it where it can.
            if_absent: Complete only if no object is there.

        Returns:
            Info with key, ETag and, where the store tells, the checksum; size is the parts' sum.

        Raises:
            NoSuchUpload: Unknown, aborted, or completed before, although some servers answer a
                second complete like the first. Whether the object is there is settled by `head`,
                never by this error.
            InvalidPart: A named part is not there or has another ETag; the upload lives on.
            PreconditionFailed: `if_absent` and something is there; the upload lives on.
            InvalidRequest: No parts, parts out of order, or one but the last that is too small.
            Conflict: The upload must be made anew.
            ChecksumError: The joined bytes have another checksum; no object was made.
        """

    @abstractmethod
    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts. One that is not there is no error."""


def refused(answers: Mapping[str, StoreError | None]) -> dict[str, StoreError]:
    """Return which of many deletes failed; see `Store.delete_many` for what is raised."""
    failed = {key: error for key, error in answers.items() if error is not None}
    for error in failed.values():
        if error.retryable or isinstance(error, NoSuchBucket | WrongRegion):
            raise error
    return failed
