"""One timer for all sessions of a process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from recorder.backstage import SessionBackstage

TICK_SECONDS = 0.1

SPREAD = 0.25
"""Of a chunk's length, over which the work for chunks that are due together is spread."""

LEAST_AT_ONCE = 4
"""Sessions that may go on in one tick, however few there are."""


class Ticker:
    """Has sessions do what is due, and closes those that have ended.

    Calls that began together have chunks that are due together. Their work is spread over the time
    that follows: threads that did it in one go would keep the interpreter from the bots' thread.

    Args:
        sessions: All there are; may change, and loses those that have ended.
        monotonic: The clock, seconds.
        chunk_seconds: Length of a chunk.
    """

    def __init__(
        self,
        sessions: set[SessionBackstage],
        monotonic: Callable[[], float],
        chunk_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._monotonic = monotonic
        self._ticks = SPREAD * chunk_seconds / TICK_SECONDS

    async def run(self) -> None:
        """Look at all sessions, some times a second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(TICK_SECONDS)

    async def look(self) -> None:
        """Look at all sessions once."""
        now = self._monotonic()
        due: list[tuple[float, SessionBackstage]] = []
        for session in list(self._sessions):
            try:
                late = session.tick(now)
                if not session.alive:
                    self._sessions.discard(session)
                    await session.close(0)
                elif late is not None:
                    due.append((late, session))
            except Exception as error:  # one session's trouble must not stop all others
                logger.opt(exception=error).error("a session's timer failed: {}", error)
        due.sort(key=lambda one: -one[0])
        for _, session in due[: self._at_once()]:
            session.go_on(now)

    def _at_once(self) -> int:
        return max(LEAST_AT_ONCE, math.ceil(len(self._sessions) / self._ticks))
