"""What goes on behind a session on the engine: sealing on time, delivery, and the end of both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from loguru import logger

from recorder.deliverable import as_told
from recorder.delivery import Delivery
from recorder.result import RecordingResult
from recorder.sealing import Sealing
from uploader.errors import BotRecorderError
from uploader.retry import Deadline

if TYPE_CHECKING:
    from recorder.chunk_reader import Planes
    from recorder.engine import Engine
    from recorder.records import Record
    from recorder.sealer import Sealer
    from recorder.session import Session
    from recorder.settings import Settings
    from recorder.spool import Spool

SEAL_AGAIN_SECONDS = 1.0
"""How long sealing waits for room in the spool before it looks again."""


class SessionBackstage:
    """One session's share of the engine.

    Args:
        settings: Of the process.
        engine: Runs it.
        spool: The recording's folder.
        sealer: Its sealer.
        delivery: Its delivery.
        deadline: Of its requests; none while it records.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        spool: Spool,
        sealer: Sealer,
        delivery: Delivery,
        deadline: Deadline,
    ) -> None:
        self.delivery = delivery
        self._sealing = Sealing(sealer, delivery, engine)
        self._settings = settings
        self._engine = engine
        self._spool = spool
        self._sealer = sealer
        self._deadline = deadline
        self._session: Session | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy = False
        self._quiet_until = 0.0
        self._all_sealed = asyncio.Event()
        self._hurried = asyncio.Event()
        self._said = ""
        self._log = logger.bind(recording_id=delivery.plan.recording_id)

    # -- called on the engine's loop -----------------------------------------------------------

    def begin(self, session: Session) -> None:
        """Start delivering."""
        self._session = session
        self._spawn(self.delivery.run())

    def tick(self, now: float) -> float | None:
        """Look, some times a second, whether there is something to do; never waits.

        Returns:
            For how many seconds sealing has been due, or 0 for what is less urgent: `go_on` does
            it. None if nothing is.
        """
        session = self._session
        if session is None or session.ended or self._busy:
            return None
        if session.needs_preparing:
            self._spawn(self._engine.in_thread(session.prepare))
        seconds = now - session.zero
        if seconds < self._quiet_until:
            return None
        due, open_chunk = self._next_seal(), self.delivery.open_chunk
        if seconds >= due:
            return seconds - due
        if open_chunk.due(seconds):
            return 0.0
        self._quiet_until = min(due, open_chunk.next_look())
        return None

    def go_on(self, now: float) -> None:
        """Begin what `tick` has just found due."""
        session = self._session
        if session is None or session.ended or self._busy:
            return
        if now - session.zero >= self._next_seal():
            self._busy = True
            self._spawn(self._seal_due())
        elif self.delivery.open_chunk.due(now - session.zero):
            self._spawn(self._send_open_chunk(session))

    @property
    def alive(self) -> bool:
        """Whether anything is still to be done for the session."""
        return not self.delivery.ended.is_set()

    def end_session(self) -> None:
        """End the session if its user has not."""
        if self._session is not None:
            self._session.end()

    async def close(self, seconds: float) -> None:
        """Wait for the end, at most so long; then stop where it is: the spool keeps the rest."""
        waiting = [
            asyncio.ensure_future(one.wait()) for one in (self.delivery.ended, self._hurried)
        ]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        if not self.delivery.ended.is_set():
            self._log.warning("not finished in time; the rest is kept in {}", self._spool.path)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sealing.close(self._release)

    def hurry(self) -> None:
        """Have `close` wait no longer."""
        self._hurried.set()

    def _next_seal(self) -> float:
        plan = self.delivery.plan
        end = self._sealer.sealed_samples + plan.chunk_samples
        return end / plan.sample_rate + self._settings.hold_back_seconds

    async def _seal_due(self) -> None:
        try:
            if self._session is not None:
                await self._sealing.seal(self._session.now_ns())
        except Exception as error:  # whatever it is, the next look is another try
            self._say(as_told(error))
        finally:
            self._busy = False

    async def _send_open_chunk(self, session: Session) -> None:
        await self.delivery.open_chunk.send(
            lambda samples: self._sealing.open_chunk(session.now_ns(), samples)
        )

    async def _seal_rest(self, rest: list[tuple[Record, object]]) -> None:
        until = time.monotonic() + self._settings.retry_deadline_seconds
        self._deadline.move(until)
        session = self._session
        try:
            while session is not None:
                try:
                    await self._sealing.seal(session.now_ns(), final=True, rest=rest)
                    break
                except Exception as error:  # whatever it is, nothing is complete without the rest
                    rest = []
                    self.delivery.seal_error = as_told(error)
                    self._say(self.delivery.seal_error)
                    if time.monotonic() > until:
                        break
                    await asyncio.sleep(SEAL_AGAIN_SECONDS)
        finally:
            self._all_sealed.set()
            self.delivery.stop()

    def _say(self, error: BotRecorderError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            self._log.error("sealing waits: {}", error)

    def _release(self) -> None:
        self._sealer.close()
        self._spool.release()

    def _spawn(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.opt(exception=error).error("recording work failed: {}", error)

    # -- called by the session -------------------------------------------------------------------

    def end(self, rest: list[tuple[Record, object]]) -> None:
        """Finish in the background."""
        self._engine.wake(lambda: self._spawn(self._seal_rest(rest)))

    def result(self) -> RecordingResult:
        """Return the result so far."""
        return self.delivery.unfinished()

    async def finish(self, wait_seconds: float | None) -> RecordingResult:
        """Wait for the result; after `wait_seconds` it is `pending`."""
        seconds = self._settings.drain_seconds if wait_seconds is None else wait_seconds

        async def wait() -> RecordingResult:
            try:
                async with asyncio.timeout(seconds):
                    await self.delivery.finished.wait()
            except TimeoutError:
                self._log.warning("not finished after {} s; going on in the background", seconds)
            return self.delivery.unfinished()

        return await self._engine.run(wait())

    async def flush(self) -> None:
        """Seal what is due and wait for its delivery; then for the open chunk's first half."""

        async def seal_and_settle() -> None:
            session, open_chunk = self._session, self.delivery.open_chunk
            recording = session is not None and not session.ended
            if session is not None and recording:
                await self._sealing.seal(session.now_ns())
            await self.delivery.settled()
            await open_chunk.idle.wait()
            if session is not None and recording and open_chunk.due():
                await self._send_open_chunk(session)

        await self._engine.run(seal_and_settle())

    async def sealed(self) -> int:
        """Wait until all is sealed; return the length in samples."""
        await self._engine.run(self._wait_sealed())
        return self._sealer.sealed_samples

    async def _wait_sealed(self) -> None:
        await self._all_sealed.wait()

    async def read(self, start: int, end: int) -> Planes:
        """Return samples."""
        now_ns = 0 if self._session is None else self._session.now_ns()
        return await self._engine.run(self._sealing.read(start, end, now_ns))

    async def settled(self) -> int:
        """Return up to which sample nothing changes any more."""
        now_ns = 0 if self._session is None else self._session.now_ns()
        return await self._engine.run(self._sealing.settled(now_ns))

    def hold(self, holder: object, position: int) -> None:
        """Keep samples in the spool."""
        self.delivery.holds[holder] = position

    def release(self, holder: object) -> None:
        """Let them go."""
        self.delivery.holds.pop(holder, None)  # at once: a hold may follow
        self._engine.wake(self.delivery.released)
