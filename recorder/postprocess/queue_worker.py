"""Works on messages of a queue until it is told to end: `recorder worker`.

A message is deleted when what it is about is done, and not before. Until then it is hidden from
others, for longer while the work takes longer. What is not done comes again, later each time; what
can never be done is left to the queue's redrive policy, which moves it to the dead-letter queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from loguru import logger

from recorder.postprocess.events import UnreadableEvent
from recorder.postprocess.handle import Handled, handle
from recorder.postprocess.run import Processor
from recorder.postprocess.sqs import MAX_BATCH, Message
from uploader.errors import StoreError
from uploader.retry import AttemptFailed, Deadline, Retrier, RetryPolicy

T = TypeVar("T")

POLL_SECONDS = 5.0
"""How long a request for messages waits for some: so long can it take to end."""
SPARE_SECONDS = 2.0
"""How much later than that its answer may come."""
HIDE_SECONDS = 120.0
"""How long a message is hidden at a time: after a worker's death, it comes again that late."""
FIRST_PAUSE_SECONDS = 30.0
MAX_PAUSE_SECONDS = 900.0
"""Before a message that is not done comes again: doubled with each receive."""
LAST_SECONDS = 10.0
"""For giving back what is not done at the end."""
TELL_AFTER_ATTEMPTS = 3


class Queue(Protocol):
    """What a worker needs of a queue; see `recorder.postprocess.sqs.SqsQueue`."""

    async def receive(self, count: int, *, wait: float, hide: float) -> list[Message]:
        """Return messages, hidden from others."""
        ...

    async def delete(self, message: Message) -> None:
        """Have a message never come again."""
        ...

    async def hide(self, message: Message, seconds: float) -> None:
        """Hide a message for so long from now."""
        ...


class Worker:
    """Takes messages as long as there is a free slot, and works on them side by side.

    Args:
        queue: Where they come from.
        processor: Open.
        drain_seconds: How long what is in hand may still take at the end.
        retrier: For requests to the queue.
        on_handled: Told of each message, and what came of it or why it cannot be read.
        sleep: Waits, seconds, between two times that a message is hidden.

    Attributes:
        counts: Messages by what became of them: `done`, `again`, `unreadable`, `given back`.
    """

    def __init__(
        self,
        queue: Queue,
        processor: Processor,
        *,
        drain_seconds: float = 30.0,
        retrier: Retrier | None = None,
        on_handled: Callable[[Message, Handled | UnreadableEvent], None] = lambda *_: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._queue = queue
        self._processor = processor
        self._drain_seconds = drain_seconds
        self._retrier = retrier or Retrier(RetryPolicy(deadline_seconds=60.0))
        self._on_handled = on_handled
        self._sleep = sleep
        self._slots = processor.settings.postprocess_concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take no more messages, and end with what is in hand."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            StoreError: The queue refuses; what was in hand has been finished or given back.
        """
        try:
            while not self._stopping.is_set():
                if free := self._slots - len(self._tasks):
                    for message in await self._receive(free):
                        task = asyncio.create_task(self._work(message))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                else:
                    await self._first(*self._tasks)
        finally:
            await self._drain()

    async def _first(self, *tasks: asyncio.Task[None]) -> None:
        """Wait until one of the tasks is done, or this is to end."""
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def _receive(self, free: int) -> list[Message]:
        """Wait for messages; none if this is to end meanwhile."""

        async def poll() -> list[Message]:
            return await self._queue.receive(
                min(free, MAX_BATCH), wait=POLL_SECONDS, hide=HIDE_SECONDS
            )

        def tell(failed: AttemptFailed) -> None:
            if failed.attempt == TELL_AFTER_ATTEMPTS:
                logger.warning("the queue does not answer, trying on: {}", failed.error)

        polling = asyncio.ensure_future(
            self._retrier.call("receive", poll, deadline=Deadline(), on_attempt_failed=tell)
        )
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({polling, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                return polling.result()
            # Not broken off: what the server sends to nobody stays hidden from everybody.
            await asyncio.wait({polling}, timeout=POLL_SECONDS + SPARE_SECONDS)
            if polling.done() and polling.exception() is None:
                await asyncio.gather(*(self._give_back(one) for one in polling.result()))
            return []
        finally:
            polling.cancel()
            stopped.cancel()
            await asyncio.gather(polling, stopped, return_exceptions=True)

    async def _work(self, message: Message) -> None:
        """Work on one message; never raises but for a cancel."""
        hiding = asyncio.ensure_future(self._keep_hidden(message))
        try:
            await self._handle(message)
        except asyncio.CancelledError:
            await self._give_back(message)
            raise
        except StoreError as error:  # the queue's: the message comes again, and is found done
            logger.warning("message {}: {}", message.name, error)
        except Exception:  # a defect: of this message only, and not silent
            self.counts["again"] += 1
            logger.exception("message {} met a defect", message.name)
        finally:
            hiding.cancel()
            await asyncio.gather(hiding, return_exceptions=True)

    async def _handle(self, message: Message) -> None:
        try:
            handled = await handle(self._processor, message.body)
        except UnreadableEvent as error:
            # Left as it is: it comes again, until the redrive policy takes it away.
            self.counts["unreadable"] += 1
            logger.error(
                "message {} cannot be read, seen {} times, left to the dead-letter queue: {}",
                message.name,
                message.receives,
                error,
            )
            self._on_handled(message, error)
            return
        self._on_handled(message, handled)
        if handled.settled:
            await self._call("delete_message", lambda: self._queue.delete(message))
            self.counts["done"] += 1
            return
        self.counts["again"] += 1
        seconds = max(pause_seconds(message.receives), handled.wait_seconds or 0.0)
        logger.warning(
            "message {} comes again in {:.0f} s, seen {} times: {}",
            message.name,
            seconds,
            message.receives,
            handled.reason,
        )
        await self._call("hide_message", lambda: self._queue.hide(message, seconds))

    async def _keep_hidden(self, message: Message) -> None:
        """Have nobody else receive the message while this one works on it."""
        while True:
            await self._sleep(HIDE_SECONDS / 3)
            try:
                await self._call("hide_message", lambda: self._queue.hide(message, HIDE_SECONDS))
            except StoreError as error:  # then somebody else may begin, and meets the claim
                logger.warning("message {} may come twice: {}", message.name, error)

    async def _give_back(self, message: Message) -> None:
        """Let somebody else have the message at once, if the queue can still be told."""
        self.counts["given back"] += 1
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._queue.hide(message, 0)

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        return await self._retrier.call(op, request)


def pause_seconds(receives: int) -> float:
    """Return how long a message that is not done is hidden, by how often it was received."""
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(receives - 1, 10))
