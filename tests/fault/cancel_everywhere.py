"""Cancels a piece of work at its n-th suspension, wherever that is: its own, or a child task's.

Every task of a loop is wrapped, so that each time any of them hands control back is counted. At
the n-th the work is cancelled, in one of two ways: at once, before what it waits for has come; or
as it has come, before the work has seen it, so that what it was told is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal

Moment = Literal["at once", "as it has come"]
MOMENTS: tuple[Moment, ...] = ("at once", "as it has come")


class Points:
    """Counts suspensions and cancels at one of them.

    Args:
        at: Which, from 1; 0 for none.
        moment: When.
        cancel: Cancels the work; called on the loop whose tasks are counted. If None, the first
            task made is the work.

    Attributes:
        count: Suspensions so far.
    """

    def __init__(self, at: int, moment: Moment, cancel: Callable[[], object] | None = None) -> None:
        self.count = 0
        self._at = at
        self._moment = moment
        self._cancel = cancel

    @property
    def reached(self) -> bool:
        """Whether the work came so far."""
        return self.count >= self._at

    def make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Make a task whose suspensions are counted: a task factory."""
        task = asyncio.Task(Stepped(work, self), loop=loop, **options)
        if self._cancel is None:
            self._cancel = task.cancel
        return task

    def suspended(self, waits_for: Any) -> None:
        """Take note of a suspension."""
        self.count += 1
        if self.count != self._at or self._cancel is None:
            return
        cancel = self._cancel
        if self._moment == "at once" or not isinstance(waits_for, asyncio.Future):
            cancel()
        else:
            # Before the task's own: that is added when it has been handed the future.
            waits_for.add_done_callback(lambda _: cancel())


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that tells when it hands control back."""

    def __init__(self, work: Coroutine[Any, Any, Any], points: Points) -> None:
        self._work = work
        self._points = points

    def send(self, value: Any) -> Any:
        return self._told(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()

    def _told(self, waits_for: Any) -> Any:
        self._points.suspended(waits_for)
        return waits_for


async def cancelled_at(at: int, moment: Moment, work: Coroutine[Any, Any, Any]) -> bool:
    """Run work on this loop, cancel it at a point; return whether it came so far.

    Nothing it began may be left: no task, once it is over.
    """
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    points = Points(at, moment)
    loop.set_task_factory(points.make_task)
    try:
        await asyncio.gather(asyncio.ensure_future(work), return_exceptions=points.reached)
    except asyncio.CancelledError:
        assert points.reached
    finally:
        loop.set_task_factory(None)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left, f"cancelled at point {at}, it leaves {left}"
    return points.reached
