"""Credentials that are looked for anew when the server no longer takes them.

Temporary credentials expire, and keys are rotated, while a call goes on. The client renews by
itself what it knows to expire; what it does not know (a file that somebody rewrites, a token that
is revoked early) is found out by the server's refusal. Then all places are looked through again,
as at the start, and requests are signed with what is found there. No connection is closed by it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Protocol

from loguru import logger

LOOK_AGAIN_SECONDS = 5.0
"""How long the outcome of a look counts: the places may be slow, or count requests."""

PROPAGATION_SECONDS = 30.0
"""How long a server may not know new credentials yet (IAM User Guide, "Changes that I make are
not always immediately visible")."""

EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
REPLACED_CODES = frozenset(
    {"InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "SignatureDoesNotMatch"}
)
"""What a server says of keys that were deleted, or read from a file while it was being written."""


class Keys(Protocol):
    """What a request is signed with; compared, never looked into."""


class Source(Protocol):
    """Credentials of the client, which may renew themselves."""

    async def get_frozen_credentials(self) -> Keys:
        """Return them as they are now."""
        ...


class CredentialsUnavailable(Exception):
    """A place of credentials is out of order."""


_used: ContextVar[Keys | None] = ContextVar("keys that the task's request was signed with")


class RenewableCredentials:
    """What requests are signed with; for one event loop.

    Args:
        look: Looks through all places; returns None if there are no credentials. Its errors are
            those of a request that could not be signed.
        monotonic: The clock, seconds.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Source | None]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._monotonic = monotonic
        self._source: Source | None = None
        self._failure: Exception | None = None
        self._found_others = False
        self._looked_at = -math.inf
        self._renewed_at = -math.inf
        self._lock = asyncio.Lock()

    @property
    def origin(self) -> str:
        """Where they were found, in the client's words, e.g. `env`, `iam-role`; or empty."""
        return str(getattr(self._source, "method", "") or "")

    async def current(self) -> Keys | None:
        """Return what the next request is signed with, None if there is nothing."""
        if self._source is None:
            await self._find()
        keys = await self._keys()
        _used.set(keys)
        return keys

    def begin(self) -> None:
        """A request of this task begins: it has not been signed."""
        _used.set(None)

    async def renewed(self, code: str) -> bool:
        """Return whether this task's request, refused with `code`, has a chance if sent again.

        Requests that are refused at the same time share one look, and its outcome counts for those
        that follow within a moment.
        """
        used = _used.get()
        async with self._lock:
            if used is not None and await self._keys() != used:
                return True  # by another request's refusal, or by themselves
            if code in REPLACED_CODES and self._age(self._renewed_at) < PROPAGATION_SECONDS:
                return True
            if not self._has_just_looked():
                await self._look_again()
                self._found_others = True  # or an error says what they are
                self._found_others = await self._keys() != used
                if self._found_others:
                    self._renewed_at = self._monotonic()
                    logger.info("refused as {}: the credentials have been renewed", code)
            return self._found_others

    async def _find(self) -> None:
        async with self._lock:  # another request may have found them meanwhile
            if self._source is None and not self._has_just_looked():
                await self._look_again()

    async def _keys(self) -> Keys | None:
        if self._source is None:
            return None
        try:
            return await self._source.get_frozen_credentials()
        except RuntimeError as error:  # so the client says that what it got has expired already
            raise CredentialsUnavailable(str(error)) from error

    def _age(self, since: float) -> float:
        return self._monotonic() - since

    def _has_just_looked(self) -> bool:
        """Return whether the last look's outcome still counts; raise it if it was an error."""
        if self._age(self._looked_at) >= LOOK_AGAIN_SECONDS:
            return False
        if self._failure is not None:
            raise self._failure
        return True

    async def _look_again(self) -> None:
        """Look through all places; holding the lock. What there was is kept if nothing is there."""
        first = self._source is None
        self._failure = None
        try:
            self._source = await self._look() or self._source
        except Exception as error:
            self._failure = error
        if not first or self._source is None:
            self._looked_at = self._monotonic()  # what was found at first says nothing of changes
        if self._failure is not None:
            raise self._failure
