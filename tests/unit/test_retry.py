"""The retry layer, in virtual time: nothing here sleeps."""

from __future__ import annotations

import asyncio
import random as random_numbers
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
from loguru import logger

from uploader.errors import AccessDenied, ChecksumError, StoreError, TransientError
from uploader.retry import (
    MAX_RETRY_AFTER_SECONDS,
    AttemptFailed,
    Deadline,
    OpCounts,
    Retrier,
    RetryPolicy,
)

T = TypeVar("T")


class JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for time to pass, lets it have passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("waits for ever")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = JumpingSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def transient(**options: Any) -> TransientError:
    return TransientError("busy", op="put", code="SlowDown", **options)


def retrier(random: float = 1.0, **policy: Any) -> Retrier:
    return Retrier(RetryPolicy(**policy), monotonic=now, random=lambda: random)


class Server:
    """Answers with one outcome after the other, the last one for ever; notes when it was asked."""

    def __init__(self, *outcomes: object, seconds: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.seconds = seconds
        self.asked: list[float] = []
        self.under_way = 0

    async def __call__(self) -> object:
        self.asked.append(now())
        self.under_way += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @property
    def pauses(self) -> list[float]:
        """Seconds between the requests."""
        return [
            round(b - a - self.seconds, 6) for a, b in zip(self.asked, self.asked[1:], strict=False)
        ]


def test_the_first_success_is_returned() -> None:
    async def main() -> None:
        calls = retrier()
        server = Server(transient(), ChecksumError("bits", op="put"), "done")
        assert await calls.call("put", server) == "done"
        assert calls.counts == {"put": OpCounts(attempts=3, retries=2, failures=0)}

    run(main())


@pytest.mark.parametrize(
    "error",
    [AccessDenied("no", op="put"), StoreError("odd", op="put"), ValueError("a mistake of ours")],
)
def test_what_is_not_transient_is_not_retried(error: Exception) -> None:
    async def main() -> None:
        calls = retrier()
        server = Server(error)
        with pytest.raises(type(error)) as raised:
            await calls.call("put", server)
        assert raised.value is error
        assert len(server.asked) == 1
        assert calls.counts["put"].attempts == 1

    run(main())


def test_waits_double_up_to_the_longest() -> None:
    async def main() -> None:
        calls = retrier(base_seconds=1.0, max_wait_seconds=5.0, deadline_seconds=None, attempts=7)
        server = Server(transient())
        with pytest.raises(TransientError):
            await calls.call("put", server)
        assert server.pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]

    run(main())


@pytest.mark.parametrize(("random", "expected"), [(0.0, [0.0, 0.0]), (0.25, [0.25, 0.5])])
def test_jitter_is_full(random: float, expected: list[float]) -> None:
    async def main() -> None:
        calls = retrier(random, base_seconds=1.0, deadline_seconds=None, attempts=3)
        server = Server(transient())
        with pytest.raises(TransientError):
            await calls.call("put", server)
        assert server.pauses == expected

    run(main())


def test_the_default_jitter_differs_from_call_to_call() -> None:
    async def main() -> None:
        pauses = set()
        for _ in range(5):
            calls = Retrier(RetryPolicy(attempts=2, base_seconds=10.0), monotonic=now)
            server = Server(transient())
            with pytest.raises(TransientError):
                await calls.call("put", server)
            pauses.update(server.pauses)
        assert len(pauses) == 5
        assert all(0 <= pause <= 10 for pause in pauses)

    run(main())


def test_a_server_that_says_when_is_asked_then() -> None:
    async def main() -> None:
        calls = retrier(0.5, base_seconds=0.2, deadline_seconds=None)
        server = Server(transient(retry_after=7.0), "done")
        await calls.call("put", server)
        assert server.pauses == [7.1]

    run(main())


def test_a_server_that_says_never_is_asked_all_the_same() -> None:
    async def main() -> None:
        calls = retrier(0.0, deadline_seconds=None)
        server = Server(transient(retry_after=1e9), "done")
        await calls.call("put", server)
        assert server.pauses == [MAX_RETRY_AFTER_SECONDS]

    run(main())


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_attempts_are_limited(attempts: int) -> None:
    async def main() -> None:
        calls = retrier(attempts=attempts)
        server = Server(transient())
        with pytest.raises(TransientError):
            await calls.call("put", server)
        assert len(server.asked) == attempts
        assert calls.counts["put"] == OpCounts(attempts, attempts - 1, 1)

    run(main())


def test_the_last_error_is_raised_as_it_is() -> None:
    async def main() -> None:
        first, last = transient(), transient()
        with pytest.raises(TransientError) as raised:
            await retrier(attempts=2).call("put", Server(first, last))
        assert raised.value is last

    run(main())


