"""Finds out, by trying, what a store can do: some servers ignore what they do not know.

A server without conditional writes overwrites where it should refuse; a bucket policy may allow
writing but not deleting or looking. Each has a stated behaviour elsewhere, chosen by what is
found here at the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger

from uploader import checksum as crc
from uploader.errors import (
    AccessDenied,
    Conflict,
    InvalidRequest,
    NoSuchObject,
    PreconditionFailed,
    StoreError,
    Unsupported,
)
from uploader.retry import Retrier
from uploader.store import ObjectAttributes, Store

T = TypeVar("T")

PREFIX = ".bot-recorder/"
_BODY = b"bot-recorder looks what this store can do; this object may be deleted\n"
_ATTRIBUTES = ObjectAttributes(content_type="text/plain", metadata={"recorder-probe": "1"})
_WRONG_ETAG = "00000000000000000000000000000000"
_CLEAN_UP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, with the permissions at hand.

    Attributes:
        conditional_writes: A put refuses to replace an object, or another version, when told to.
        checksums: The store keeps the CRC-64/NVME of an object and tells it.
        deletes: Objects can be deleted.
        head: An object's size and metadata can be asked for.
    """

    conditional_writes: bool
    checksums: bool
    deletes: bool
    head: bool


async def probe(store: Store, retrier: Retrier | None, token: str) -> Capabilities:
    """Return what the store can do, by about five requests to one small object.

    Args:
        store: An open store.
        retrier: Retries what is transient; None for a single try of everything.
        token: Makes the object's key this probe's own.

    Raises:
        AccessDenied: Objects cannot be written.
        NoSuchBucket: There is no such bucket, or folder.
        WrongRegion: The bucket is in another region.
        TransientError: The store cannot be reached, or does not answer in time.
    """
    trial = _Trial(store, retrier, f"{PREFIX}probe-{token}")
    try:
        refuses = await trial.create()
        found = await asyncio.gather(
            trial.look(),
            trial.refuses(if_absent=True) if refuses else _no(),
            trial.refuses(if_match=_WRONG_ETAG) if refuses else _no(),
            return_exceptions=True,
        )
    except BaseException:
        await trial.clean_up()
        raise
    for one in found:
        if isinstance(one, BaseException):
            await trial.clean_up()
            raise one
    return Capabilities(
        conditional_writes=found[1] is True and found[2] is True,
        checksums=found[0] == (True, True),
        deletes=await trial.delete(),
        head=found[0] in ((True, True), (True, False)),
    )


async def _no() -> bool:
    return False


class _Trial:
    """The one object, and what is tried on it."""

    def __init__(self, store: Store, retrier: Retrier | None, key: str) -> None:
        self._store = store
        self._retrier = retrier
        self._key = key

    async def _call(self, fn: Callable[[], Awaitable[T]]) -> T:
        if self._retrier is None:
            return await fn()
        return await self._retrier.call("probe", fn)

    async def _put(self, *, if_absent: bool = False, if_match: str | None = None) -> None:
        # Always the same bytes: what looks at the object meanwhile sees no difference.
        await self._call(
            lambda: self._store.put(
                self._key, _BODY, _ATTRIBUTES, if_absent=if_absent, if_match=if_match
            )
        )

    async def create(self) -> bool:
        """Write the object; return whether the store takes conditions on a put at all."""
        try:
            await self._put(if_absent=True)
        except (Conflict, PreconditionFailed):
            return True  # there already: an earlier attempt's answer was lost
        except (InvalidRequest, Unsupported) as error:
            logger.info("the store refuses conditional writes: {}", error)
            await self._put()
            return False
        return True

    async def refuses(self, *, if_absent: bool = False, if_match: str | None = None) -> bool:
        """Return whether a write whose condition does not hold is refused."""
        try:
            await self._put(if_absent=if_absent, if_match=if_match)
        except (Conflict, PreconditionFailed):
            return True
        except (InvalidRequest, Unsupported) as error:
            logger.info("the store refuses conditional writes: {}", error)
        return False

    async def look(self) -> tuple[bool, bool]:
        """Return whether the store tells size and metadata, and whether it tells the checksum."""
        try:
            info = await self._call(lambda: self._store.head(self._key))
        except (AccessDenied, InvalidRequest, NoSuchObject, Unsupported) as error:
            logger.info("the store does not tell what it holds: {}", error)
            return False, False
        complete = info.size == len(_BODY) and info.metadata == _ATTRIBUTES.metadata
        return complete, complete and info.checksum == crc.crc64nvme(_BODY)

    async def delete(self) -> bool:
        """Delete the object; return whether that is allowed."""
        try:
            await self._call(lambda: self._store.delete(self._key))
        except (AccessDenied, Conflict, InvalidRequest, Unsupported) as error:
            logger.info("objects cannot be deleted: {}", error)
            return False
        return True

    async def clean_up(self) -> None:
        """Try once to delete the object, where an error or a cancel is under way."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                await self._store.delete(self._key)
