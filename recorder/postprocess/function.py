"""The handler of a cloud function, AWS Lambda's: of S3's events, directly or through SQS.

    through SQS   a message that is not settled is named in the answer (`batchItemFailures`; AWS
                  Lambda Developer Guide, "Reporting batch item failures") and comes again, alone
    directly      an event that is not settled is an error, and Lambda tries it again

Store, client and event loop are kept from one call to the next, as long as the process lives.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from loguru import logger

from recorder.postprocess.events import UnreadableEvent
from recorder.postprocess.handle import handle
from recorder.postprocess.run import Processor
from recorder.settings import Settings
from uploader.errors import BotRecorderError

SPARE_SECONDS = 5.0
"""Kept back of a call's time: for giving up claims, and for the answer."""


class Context(Protocol):
    """What Lambda tells of a call."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the call may still take."""
        ...


class NotSettled(BotRecorderError):
    """An event's work is not done: it is to come again."""


class Function:
    """A handler with what it keeps; one for each process.

    Args:
        settings: Read from the environment at the first call if None.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._runner: asyncio.Runner | None = None
        self._processor: Processor | None = None
        self._one_at_a_time = threading.Lock()

    def __call__(self, event: Mapping[str, Any], context: Context | None = None) -> dict[str, Any]:
        """Handle one call.

        Args:
            event: S3's, EventBridge's or SQS's.
            context: Lambda's, for the time that is left.

        Returns:
            For messages of SQS, which are to come again; else nothing.

        Raises:
            NotSettled: An event that came directly is to come again.
            UnreadableEvent: An event that came directly is none that is known.
            SettingsError: The environment is missing something.
        """
        with self._one_at_a_time:
            if self._runner is None:
                self._runner = asyncio.Runner()
            return self._runner.run(self._call(event, context))

    def close(self) -> None:
        """Close what is kept open; for tests, a function's process just ends."""
        runner, processor = self._runner, self._processor
        self._runner = self._processor = None
        if runner is not None:
            with runner:
                if processor is not None:
                    runner.run(processor.__aexit__(None, None, None))

    async def _call(self, event: Mapping[str, Any], context: Context | None) -> dict[str, Any]:
        if self._processor is None:
            opened = Processor(self._settings or Settings())
            self._processor = await opened.__aenter__()
        seconds: float | None = None
        if context is not None:
            seconds = max(0.1, context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS)
        records = event.get("Records")
        if isinstance(records, list) and any(_is_message(one) for one in records):
            return await self._messages(self._processor, records, seconds)
        async with asyncio.timeout(seconds):
            handled = await handle(self._processor, event)
        if not handled.settled:
            raise NotSettled(handled.reason)
        return {}

    async def _messages(
        self, processor: Processor, records: Sequence[Mapping[str, Any]], seconds: float | None
    ) -> dict[str, Any]:
        slots = asyncio.Semaphore(processor.settings.postprocess_concurrency)
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds

        async def one(record: Mapping[str, Any]) -> bool:
            name = record.get("messageId")
            try:
                async with asyncio.timeout_at(deadline), slots:
                    handled = await handle(processor, record.get("body", ""))
            except UnreadableEvent as error:
                logger.error("message {} cannot be read: {}", name, error)
                return False
            except TimeoutError:
                logger.warning("message {}: out of time, it is to come again", name)
                return False
            if not handled.settled:
                logger.warning("message {} is to come again: {}", name, handled.reason)
            return handled.settled

        settled = await asyncio.gather(*(one(record) for record in records))
        return {
            "batchItemFailures": [
                {"itemIdentifier": record.get("messageId")}
                for record, good in zip(records, settled, strict=True)
                if not good
            ]
        }


def _is_message(record: object) -> bool:
    return isinstance(record, Mapping) and record.get("eventSource") == "aws:sqs"


handler = Function()
"""What Lambda calls: `recorder.postprocess.function.handler`."""
