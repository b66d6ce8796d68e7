"""What all recordings of a process share on their way: stores, retries, budget, quota, threads."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from loguru import logger

from recorder.engine import Engine
from recorder.quota import SpoolQuota
from recorder.settings import Settings
from recorder.stores import make_store
from uploader.budget import ByteBudget
from uploader.clock import Clock
from uploader.context import Context
from uploader.probe import Capabilities, probe
from uploader.retry import AttemptFailed, Deadline, Retrier
from uploader.store import Store

Known = Callable[[], Awaitable[Capabilities]]


class Depot:
    """Opens the stores that recordings name, each once, and makes their contexts.

    Args:
        settings: Of the process.
        clock: Where time comes from.
        engine: Its thread and workers.
        store: The settings' own, opened and closed by somebody else.
        known: Returns what that one can do.
        retrier: Of all requests.
        budget: Of all bytes in flight.
        quota: Of all bytes in the spool.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        engine: Engine,
        store: Store,
        known: Known,
        retrier: Retrier,
        budget: ByteBudget,
        quota: SpoolQuota,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.engine = engine
        self.store = store
        self.quota = quota
        self.retrier = retrier
        self._known = known
        self._budget = budget
        self._others: dict[str, tuple[Store, Capabilities]] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def reach(self, location: str) -> tuple[Store, Capabilities]:
        """Return the store at a location, open, and what it can do.

        Raises:
            SettingsError: It is no location.
            StoreError: It is not to be had.
        """
        if location == str(self.settings.location):
            return self.store, await self._known()
        async with self._opening:
            if location not in self._others:
                store = make_store(self.settings.replace(bucket=location, prefix=""))
                async with AsyncExitStack() as stack:  # closed again if it is not to be had
                    await stack.enter_async_context(store)
                    found = await probe(store, self.retrier, secrets.token_hex(8))
                    self._stack.push_async_callback(stack.pop_all().aclose)
                self._others[location] = store, found
            return self._others[location]

    def context(
        self,
        recording_id: str,
        store: Store,
        capabilities: Capabilities,
        deadline: Deadline | None = None,
        on_failure: Callable[[AttemptFailed], None] = lambda failed: None,
    ) -> Context:
        """Return what all requests of a recording share.

        Args:
            recording_id: Its id.
            store: Where it goes.
            capabilities: Of the store.
            deadline: Of its requests; `retry_deadline_seconds` from now if None.
            on_failure: Told of each attempt that failed.
        """
        seconds = self.settings.retry_deadline_seconds
        return Context(
            store=store,
            retrier=self.retrier,
            budget=self._budget,
            capabilities=capabilities,
            deadline=deadline or Deadline(time.monotonic() + seconds),
            recording_id=recording_id,
            log=logger.bind(recording_id=recording_id),
            on_failure=on_failure,
        )

    async def close(self) -> None:
        """Close the other stores."""
        await self._stack.aclose()