@pytest.mark.parametrize("explicit", [False, True])
def test_the_deadline_ends_it(explicit: bool) -> None:
    async def main() -> None:
        started = now()
        calls = retrier(base_seconds=1.0, max_wait_seconds=8.0, deadline_seconds=30.0)
        server = Server(transient())
        deadline = Deadline(started + 30.0) if explicit else None
        told: list[AttemptFailed] = []
        with pytest.raises(TransientError):
            await calls.call("put", server, deadline=deadline, on_attempt_failed=told.append)
        waits = [one.wait_seconds for one in told]
        assert waits == [*(pytest.approx(pause) for pause in server.pauses), None]
        assert 29.0 <= now() - started <= 30.0
        # The time before the deadline is used, not slept through.
        assert 30.0 - (server.asked[-1] - started) <= 1.0

    run(main())


def test_no_deadline_is_no_end() -> None:
    async def main() -> None:
        started = now()
        calls = retrier(deadline_seconds=1.0)
        server = Server(*[transient()] * 500, "done")
        assert await calls.call("put", server, deadline=Deadline(None)) == "done"
        assert now() - started > 5000

    run(main())


def test_nothing_is_attempted_after_the_deadline() -> None:
    async def main() -> None:
        calls = retrier()
        server = Server("done")
        for late in (0.0, 10.0):
            with pytest.raises(TransientError, match="deadline"):
                await calls.call("put", server, deadline=Deadline(now() - late))
        assert server.asked == []
        assert calls.counts["put"] == OpCounts(attempts=0, retries=0, failures=2)
        assert await calls.call("put", server, deadline=Deadline(now() + 0.001)) == "done"

    run(main())


def test_a_deadline_moved_nearer_wakes_a_sleeper() -> None:
    async def main() -> None:
        calls = retrier(base_seconds=100.0, max_wait_seconds=1000.0)
        server = Server(transient())
        deadline = Deadline(None)
        started = now()
        asyncio.get_running_loop().call_later(50.0, lambda: deadline.move(started + 60.0))
        with pytest.raises(TransientError):
            await calls.call("put", server, deadline=deadline)
        assert 50.0 <= now() - started <= 60.0
        assert len(server.asked) == 2, "one more try before the deadline"

    run(main())


def test_a_deadline_moved_into_the_past_ends_a_sleep_at_once() -> None:
    async def main() -> None:
        calls = retrier(base_seconds=100.0, max_wait_seconds=1000.0)
        error = transient()
        server = Server(error)
        deadline = Deadline(None)
        started = now()
        asyncio.get_running_loop().call_later(50.0, lambda: deadline.move(started))
        with pytest.raises(TransientError) as raised:
            await calls.call("put", server, deadline=deadline)
        assert raised.value is error
        assert now() - started == pytest.approx(50.0)
        assert len(server.asked) == 1
        assert calls.counts["put"] == OpCounts(attempts=1, retries=0, failures=1)

    run(main())


def test_a_deadline_moved_further_away_lets_it_go_on() -> None:
    async def main() -> None:
        calls = retrier(base_seconds=1.0, max_wait_seconds=4.0)
        server = Server(*[transient()] * 20, "done")
        deadline = Deadline(now() + 10.0)
        asyncio.get_running_loop().call_later(5.0, lambda: deadline.move(None))
        assert await calls.call("put", server, deadline=deadline) == "done"

    run(main())


def test_all_calls_hear_of_a_moved_deadline() -> None:
    async def main() -> None:
        calls = retrier(base_seconds=100.0, max_wait_seconds=1000.0)
        deadline = Deadline(None)
        started = now()
        under_way = [
            asyncio.create_task(calls.call("put", Server(transient()), deadline=deadline))
            for _ in range(10)
        ]
        await asyncio.sleep(5)
        deadline.move(now() + 5)
        results = await asyncio.gather(*under_way, return_exceptions=True)
        assert all(isinstance(one, TransientError) for one in results)
        assert now() - started <= 10.0
        deadline.move(None)  # nobody listens any more

    run(main())


def test_an_attempt_that_takes_too_long_is_retried() -> None:
    async def main() -> None:
        async def hang_once() -> str:
            asked.append(now())
            if len(asked) == 1:
                await asyncio.sleep(1e6)
            return "done"

        asked: list[float] = []
        calls = retrier(0.0, attempt_timeout_seconds=120.0)
        failed: list[AttemptFailed] = []
        assert await calls.call("put", hang_once, on_attempt_failed=failed.append) == "done"
        assert asked[1] - asked[0] == pytest.approx(120.0)
        assert isinstance(failed[0].error, TransientError)
        assert failed[0].error.code == "Timeout"

    run(main())


