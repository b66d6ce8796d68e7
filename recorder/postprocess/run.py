"""Does with one recording what is still to be done, and notes it: one function, run three ways."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import aiohttp
from loguru import logger

from recorder.catalog import Document
from recorder.names import MAX_TAGS
from recorder.postprocess import plan
from recorder.postprocess.record import Claimed, RecordFile
from recorder.postprocess.steps.base import Job, Step
from recorder.postprocess.steps.registry import STEPS
from recorder.postprocess.subject import Place, Subject
from recorder.settings import Settings
from recorder.stores import make_store
from uploader.errors import BotRecorderError, NoSuchObject, StoreError
from uploader.manifest import parse
from uploader.retry import Retrier, RetryPolicy
from uploader.store import Store

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")

RELEASE_SECONDS = 5.0
"""How long a process that is told to end tries to give up a claim, which else runs out."""

NOT_COMPLETE_SECONDS = 30.0
"""When to look again at a recording that is not complete."""


class Verdict(StrEnum):
    """What came of a recording."""

    DONE = "done"
    UNCHANGED = "unchanged"  # all was done before
    NOT_COMPLETE = "not complete"  # the recording itself: its time has not come yet
    CLAIMED = "claimed"  # by another process
    PUT_OFF = "put off"  # a step, for a reason that passes
    FAILED = "failed"  # a step, until somebody does something
    GONE = "gone"  # the recording: deleted since


SETTLED = frozenset({Verdict.DONE, Verdict.UNCHANGED, Verdict.GONE})


@dataclass(frozen=True, slots=True)
class Processed:
    """What came of one recording.

    Attributes:
        place: Where it is.
        verdict: All in all.
        steps: What came of each step that was tried.
        reason: Why it is not done; empty if it is.
        wait_seconds: When to try again at the earliest; None if nobody knows.
    """

    place: Place
    verdict: Verdict
    steps: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    wait_seconds: float | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to do."""
        return self.verdict in SETTLED

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        listed = asdict(self)
        where = listed.pop("place")
        return {**where, **listed, "verdict": str(self.verdict)}


