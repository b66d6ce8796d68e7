"""The one retry layer: what is transient is tried again, with full jitter, until a deadline.

Whether an error is transient is the error's own word (`StoreError.retryable`). Nothing runs past
the deadline: neither a pause, nor an attempt, nor a call begun after it. The deadline may move
while calls are under way; when a recording stops, "for as long as it takes" becomes "until then".
"""

from __future__ import annotations

import asyncio
import math
import random as random_numbers
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import tenacity
from loguru import logger

from uploader.errors import StoreError, TransientError

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")

MAX_RETRY_AFTER_SECONDS = 60.0
"""A server that asks for a longer wait is asked again after this."""


class OutOfTime(TransientError):
    """There was not enough time left for an attempt, or for any: something else took it."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, how long apart, and for how long.

    Attributes:
        base_seconds: Longest wait before the second attempt; doubled for each further one.
        max_wait_seconds: Longest wait of all. Each wait is a random part of the longest one: full
            jitter, so that many clients do not come back at the same moment.
        deadline_seconds: A call without a deadline of its own ends this long after its start.
        attempts: Most attempts, or None for as many as fit.
        attempt_timeout_seconds: A single attempt that takes longer has failed, and is retried.
    """

    base_seconds: float = 0.2
    max_wait_seconds: float = 20.0
    deadline_seconds: float | None = 300.0
    attempts: int | None = None
    attempt_timeout_seconds: float = 120.0


class Deadline:
    """A point in time that can be moved while others wait for it; for one event loop.

    Args:
        at: On the clock that the retrier has (`time.monotonic()`), seconds; None is never.
    """

    def __init__(self, at: float | None = None) -> None:
        self._at = at
        self._watchers: list[Callable[[], None]] = []

    @property
    def at(self) -> float | None:
        """The time, or None for never."""
        return self._at

    def move(self, at: float | None) -> None:
        """Set another time; all calls under way go by it from now on."""
        self._at = at
        for watcher in list(self._watchers):
            watcher()

    def left(self, now: float) -> float:
        """Return the seconds from `now` until then: infinity for never, negative if past."""
        return math.inf if self._at is None else self._at - now

    @contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Call `watcher` at each move, inside the block."""
        self._watchers.append(watcher)
        try:
            yield
        finally:
            self._watchers.remove(watcher)


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt that failed.

    Attributes:
        op: What was attempted.
        attempt: Its number, from 1.
        error: Why it failed.
        wait_seconds: How long until the next attempt; None if there is none.
    """

    op: str
    attempt: int
    error: StoreError
    wait_seconds: float | None


@dataclass(slots=True)
class OpCounts:
    """What became of an operation's calls.

    Attributes:
        attempts: Requests made.
        retries: Those that were not a call's first.
        failures: Calls that ended in an error.
    """

    attempts: int = 0
    retries: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Call:
    """A call under way."""

    op: str
    deadline: Deadline
    log: Logger
    on_attempt_failed: Callable[[AttemptFailed], None] | None
    counts: OpCounts
    attempt: int = 0
    told: int = 0
    error: StoreError | None = None

    def failed(self, error: StoreError, wait_seconds: float | None) -> None:
        """Tell everybody of an attempt that failed."""
        self.told = self.attempt
        self.error = error
        then = "giving up" if wait_seconds is None else f"again in {wait_seconds:.2f} s"
        # A refusal is for the caller to judge and report; it may be just what was asked for.
        self.log.log(
            "WARNING" if error.retryable else "INFO",
            "{op} attempt {attempt} failed: {kind} {code}: {error}; {then}",
            op=self.op,
            attempt=self.attempt,
            kind=type(error).__name__,
            code=error.code,
            error=str(error),
            then=then,
        )
        if self.on_attempt_failed is not None:
            self.on_attempt_failed(AttemptFailed(self.op, self.attempt, error, wait_seconds))


