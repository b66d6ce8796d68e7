"""How long each callback holds an event loop: whoever speaks to a bot hears the longest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import Any

_KEPT = 10


@dataclass(slots=True)
class Holds:
    """The longest callbacks of one thread's loop.

    Attributes:
        wall: The longest, ms, by the clock: what waits for the interpreter's lock, or for a core
            that another program has, is in it.
        cpu: The longest, ms, by the thread's CPU time: what it has done itself.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def longest_wall(self) -> float:
        return max(self.wall, default=0.0)

    @property
    def longest_cpu(self) -> float:
        return max(self.cpu, default=0.0)

    def note(self, wall: float, cpu: float) -> None:
        _keep(self.wall, wall * 1000)
        _keep(self.cpu, cpu * 1000)


def _keep(longest: list[float], value: float) -> None:
    if len(longest) < _KEPT:
        heappush(longest, value)
    elif value > longest[0]:
        heappushpop(longest, value)


@contextmanager
def watched(loop: asyncio.AbstractEventLoop) -> Iterator[Holds]:
    """Time every callback that the loop runs inside the block."""
    holds = Holds()
    inner: Any = asyncio.Handle._run
    wall, cpu = time.perf_counter, time.thread_time

    def run(handle: Any) -> None:
        if handle._loop is not loop:
            inner(handle)
            return
        wall_began, cpu_began = wall(), cpu()
        inner(handle)
        holds.note(wall() - wall_began, cpu() - cpu_began)

    patched: Any = asyncio.Handle
    patched._run = run
    try:
        yield holds
    finally:
        patched._run = inner