class Processor:
    """Works on recordings; an async context manager, shared by many at a time.

    Args:
        settings: Which steps, and how.
        store: Where recordings are, instead of the settings' bucket; opened and closed here.
        steps: Names of steps, instead of the settings'.
        now: The wall clock, for claims.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None = None,
        steps: Sequence[str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self.store = store or make_store(settings)
        names = settings.postprocess_steps if steps is None else steps
        self.steps = [STEPS[name] for name in STEPS if name in names]
        self._now = now
        self._stack = contextlib.AsyncExitStack()
        self._http: aiohttp.ClientSession | None = None
        self._locks: dict[Place, tuple[asyncio.Lock, int]] = {}
        self._retrier = Retrier(
            RetryPolicy(
                base_seconds=settings.retry_base_seconds,
                max_wait_seconds=settings.retry_max_wait_seconds,
                deadline_seconds=settings.retry_deadline_seconds,
                attempt_timeout_seconds=settings.attempt_timeout_seconds,
            )
        )

    async def __aenter__(self) -> Self:
        """Open store and client."""
        await self._stack.enter_async_context(self.store)
        jar = aiohttp.DummyCookieJar()  # nothing of one recording goes with the next one
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close them."""
        await self._stack.aclose()

    async def process(
        self,
        place: Place,
        *,
        again: bool = False,
        owner: str | None = None,
        key: str | None = None,
    ) -> Processed:
        """Do what is to be done with one recording; whatever is wrong with it is in the answer.

        Args:
            place: Where it is.
            again: Do all steps, done or not.
            owner: Token of the claim: whoever has the same takes it over at once. Random if None.
            key: The object that was written, if this is for an event about it: one that is
                neither the manifest nor an output is none of this program's business.
        """
        log = logger.bind(recording_id=place.recording_id)
        try:
            async with self._alone(place):
                done = await self._process(place, again, owner or secrets.token_hex(8), key, log)
        except NoSuchObject as error:
            done = Processed(place, Verdict.GONE, reason=str(error))
        except Claimed as error:
            done = Processed(
                place, Verdict.CLAIMED, reason=str(error), wait_seconds=max(1.0, error.seconds)
            )
        except StoreError as error:
            verdict = Verdict.PUT_OFF if error.retryable else Verdict.FAILED
            done = Processed(place, verdict, reason=str(error), wait_seconds=error.retry_after)
        except BotRecorderError as error:
            done = Processed(place, Verdict.FAILED, reason=str(error))
        # Whoever asked is told, and tells people.
        log.info("{}: {} {}", place.recording_id, done.verdict, done.reason or done.steps)
        return done

    @contextlib.asynccontextmanager
    async def _alone(self, place: Place) -> AsyncIterator[None]:
        """Wait until nobody else in this process works on the recording.

        Its manifest and its outputs are written at nearly the same time, and told by an event each.
        """
        lock, waiting = self._locks.get(place, (asyncio.Lock(), 0))
        self._locks[place] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            _, waiting = self._locks.pop(place)
            if waiting > 1:
                self._locks[place] = lock, waiting - 1

    async def _process(
        self, place: Place, again: bool, owner: str, key: str | None, log: Logger
    ) -> Processed:
        async def call(op: str, request: Callable[[], Awaitable[T]]) -> T:
            return await self._retrier.call(op, request, log=log)

        manifest_key = place.manifest_key
        body, _ = await call("get_manifest", lambda: self.store.read(manifest_key))
        subject = Subject(place, Document(parse(body, manifest_key)))
        if key not in (None, manifest_key) and key not in subject.output_keys:
            return Processed(place, Verdict.UNCHANGED, reason=f"{key} is no output of it")
        if subject.missing:
            return Processed(
                place,
                Verdict.NOT_COMPLETE,
                reason=subject.missing,
                wait_seconds=NOT_COMPLETE_SECONDS,
            )
        record = RecordFile(
            self.store,
            call,
            place.record_key,
            recording_id=place.recording_id,
            owner=owner,
            conditional=subject.manifest.values.get("conditional_writes") is not False,
            tags=self._tags(subject),
            now=self._now,
        )
        await record.load()
        content = subject.content
        steps = plan.todo(self.steps, record.steps, content, self.settings, again=again)
        if not steps:
            return Processed(place, Verdict.UNCHANGED)
        try:
            await record.claim(self.settings.postprocess_claim_seconds)
            return await self._claimed(record, self._steps(subject, steps, record, log))
        finally:
            # Given up already, if all went well.
            with contextlib.suppress(BotRecorderError, TimeoutError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await record.release()

    def _tags(self, subject: Subject) -> dict[str, str]:
        """Return the tags of the record: it is written after step `tags` has been done."""
        tags = subject.manifest.pairs("tags")
        if any(step.name == "tags" for step in self.steps):
            tags |= self.settings.postprocess_tags
        return tags if len(tags) <= MAX_TAGS else {}

    async def _claimed(self, record: RecordFile, work: Coroutine[Any, Any, T]) -> T:
        """Do some work while the claim is kept alive; without the claim, it ends."""
        seconds = self.settings.postprocess_claim_seconds

        async def keep() -> None:
            while True:
                await asyncio.sleep(seconds / 3)
                await record.renew(seconds)

        keeping, working = asyncio.ensure_future(keep()), asyncio.ensure_future(work)
        try:
            await asyncio.wait({keeping, working}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                keeping.result()  # raises why the claim is gone
            return await working
        finally:
            for task in (keeping, working):
                task.cancel()
            await asyncio.gather(keeping, working, return_exceptions=True)

    async def _steps(
        self, subject: Subject, steps: Sequence[Step], record: RecordFile, log: Logger
    ) -> Processed:
        states: dict[str, str] = {}
        reasons: list[str] = []
        waits: list[float] = []
        for number, step in enumerate(steps):
            if step.last and plan.PUT_OFF in states.values():
                continue
            entry, wait = await self._step(subject, step, record, log)
            states[step.name] = entry["state"]
            if entry["state"] != plan.DONE:
                reasons.append(f"{step.name}: {entry['reason']}")
            if wait is not None:
                waits.append(wait)
            over = number == len(steps) - 1
            seconds = None if over else self.settings.postprocess_claim_seconds
            await record.note(step.name, entry, seconds=seconds)
        if plan.PUT_OFF in states.values():
            verdict = Verdict.PUT_OFF
        else:
            verdict = Verdict.FAILED if plan.FAILED in states.values() else Verdict.DONE
        return Processed(
            subject.place, verdict, states, "; ".join(reasons), max(waits, default=None)
        )

    async def _step(
        self, subject: Subject, step: Step, record: RecordFile, log: Logger
    ) -> tuple[dict[str, Any], float | None]:
        """Do a step; return what is noted of it, and when to try again."""
        if self._http is None:
            raise RuntimeError("the processor is not open: use it inside `async with`")
        entry: dict[str, Any] = {
            "state": plan.DONE,
            "content": subject.content,
            "parameters": step.parameters(self.settings),
        }
        told = plan.of_content(record.steps, subject.content)
        job = Job(subject, self.store, self.settings, self._retrier, self._http, log, told)
        try:
            return {**entry, "result": await step.run(job)}, None
        except StoreError as error:
            state = plan.PUT_OFF if error.retryable else plan.FAILED
            return {**entry, "state": state, "reason": str(error)}, error.retry_after
        except BotRecorderError as error:
            return {**entry, "state": plan.FAILED, "reason": str(error)}, None
        except Exception as error:  # a defect: of this recording's only, and not silent
            log.exception("{}: step {} has a defect", subject.place.recording_id, step.name)
            return {**entry, "state": plan.FAILED, "reason": f"a defect: {error!r}"}, None
