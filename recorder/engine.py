"""One background thread with its own event loop: sealing and uploading never run on the bot's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from recorder import switching
from uploader.errors import BotRecorderError

T = TypeVar("T")

WORKER_THREADS = 2


class RecorderClosed(BotRecorderError):
    """The recorder was closed while, or before, something was wanted of it."""


class Engine:
    """Runs coroutines on its own thread, and blocking work on a few worker threads.

    Attributes:
        working: How many pieces of blocking work are under way, or wait for a worker.
        encoding: Held by who compresses, for one piece: chunks never wait for compression alone.
    """

    def __init__(self) -> None:
        self.working = 0
        self.encoding = asyncio.Semaphore(WORKER_THREADS - 1)
        self._loop = asyncio.new_event_loop()
        self._workers = ThreadPoolExecutor(WORKER_THREADS, thread_name_prefix="recorder-worker")
        self._thread = threading.Thread(target=self._run, name="recorder-engine", daemon=True)
        self._thread.start()
        switching.shorten()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the engine's loop; from any thread.

        Raises:
            RecorderClosed: The engine is closed.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise RecorderClosed("the recorder is closed") from error

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop and wait for it on the caller's.

        It runs to its end even if the caller is cancelled: nothing is left half done.

        Raises:
            RecorderClosed: The engine is closed, or was before the work was done.
        """
        future = self.submit(work)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if future.cancelled():  # by `close`, which is no reason to cancel the caller
                raise RecorderClosed("the recorder was closed") from None
            waiting.add_done_callback(_look_at)
            raise

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run blocking work on a worker thread; from the engine's loop.

        A cancel waits for the work to end: what the caller then lets go of, a lock or a mapping,
        is not used by anybody any more.
        """
        work = self._loop.run_in_executor(self._workers, function, *args)
        self.working += 1
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):  # one more changes nothing
                    await asyncio.wait((work,))
            _look_at(work)
            raise
        finally:
            self.working -= 1

    def wake(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the engine's loop soon; from any thread. Once closed, do nothing."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Cancel what still runs, wait for it to end, and stop the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self.submit(self._cancel_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._workers.shutdown()
        self._loop.close()
        switching.restore()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of a failure that nobody waits for any more."""
    if not future.cancelled():
        future.exception()
