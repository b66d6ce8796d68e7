"""A recorder's end: begun once, waited for by whoever wants it, cut short by nobody's cancel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future


class Closing:
    """Blocking work that is done once.

    Args:
        work: Does it.
        hurry: Has it wait for nothing any more; from any thread.
    """

    def __init__(self, work: Callable[[], None], hurry: Callable[[], None]) -> None:
        self._work = work
        self._hurry = hurry
        self._abandoned = False
        self._done: Future[None] = Future()
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Do it here, waiting for it."""
        try:
            self._work()
        except BaseException as error:
            self._done.set_exception(error)
            raise
        self._done.set_result(None)

    def begin(self) -> None:
        """Have it done on a thread of its own."""
        self._thread = threading.Thread(target=self._run_quietly, name="recorder-close")
        self._thread.start()

    def _run_quietly(self) -> None:
        try:
            self.run()
        except BaseException:  # told by `join` and `wait`
            return

    def join(self, seconds: float) -> None:
        """Wait until it is done.

        Raises:
            TimeoutError: It is not, after so long.
        """
        self._done.result(seconds)

    async def wait(self) -> None:
        """Wait until it is done; a cancel ends the waiting, and not the work.

        Who waits after somebody's waiting was cancelled wants an end: what is left is left.
        """
        if self._abandoned:
            self._hurry()
        waiting = asyncio.wrap_future(self._done)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._abandoned = True
            raise
        finally:
            if self._done.done() and self._thread is not None:
                self._thread.join()  # it has nothing left to do but to end