class Retrier:
    """Makes calls until they succeed, fail for good, or time is up; for one event loop.

    Args:
        policy: How.
        sleep: Waits, seconds.
        monotonic: The clock of deadlines, seconds.
        random: Returns a number in [0, 1), for the jitter.

    Attributes:
        counts: What became of the calls, by operation.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self.policy = policy
        self.counts: dict[str, OpCounts] = {}
        self._sleep = sleep
        self._monotonic = monotonic
        self._random = random
        self._longest_wait = tenacity.wait_exponential(
            multiplier=policy.base_seconds, max=policy.max_wait_seconds
        )

    async def call(
        self,
        op: str,
        fn: Callable[[], Awaitable[T]],
        *,
        deadline: Deadline | None = None,
        log: Logger = logger,
        on_attempt_failed: Callable[[AttemptFailed], None] | None = None,
    ) -> T:
        """Return what `fn` returns, as soon as it does.

        Args:
            op: What is attempted, for logs and counts.
            fn: Makes one request. It is called again after a retryable error, so that doing it
                twice must do no harm: an attempt that failed may have had its effect.
            deadline: When to give up; `RetryPolicy.deadline_seconds` from now if None.
            log: A logger bound to what the call is about.
            on_attempt_failed: Told of each attempt that failed; must not raise.

        Raises:
            StoreError: The last attempt's error: one that is not retryable, or the one that was
                there when attempts or time ran out.
            OutOfTime: The deadline has passed already, or passed during the last attempt.
        """
        if deadline is None:
            seconds = self.policy.deadline_seconds
            deadline = Deadline(None if seconds is None else self._monotonic() + seconds)
        counts = self.counts.setdefault(op, OpCounts())
        if deadline.left(self._monotonic()) <= 0:
            counts.failures += 1
            raise _too_late(op, "not attempted, the deadline has passed", OutOfTime)
        call = _Call(op, deadline, log, on_attempt_failed, counts)

        try:
            try:
                result = await self._attempt(call, fn)
            except StoreError as error:
                result = await self._go_on(call, fn, error)
        except StoreError as error:
            counts.failures += 1
            if call.told < call.attempt:
                call.failed(error, None)
            raise
        if call.attempt > 1:
            log.info("{op} succeeded at attempt {attempt}", op=op, attempt=call.attempt)
        return result

    async def _go_on(
        self, call: _Call, fn: Callable[[], Awaitable[T]], error: StoreError | None
    ) -> T:
        """Try again, if it is of use, after a first attempt that ended in `error`."""

        async def attempt() -> T:
            nonlocal error
            if (first := error) is not None:
                error = None
                raise first
            return await self._attempt(call, fn)

        def wait(state: tenacity.RetryCallState) -> float:
            return self._wait_seconds(state, call)

        def stop(state: tenacity.RetryCallState) -> bool:
            return self._is_last(state, call)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            call.failed(_error_of(state), state.upcoming_sleep)

        async def pause(seconds: float) -> None:
            await self._pause(seconds, call)

        retrying = tenacity.AsyncRetrying(
            sleep=pause,
            wait=wait,
            stop=stop,
            retry=tenacity.retry_if_exception(_is_retryable),
            before_sleep=before_sleep,
            reraise=True,
        )
        result: T = await retrying(attempt)
        return result

    async def _attempt(self, call: _Call, fn: Callable[[], Awaitable[T]]) -> T:
        """Make one request, for no longer than the policy and the deadline allow."""
        loop = asyncio.get_running_loop()
        started = self._monotonic()
        call.attempt += 1
        call.counts.attempts += 1
        call.counts.retries += call.attempt > 1
        call.log.debug("{op} attempt {attempt}", op=call.op, attempt=call.attempt)

        def seconds_left() -> float:
            now = self._monotonic()
            timeout = started + self.policy.attempt_timeout_seconds - now
            return max(0.0, min(timeout, call.deadline.left(now)))

        def replan() -> None:
            if not limit.expired():
                limit.reschedule(loop.time() + seconds_left())

        limit = asyncio.timeout(seconds_left())
        try:
            async with limit:
                with call.deadline.watched(replan):
                    return await fn()
        except TimeoutError as error:
            if not limit.expired():
                raise
            now = self._monotonic()
            kind = OutOfTime if call.deadline.left(now) <= 0 else TransientError
            raise _too_late(call.op, f"no answer within {now - started:.1f} s", kind) from error

    def _is_last(self, state: tenacity.RetryCallState, call: _Call) -> bool:
        attempts = self.policy.attempts
        if attempts is not None and state.attempt_number >= attempts:
            return True
        return call.deadline.left(self._monotonic()) <= self.policy.base_seconds

    def _wait_seconds(self, state: tenacity.RetryCallState, call: _Call) -> float:
        asked = _error_of(state).retry_after
        if asked is None:
            seconds = self._random() * self._longest_wait(state)
        else:
            jitter = self._random() * self.policy.base_seconds
            seconds = min(asked, MAX_RETRY_AFTER_SECONDS) + jitter
        # Rather an early attempt than none: of the time that is left, half is for waiting.
        return min(seconds, call.deadline.left(self._monotonic()) / 2)

    async def _pause(self, seconds: float, call: _Call) -> None:
        """Sleep; if the deadline comes near meanwhile, no longer than half the way to it."""
        until = self._monotonic() + seconds
        while True:
            now = self._monotonic()
            left = call.deadline.left(now)
            if left <= 0 and call.error is not None:
                raise call.error
            seconds = min(until - now, left / 2)
            if seconds <= 0:
                return
            until = now + seconds
            if not await self._sleep_unless_moved(seconds, call.deadline):
                return

    async def _sleep_unless_moved(self, seconds: float, deadline: Deadline) -> bool:
        """Sleep until the time is over or the deadline moves; return whether it was the latter."""
        moved = asyncio.Event()

        async def sleep() -> None:
            await self._sleep(seconds)

        with deadline.watched(moved.set):
            tasks = [asyncio.create_task(sleep()), asyncio.create_task(moved.wait())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return moved.is_set()


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, StoreError) and error.retryable


def _error_of(state: tenacity.RetryCallState) -> StoreError:
    """Return the error of an attempt that is about to be retried."""
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, StoreError):
        raise TypeError(f"only a store's errors are retried, not {error!r}")
    return error


def _too_late(op: str, problem: str, kind: type[TransientError]) -> TransientError:
    return kind(f"{op}: {problem}", op=op, code="Timeout")
