"""Reads objects back in pieces: every byte once, and never a whole object in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from recorder.verification.report import Counts
from uploader.errors import InvalidRequest, NoSuchObject
from uploader.retry import Retrier, RetryPolicy
from uploader.store import ObjectInfo, Store

T = TypeVar("T")

PIECE_BYTES = 8 * 1024**2
AHEAD = 2
"""Pieces of a stream that are asked for while one is looked at."""
MAX_PARALLEL_HEADS = 8

POLICY = RetryPolicy(attempts=5, deadline_seconds=180.0, attempt_timeout_seconds=60.0)
"""Somebody waits for the answer, and a piece takes a while on a slow line."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far reading is: so many bytes of a total; `key` is the object read last."""

    key: str
    bytes_read: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of an object."""

    key: str
    start: int
    end: int


def pieces(key: str, size: int) -> Iterable[Piece]:
    """Return the pieces that an object of `size` bytes is read in."""
    for start in range(0, size, PIECE_BYTES):
        yield Piece(key, start, min(size, start + PIECE_BYTES))


class Objects:
    """Reads from a store, with retries, and counts.

    Args:
        store: Open.
        counts: Told what is read.
        progress: Told how far it is.
    """

    def __init__(self, store: Store, counts: Counts, progress: Callable[[Step], None]) -> None:
        self.total = 0
        self._store = store
        self._counts = counts
        self._progress = progress
        self._retrier = Retrier(POLICY)
        self._heads = asyncio.Semaphore(MAX_PARALLEL_HEADS)

    async def call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        """Make a request; see `Retrier.call`."""
        return await self._retrier.call(op, request)

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what the store says of an object, or None if there is none.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        async with self._heads:
            try:
                return await self.call("head", lambda: self._store.head(key))
            except NoSuchObject:
                return None

    async def stream(
        self, wanted: Iterable[Piece], *, again: bool = False
    ) -> AsyncGenerator[tuple[Piece, bytes], None]:
        """Yield pieces with their bytes, in order; fewer bytes where the object has fewer.

        Args:
            wanted: Which, in order.
            again: They were read before: they do not count.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        ahead: deque[tuple[Piece, asyncio.Task[bytes]]] = deque()
        try:
            for piece in wanted:
                ahead.append((piece, asyncio.create_task(self.get(piece))))
                if len(ahead) > AHEAD:
                    yield await self._taken(ahead, again)
            while ahead:
                yield await self._taken(ahead, again)
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def get(self, piece: Piece) -> bytes:
        """Return a piece's bytes; none where the object has become shorter, or is gone.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        try:
            return await self.call(
                "get",
                lambda: self._store.get(piece.key, start=piece.start, end=piece.end),
            )
        except (NoSuchObject, InvalidRequest):
            return b""

    async def _taken(
        self, ahead: deque[tuple[Piece, asyncio.Task[bytes]]], again: bool
    ) -> tuple[Piece, bytes]:
        piece, task = ahead[0]
        data = await task
        ahead.popleft()
        if again:
            return piece, data
        counts = self._counts
        counts.bytes += len(data)
        counts.objects += piece.start == 0
        self._progress(Step(piece.key, min(counts.bytes, self.total), self.total))
        return piece, data
