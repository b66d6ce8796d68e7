"""The open chunk's first half, kept in the store until the chunk itself is there.

It is what a host that is lost with its disk would take with it. It has the very samples that the
chunk will begin with, so that whoever rescues the recording can take it for its last chunk.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from recorder.account import Account
from recorder.chunks import Chunk
from uploader.errors import BotRecorderError
from uploader.retry import Deadline
from uploader.store import Body

SETTLE_SECONDS = 2.0
"""How long what is under way may take when the recording ends: deletes must not overtake it."""

LEAST_SECONDS = 5.0
"""How long sending is tried, however short chunks are."""


class OpenChunk:
    """Of one recording.

    Args:
        account: Of the recording.
        caught_up: Whether a manifest and all sealed chunks are in the store.
        tell: Has the manifest say what has happened within the samples: turns, gaps.

    Attributes:
        there: Whether the store may have it.
        idle: Set while nothing is being sent.
    """

    def __init__(
        self,
        account: Account,
        caught_up: Callable[[], bool],
        tell: Callable[[], Awaitable[None]],
    ) -> None:
        self.there = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._account = account
        self._caught_up = caught_up
        self._tell = tell
        self._until = 0
        self._deadline = Deadline()

    def due(self, seconds: float = math.inf) -> bool:
        """Return whether the open chunk's first half should be in the store and is not.

        Args:
            seconds: Now, after the recording's start; if not given, whether it is settled is left
                to be seen.
        """
        plan, end = self._account.plan, self._end()
        if end <= self._until or not self.idle.is_set() or not self._caught_up():
            return False
        budget = self._account.context.budget
        if budget.waiting or (budget.in_use and budget.in_use + self._bytes() > budget.limit):
            return False  # a store that is slower than the calls: chunks and parts go first
        return seconds >= end / plan.sample_rate + plan.hold_back_seconds

    def next_look(self) -> float:
        """Return before when it is not due, in seconds after the recording's start."""
        plan, end = self._account.plan, self._end()
        return math.inf if end <= self._until else end / plan.sample_rate + plan.hold_back_seconds

    async def send(self, render: Callable[[int], Awaitable[tuple[Chunk, Body] | None]]) -> None:
        """Send it, if it is due and settled; where that fails, the chunk itself is the next try.

        Who asked before may have sent it meanwhile, or be at it.

        Args:
            render: Returns so many samples of the open chunk, and their file's bytes; None where
                they are not settled, or the chunk is due itself.
        """
        if not self.due():
            return
        plan, budget = self._account.plan, self._account.context.budget
        half = plan.chunk_samples // 2
        self.idle.clear()
        try:
            async with budget.reserve(self._bytes()):
                if (found := await render(half)) is not None:
                    self._until = found[0].end
                    await self._put(*found)
        finally:
            self.idle.set()

    async def _put(self, chunk: Chunk, body: Body) -> None:
        plan = self._account.plan
        seconds = max(LEAST_SECONDS, plan.seconds(chunk.samples))
        self._deadline = Deadline(time.monotonic() + seconds)
        context = replace(self._account.context, deadline=self._deadline)
        key, attributes = plan.open_chunk_key, plan.chunk_attributes(chunk)
        try:
            async with asyncio.timeout(seconds):
                await self._tell()
            self.there = True
            await context.call(
                "put_open_chunk",
                lambda: context.store.put(key, body, attributes, checksum=chunk.checksum),
            )
        except (BotRecorderError, TimeoutError) as error:
            context.log.info("the open chunk could not be stored: {}", error)

    def hurry(self) -> None:
        """Have what is under way end soon, since the recording does."""
        self._deadline.move(time.monotonic() + SETTLE_SECONDS)

    def _bytes(self) -> int:
        tracks = max(1, len(self._account.contents.timeline.tracks))
        return 2 * tracks * (self._account.plan.chunk_samples // 2)

    def _end(self) -> int:
        """Return the sample behind the open chunk's first half."""
        return self._account.contents.sealed_samples + self._account.plan.chunk_samples // 2
