"""A bound on the bytes in flight, shared by all uploads of a process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class ByteBudget:
    """Admits requests for bytes in the order they came, up to a limit; for one event loop.

    A request larger than the limit is admitted when nothing else is in use: alone. Nobody is
    overtaken, so that a large request is not starved by small ones.

    Args:
        limit: Bytes.

    Attributes:
        in_use: Bytes reserved now.
        peak: Most bytes that ever were reserved at a time.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a budget of {limit} bytes admits nothing")
        self.limit = limit
        self.in_use = 0
        self.peak = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that have not been admitted yet."""
        return len(self._queue)

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of the budget inside the block; wait for them first.

        Raises:
            ValueError: `size` is negative.
        """
        if size < 0:
            raise ValueError(f"cannot reserve {size} bytes")
        await self._acquire(size)
        try:
            yield
        finally:
            self.in_use -= size
            self._admit()

    async def _acquire(self, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._queue.append(entry)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.in_use -= size  # admitted in the same moment: give it back
            else:
                with suppress(ValueError):  # somebody else has passed over it already
                    self._queue.remove(entry)
            self._admit()
            raise

    def _admit(self) -> None:
        """Admit from the front of the queue while there is room."""
        while self._queue:
            size, turn = self._queue[0]
            if turn.done():  # cancelled, and not yet told so
                self._queue.popleft()
                continue
            if self.in_use and self.in_use + size > self.limit:
                return
            self._queue.popleft()
            self.in_use += size
            self.peak = max(self.peak, self.in_use)
            turn.set_result(None)