def test_an_attempt_under_way_ends_at_the_deadline() -> None:
    async def main() -> None:
        server = Server("done", seconds=1e6)
        started = now()
        with pytest.raises(TransientError):
            await retrier().call("put", server, deadline=Deadline(started + 30.0))
        assert now() - started == pytest.approx(30.0)
        assert server.under_way == 0

    run(main())


@pytest.mark.parametrize("moved_to", [30.0, -5.0])
def test_an_attempt_under_way_hears_of_a_moved_deadline(moved_to: float) -> None:
    async def main() -> None:
        server = Server("done", seconds=1e6)
        deadline = Deadline(None)
        started = now()
        asyncio.get_running_loop().call_later(10.0, lambda: deadline.move(started + moved_to))
        with pytest.raises(TransientError):
            await retrier(attempt_timeout_seconds=100.0).call("put", server, deadline=deadline)
        assert now() - started == pytest.approx(max(10.0, moved_to))

    run(main())


def test_a_timeout_inside_the_request_is_not_ours() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await retrier().call("put", Server(TimeoutError("of somebody else")))

    run(main())


@pytest.mark.parametrize("cancel_after", [0.5, 3.0])
def test_a_cancel_passes_through(cancel_after: float) -> None:
    """In the middle of an attempt, and in the middle of a pause."""

    async def main() -> None:
        calls = retrier(base_seconds=10.0)
        server = Server(transient(), seconds=1.0)
        before = asyncio.all_tasks()
        task = asyncio.create_task(calls.call("put", server))
        await asyncio.sleep(cancel_after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(server.asked) == 1
        assert server.under_way == 0
        assert asyncio.all_tasks() == before

    run(main())


def test_every_failed_attempt_is_told() -> None:
    async def main() -> None:
        told: list[AttemptFailed] = []
        server = Server(transient())
        with pytest.raises(TransientError):
            await retrier(base_seconds=1.0, attempts=3).call(
                "upload_part", server, on_attempt_failed=told.append
            )
        assert [one.attempt for one in told] == [1, 2, 3]
        assert [one.wait_seconds for one in told] == [1.0, 2.0, None]
        assert {one.op for one in told} == {"upload_part"}
        assert {one.error.code for one in told} == {"SlowDown"}

    run(main())


def test_every_failed_attempt_is_logged() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {extra[recording]} {message}", level="INFO")
    try:
        error = AccessDenied("bucket {calls} is closed", op="put", code="AccessDenied")
        run(_logged(Server(transient(), "done"), Server(error)))
    finally:
        logger.remove(sink)
    assert [line.strip() for line in lines] == [
        "WARNING call-1 put attempt 1 failed: TransientError SlowDown: busy; again in 0.20 s",
        "INFO call-1 put succeeded at attempt 2",
        "INFO call-1 head attempt 1 failed: AccessDenied AccessDenied: "
        "bucket {calls} is closed; giving up",
    ]


async def _logged(put: Server, head: Server) -> None:
    calls, log = retrier(), logger.bind(recording="call-1")
    await calls.call("put", put, log=log)
    with pytest.raises(AccessDenied):
        await calls.call("head", head, log=log)


def test_a_sleep_of_ones_own() -> None:
    async def main() -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        policy = RetryPolicy(base_seconds=1.0, attempts=3)
        calls = Retrier(policy, sleep=sleep, monotonic=now, random=lambda: 0.5)
        with pytest.raises(TransientError):
            await calls.call("put", Server(transient()))
        assert slept == [0.5, 1.0]

    run(main())


def test_counts_are_kept_apart_by_operation() -> None:
    async def main() -> None:
        calls = retrier()
        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "put": Server("done"),
            "head": Server(transient(), "done"),
        }
        for op, fn in operations.items():
            await calls.call(op, fn)
        await calls.call("put", operations["put"])
        assert calls.counts["put"] == OpCounts(attempts=2, retries=0, failures=0)
        assert calls.counts["head"] == OpCounts(attempts=2, retries=1, failures=0)

    run(main())


def test_many_calls_do_not_come_back_at_the_same_moment_after_an_outage() -> None:
    """A thousand sessions whose requests have failed for ten minutes: they come back one by one."""
    arrivals: list[float] = []

    async def main() -> None:
        back = now() + 600
        generator = random_numbers.Random(3)
        retrier = Retrier(
            RetryPolicy(deadline_seconds=None), monotonic=now, random=generator.random
        )

        async def request() -> None:
            if now() < back:
                raise transient()
            arrivals.append(now() - back)

        await asyncio.gather(*(retrier.call("put", request) for _ in range(1000)))

    logger.disable("uploader")
    try:
        run(main())
    finally:
        logger.enable("uploader")
    assert max(arrivals) <= 20, "the longest wait is 20 s"
    busiest = max(Counter(int(arrival * 10) for arrival in arrivals).values())
    assert busiest < 50, "in a tenth of a second; without jitter it would be all"
