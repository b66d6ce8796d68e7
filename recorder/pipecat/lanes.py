"""Hands events to their handlers in order: one at a time in a lane, lanes beside each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Work = Callable[[], Awaitable[None]]
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[Any]"]


class Lanes:
    """Queues of work, by name. A lane has a task only while there is something in it.

    Args:
        spawn: Makes a task of a coroutine, with a name.
    """

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._queues: dict[str, deque[Work]] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._closed = False

    def add(self, lane: str, work: Work) -> None:
        """Have `work` done after all that was added to the lane before; never waits.

        What `work` raises is for it to handle: it must not raise. After `close`, nothing is done.
        """
        if self._closed:
            return
        self._queues.setdefault(lane, deque()).append(work)
        if lane not in self._tasks:
            self._tasks[lane] = self._spawn(self._run(lane), f"events::{lane}")

    async def drained(self, *lanes: str) -> None:
        """Wait until these lanes, or all, are empty; not to be called from work in one of them."""
        while True:
            busy = [
                task
                for lane, task in self._tasks.items()
                if not task.done() and (not lanes or lane in lanes)
            ]
            if not busy:
                return
            await asyncio.wait(busy)

    async def close(self) -> None:
        """Cancel what goes on and drop the rest. Idempotent."""
        self._closed = True
        self._queues.clear()
        current = asyncio.current_task()
        tasks = [task for task in self._tasks.values() if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, lane: str) -> None:
        queue = self._queues[lane]
        try:
            while queue:
                await queue.popleft()()
        finally:
            self._tasks.pop(lane, None)
