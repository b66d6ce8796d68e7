"""`recorder recover --watch`: looks on, whatever the endpoint does, until a signal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from loguru import logger
from rich.console import Console

from recorder.catalog import POLICY
from recorder.cli import output, runtime
from recorder.cli.recover_report import Report
from recorder.recovered import Recovered
from recorder.service import Recorder
from recorder.settings import Settings
from recorder.stores import make_store
from uploader.errors import BotRecorderError, StoreError
from uploader.manifest import MANIFEST
from uploader.retry import Retrier

_MAX_PAUSE_SECONDS = 60.0


async def check_answer(settings: Settings) -> None:
    """Find out, within seconds, whether the store answers at all: work is retried for minutes.

    Raises:
        StoreError: It does not. What it refuses is found by whoever wants that of it.
    """
    async with make_store(settings) as store:
        try:
            await Retrier(POLICY).call("head", lambda: store.head(MANIFEST))
        except StoreError as error:
            if error.retryable:
                raise


class Watcher:
    """Recovers from spool and bucket, again and again.

    Args:
        settings: With the bucket.
        report: Told of all recordings.
        console: For remarks.
        interval: Seconds from one look to the next, about.
        heartbeat: A file to touch with each look, and each recording that is dealt with.
    """

    def __init__(
        self,
        settings: Settings,
        report: Report,
        console: Console,
        interval: float,
        heartbeat: Path | None = None,
    ) -> None:
        self._settings = settings
        self._report = report
        self._console = console
        self._interval = interval
        self._stopping = asyncio.Event()
        self._failures = 0
        self._heartbeat = heartbeat

    async def run(
        self, interrupts: runtime.Interrupts, *, stale_after: float | None, unfenced: bool
    ) -> None:
        """Recover until there is a signal; then finish what is in hand, if that is soon done.

        Args:
            interrupts: The first signal is the way to end this, the second breaks it off.
            stale_after: See `Recorder.recover`.
            unfenced: See `Recorder.recover`.

        Raises:
            StoreError: The bucket refuses, from the beginning.
        """
        interrupts.stop = self._stop
        settings = self._settings
        places = f"{settings.spool_dir} and {settings.location}"
        output.print_note(self._console, f"watching {places} every {self._interval:g} s")
        async with AsyncExitStack() as stack:
            recorder: Recorder | None = None
            while not self._stopping.is_set():
                self._beat()
                try:
                    if not await self._unless_stopped(check_answer(settings)):
                        break
                    if recorder is None:
                        opening = Recorder(settings, recover=False)
                        recorder = await stack.enter_async_context(opening)
                    self._report.begin_look()
                    look = recorder.recover(
                        bucket=True,
                        wait=False,
                        stale_after=stale_after,
                        unfenced=unfenced,
                        on_recovered=self._take,
                    )
                    if not await self._unless_stopped(look, settings.drain_seconds):
                        left = "not all in hand was done in time: another run will go on with it"
                        output.print_note(self._console, left)
                    self._failures = 0
                except (BotRecorderError, OSError) as error:
                    refused = isinstance(error, StoreError) and not error.retryable
                    if recorder is None and refused:
                        raise
                    await self._pause_after(error)
                else:
                    await self._pause(self._interval * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        interrupts.received = None  # a signal is how this ends, and no failure
        self._report.sum_up()

    def _take(self, one: Recovered) -> None:
        self._beat()
        self._report.take(one)

    def _beat(self) -> None:
        """Say to whoever looks after this process that it goes on."""
        if self._heartbeat is not None:
            try:
                self._heartbeat.touch()
            except OSError as error:
                logger.warning("cannot touch {}: {}", self._heartbeat, error.strerror)

    def _stop(self) -> None:
        self._stopping.set()
        output.print_note(self._console, "ending, with what is in hand; again to break off")

    async def _unless_stopped(self, work: Coroutine[Any, Any, object], grace: float = 0) -> bool:
        """Do some work, after a stop no longer than `grace` seconds; return if it was done."""
        doing = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({doing}, timeout=None if doing.done() else grace)
            if doing.done():
                doing.result()
            return doing.done()
        finally:
            for task in (doing, stopped):
                task.cancel()
            await asyncio.gather(doing, stopped, return_exceptions=True)

    async def _pause_after(self, error: BotRecorderError | OSError) -> None:
        """Wait longer with each failure in a row, and never as long as somebody else."""
        self._failures += 1
        longest = min(_MAX_PAUSE_SECONDS, self._interval * 2**self._failures)
        seconds = max(self._interval, longest) * random.uniform(0.5, 1)  # noqa: S311 - no secret
        logger.warning("could not look, again in {:.0f} s: {}", seconds, error)
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
