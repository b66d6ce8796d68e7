"""What a store can do: asked once, for as long as it takes, while recording goes on."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import replace

from loguru import logger

from recorder.settings import Settings
from uploader.errors import StoreError, TransientError
from uploader.probe import Capabilities, probe
from uploader.retry import Retrier
from uploader.store import Store

ASSUMED = Capabilities(conditional_writes=True, checksums=True, deletes=True, head=True)
"""What is taken for granted of a store that cannot be asked yet."""

MISSING = {
    "conditional_writes": "has no conditional writes: only the recording's id guards its objects",
    "checksums": "tells no checksum of what it holds: objects are verified by size alone",
    "deletes": "does not allow deletes: chunk objects stay beside the outputs",
    "head": "does not allow looking at objects: what Complete answers is believed",
}
"""What it means for recordings when a store lacks a capability."""


class StoreProbe:
    """Asks a store what it can do.

    Args:
        store: Which.
        settings: Say where it is, and how long to wait for it.
        required: Whether a store that refuses is an error, which somebody raises.

    Attributes:
        capabilities: What it can do; what is assumed of it, before it has answered.
        error: Why it refuses, if it does.
        answered: Set as soon as that is known.
    """

    def __init__(self, store: Store, settings: Settings, *, required: bool) -> None:
        self.capabilities = ASSUMED
        self.error: StoreError | None = None
        self.answered = asyncio.Event()
        self._store = store
        self._settings = settings
        self._required = required
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_asking(self) -> bool:
        """Whether it has been asked, and has not answered yet."""
        return self._asking is not None and not self._asking.done()

    def begin(self, retrier: Retrier) -> asyncio.Task[None]:
        """Ask, with this retrier's waits, and return the task that does."""
        self._asking = asyncio.ensure_future(self._ask(retrier))
        return self._asking

    async def _ask(self, retrier: Retrier) -> None:
        patient = Retrier(replace(retrier.policy, deadline_seconds=None))
        try:
            self.capabilities = await probe(self._store, patient, secrets.token_hex(8))
        except StoreError as error:
            self.error = error
            if not self._required:  # or else it is raised
                logger.error("{}: {}", self._settings.location, error)
        finally:
            self.answered.set()
        for name, meaning in MISSING.items():
            if not getattr(self.capabilities, name):
                logger.warning("{} {}", self._settings.location, meaning)

    async def wait(self) -> None:
        """Wait for the answer when the recorder is opened, where the store is required.

        Raises:
            StoreError: The store refuses.
        """
        if not self._required or self._asking is None:
            return
        await asyncio.wait({self._asking}, timeout=self._settings.start_timeout_seconds)
        if self.error is not None:
            raise self.error
        if not self.answered.is_set():
            logger.warning("{} does not answer: recording into the spool", self._settings.location)

    async def certain(self) -> None:
        """Wait until it has answered: to take over by what is assumed is rash.

        Raises:
            TransientError: It does not answer.
        """
        try:
            async with asyncio.timeout(self._settings.retry_deadline_seconds):
                await self.answered.wait()
        except TimeoutError:
            problem = f"{self._settings.location} does not answer"
            raise TransientError(problem, op="probe", code="Timeout") from None

    async def known(self) -> Capabilities:
        """Return what the store can do; what is assumed of it, if it does not answer in time."""
        if not self._required:  # or else opening has waited already
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.start_timeout_seconds):
                    await self.answered.wait()
        return self.capabilities
