"""How many requests wait for one another: what a store's latency is multiplied by."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from faulty_store import FaultyStore

LATENCY_SECONDS = 0.01
"""Of each request: long beside what is done between two of them, so that those side by side are."""


@dataclass(slots=True)
class Request:
    """One request, seconds."""

    op: str
    begin: float
    end: float = float("inf")


class RoundTrips:
    """Gives a store's requests a latency, and takes note of when each begins and ends.

    Attributes:
        requests: Since `begin`, as they began.
    """

    def __init__(self, store: FaultyStore) -> None:
        self.requests: list[Request] = []
        self._store = store
        self._open: dict[tuple[str, str, int], Request] = {}

    def begin(self) -> None:
        """Count from here on."""
        self.requests = []
        self._store.hook = self._note

    def counts(self) -> Counter[str]:
        """Requests by operation."""
        return Counter(one.op for one in self.requests)

    def longest(self) -> list[str]:
        """Return the longest sequence in which each request began after the one before had ended.

        Deletes are left out: they come when all is said, and nobody waits for them.
        """
        best: list[tuple[Request, list[str]]] = []
        for one in self.requests:
            if one.op.startswith("delete"):
                continue
            before = [path for other, path in best if other.end <= one.begin]
            best.append((one, [*max(before, key=len, default=[]), one.op]))
        return max((path for _, path in best), key=len, default=[])

    async def _note(self, op: str, key: str, done: bool) -> None:
        place = op, key, id(asyncio.current_task())
        if done:
            self._open.pop(place).end = time.monotonic()
            return
        self._open[place] = one = Request(op, time.monotonic())
        self.requests.append(one)
        await asyncio.sleep(LATENCY_SECONDS)
