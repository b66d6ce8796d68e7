"""Recorded audio in blocks of one length, while a recording goes on and at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from loguru import logger

from recorder.engine import RecorderClosed
from recorder.session import Session

if TYPE_CHECKING:
    from recorder.chunk_reader import Planes

RESAMPLE_SECONDS = 0.7
"""How much input behind a sample its resampling can need, generously: it is not asked earlier."""

MIN_WAIT_SECONDS = 0.25
MAX_READ_SECONDS = 10.0


class AudioBlocks:
    """Reads a session's audio, when it is final, and hands it on; no faster than it is taken.

    Args:
        samples: Length of a block; 0 for one block with everything, at the end.
        hold_back_seconds: Of the session.
        deliver: Takes a block; the next is read when it returns.
        wanted: Whether anybody takes blocks; they are not read otherwise.
        failed: Told of what could not be read: that block is left out.

    Attributes:
        emitted: Samples handed on, or passed over because nobody took them.
    """

    def __init__(
        self,
        samples: int,
        hold_back_seconds: float,
        deliver: Callable[[Planes], Awaitable[None]],
        wanted: Callable[[], bool],
        failed: Callable[[Exception], None],
    ) -> None:
        self.emitted = 0
        self._samples = samples
        self._final_after = hold_back_seconds + RESAMPLE_SECONDS
        self._deliver = deliver
        self._wanted = wanted
        self._failed = failed
        self._failing = False

    async def run(self, session: Session, ended: asyncio.Event) -> None:
        """Hand on blocks until the session has ended, and what is left then."""
        self.hold(session)
        try:
            while self._samples and not ended.is_set():
                await self._wait(session, ended)
                if not ended.is_set():
                    await self._emit(session, self._whole_blocks(await self._settled(session)))
            await ended.wait()
            total = await session.sealed()
            if session.frames:
                await self._emit(session, total)
        finally:
            session.release(self)

    async def _settled(self, session: Session) -> int:
        """Return up to where audio is final, if it can be told: the next look tries again."""
        try:
            final = await session.settled()
        except RecorderClosed:
            raise
        except Exception as error:
            if not self._failing:
                self._report(session, "what is final cannot be told", error)
            self._failing = True
            return self.emitted
        self._failing = False
        return final

    async def _wait(self, session: Session, ended: asyncio.Event) -> None:
        rate = session.sample_rate
        due = (self.emitted + self._samples - session.position()) / rate + self._final_after
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(due, MIN_WAIT_SECONDS)):
                await ended.wait()

    def _whole_blocks(self, final: int) -> int:
        """Return the end of the last whole block before `final`."""
        return self.emitted + max(0, final - self.emitted) // self._samples * self._samples

    async def _emit(self, session: Session, end: int) -> None:
        """Hand on all up to `end`, in whole blocks but for the last."""
        size = self._samples or end
        at_once = max(1, int(MAX_READ_SECONDS * session.sample_rate) // max(1, size)) * size
        while self.emitted < end:
            until = min(end, self.emitted + at_once)
            planes = await self._read(session, until) if self._wanted() else None
            while planes is not None and self.emitted < until:
                length = min(size, until - self.emitted)
                first = self.emitted + planes.samples.shape[1] - until
                block = replace(planes, samples=planes.samples[:, first : first + length])
                await self._deliver(block)
                self.emitted += length
            self.emitted = until
            self.hold(session)

    async def _read(self, session: Session, until: int) -> Planes | None:
        try:
            return await session.read(self.emitted, until)
        except Exception as error:
            self._report(session, f"samples [{self.emitted}, {until}) cannot be read", error)
            return None

    def _report(self, session: Session, what: str, error: Exception) -> None:
        logger.bind(recording_id=session.recording_id).error("{}: {}", what, error)
        self._failed(error)

    def hold(self, session: Session) -> None:
        """Keep in the spool what is still to be handed on, if anybody takes it."""
        if self._wanted():
            session.hold(self, self.emitted)
        else:
            session.release(self)
