"""A worker on a queue made here, and on recordings that take as long as they are told to."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from complete import settings_for

from recorder.postprocess import Processed, Processor, Verdict
from recorder.postprocess import queue_worker as worker_module
from recorder.postprocess.queue_worker import HIDE_SECONDS, MAX_PAUSE_SECONDS, Worker, pause_seconds
from recorder.postprocess.sqs import Message
from recorder.postprocess.subject import Place
from uploader.errors import AccessDenied, TransientError
from uploader.local import LocalStore
from uploader.retry import Retrier, RetryPolicy


def body(name: str, file: str = "manifest.json") -> str:
    s3 = {"bucket": {"name": ""}, "object": {"key": f"dt%3D2026-11-23/{name}/{file}"}}
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3}
    return json.dumps({"Records": [record]})


class FakeQueue:
    """Gives messages, and remembers what became of them."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.arrived = asyncio.Event()
        self.deleted: list[str] = []
        self.hidden: list[tuple[str, float]] = []
        self.asked: list[int] = []
        self.errors: list[Exception] = []

    def send(self, *bodies: str, receives: int = 1) -> None:
        for text in bodies:
            name = str(len(self.asked) * 1000 + len(self.waiting))
            self.waiting.append(Message(name, f"receipt-{name}", text, receives))
        self.arrived.set()

    async def receive(self, count: int, *, wait: float, hide: float) -> list[Message]:
        assert (wait, hide) == (worker_module.POLL_SECONDS, HIDE_SECONDS)
        self.asked.append(count)
        if self.errors:
            raise self.errors.pop(0)
        while not self.waiting:
            self.arrived.clear()
            try:
                async with asyncio.timeout(wait):
                    await self.arrived.wait()
            except TimeoutError:
                return []
        found, self.waiting = self.waiting[:count], self.waiting[count:]
        return found

    async def delete(self, message: Message) -> None:
        self.deleted.append(message.body)

    async def hide(self, message: Message, seconds: float) -> None:
        self.hidden.append((message.body, seconds))


class Slow(Processor):
    """Takes until it is let go; what comes of a recording is said by its name."""

    def __init__(self, folder: Path, concurrency: int) -> None:
        settings = settings_for(folder, postprocess_concurrency=concurrency)
        super().__init__(settings, store=LocalStore(folder / "bucket"))
        self.begun: Counter[str] = Counter()
        self.changed = asyncio.Condition()
        self.at_once = self.most_at_once = 0
        self.go = asyncio.Event()

    async def process(self, place: Place, **_: Any) -> Processed:  # type: ignore[override]
        self.begun[place.recording_id] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self._tell()
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
            await self._tell()
        if place.recording_id == "defect":
            raise ZeroDivisionError
        verdict = Verdict(place.recording_id.split(".")[0].replace("-", " "))
        wait = 77.0 if verdict is Verdict.CLAIMED else None
        return Processed(place, verdict, wait_seconds=wait)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)


class Sleeper:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.asleep: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self.asleep.append((seconds, over))
        await over.wait()

    async def pass_time(self) -> None:
        asleep, self.asleep = self.asleep, []
        for _, over in asleep:
            over.set()
        for _ in range(20):
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def processor(tmp_path: Path) -> AsyncIterator[Slow]:
    async with Slow(tmp_path, 3) as opened:
        yield opened


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 0.1)
    return FakeQueue()


def quick() -> Retrier:
    return Retrier(RetryPolicy(base_seconds=0.001, max_wait_seconds=0.002, deadline_seconds=5))


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - whatever it is that the worker does
            await asyncio.sleep(0.001)


async def test_no_more_are_taken_than_there_are_slots(processor: Slow, queue: FakeQueue) -> None:
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    queue.send(*(body(f"done.{number}") for number in range(8)))
    await processor.until(lambda: processor.at_once == 3)
    assert queue.asked == [3]
    processor.go.set()
    await settle(lambda: worker.counts["done"] == 8)
    worker.stop()
    await running
    assert len(queue.deleted) == 8
    assert processor.most_at_once == 3
    assert all(1 <= count <= 3 for count in queue.asked)


async def test_what_is_done_is_deleted_and_the_rest_comes_again_later(
    processor: Slow, queue: FakeQueue
) -> None:
    processor.go.set()
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    names = ["done", "unchanged", "gone", "failed", "put-off", "claimed", "defect", "not-complete"]
    queue.send(*(body(name, "audio.wav") for name in names), receives=2)
    queue.send("no json", '{"Records": [{"eventSource": "aws:sqs"}]}')
    await settle(lambda: sum(worker.counts.values()) == 10)
    worker.stop()
    await running
    expected = {body(name, "audio.wav") for name in ("done", "unchanged", "gone")}
    assert set(queue.deleted) == expected
    assert dict(queue.hidden) == {
        body("failed", "audio.wav"): 60,
        body("put-off", "audio.wav"): 60,
        body("claimed", "audio.wav"): 77,
        body("not-complete", "audio.wav"): 60,
    }
    assert worker.counts == {"done": 3, "again": 5, "unreadable": 2}


async def test_an_early_event_of_a_manifest_has_nothing_to_do(
    processor: Slow, queue: FakeQueue
) -> None:
    processor.go.set()
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    queue.send(body("not-complete"))
    await settle(lambda: worker.counts["done"] == 1)
    worker.stop()
    await running
    assert queue.deleted == [body("not-complete")]


async def test_messages_stay_hidden_while_work_takes_longer(
    processor: Slow, queue: FakeQueue
) -> None:
    time = Sleeper()
    worker = Worker(queue, processor, retrier=quick(), sleep=time.sleep)
    running = asyncio.create_task(worker.run())
    queue.send(body("done.1"))
    await processor.until(lambda: processor.at_once == 1)
    for times in range(1, 4):
        await settle(lambda: bool(time.asleep))
        assert [seconds for seconds, _ in time.asleep] == [HIDE_SECONDS / 3]
        await time.pass_time()
        await settle(lambda: len(queue.hidden) == times)  # noqa: B023 - waited for in the loop
    assert queue.hidden == [(body("done.1"), HIDE_SECONDS)] * 3
    processor.go.set()
    await settle(lambda: worker.counts["done"] == 1)
    worker.stop()
    await running
    assert len(queue.hidden) == 3


async def test_a_stop_ends_with_what_is_in_hand(processor: Slow, queue: FakeQueue) -> None:
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    queue.send(*(body(f"done.{number}") for number in range(6)))
    await processor.until(lambda: processor.at_once == 3)
    worker.stop()
    await asyncio.sleep(0.01)
    assert not running.done()
    processor.go.set()
    await running
    assert len(queue.deleted) == 3
    assert len(queue.waiting) == 3


async def test_what_a_poll_still_brings_after_a_stop_is_given_back(
    processor: Slow, queue: FakeQueue
) -> None:
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    await settle(lambda: len(queue.asked) == 1)
    worker.stop()
    await asyncio.sleep(0)
    queue.send(body("done.1"))
    await asyncio.wait_for(running, 5)
    assert queue.hidden == [(body("done.1"), 0)]
    assert processor.begun == {}
    assert worker.counts == {"given back": 1}


async def test_a_queue_that_is_away_holds_no_stop_up(
    processor: Slow, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SPARE_SECONDS", 0.01)
    queue.errors = [TransientError("away", op="receive") for _ in range(10_000)]
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    await settle(lambda: len(queue.asked) > 3)
    worker.stop()
    await asyncio.wait_for(running, 5)


async def test_what_takes_too_long_at_the_end_is_given_back(
    processor: Slow, queue: FakeQueue
) -> None:
    worker = Worker(queue, processor, retrier=quick(), drain_seconds=0.01)
    running = asyncio.create_task(worker.run())
    queue.send(body("done.1"), body("done.2"))
    await processor.until(lambda: processor.at_once == 2)
    worker.stop()
    await asyncio.wait_for(running, 5)
    assert sorted(queue.hidden) == [(body("done.1"), 0), (body("done.2"), 0)]
    assert queue.deleted == []
    assert worker.counts == {"given back": 2}


async def test_a_queue_that_is_away_is_waited_for_and_a_refusal_ends(
    processor: Slow, queue: FakeQueue
) -> None:
    processor.go.set()
    queue.errors = [TransientError("away", op="receive") for _ in range(5)]
    worker = Worker(queue, processor, retrier=quick())
    running = asyncio.create_task(worker.run())
    queue.send(body("done.1"))
    await settle(lambda: worker.counts["done"] == 1)
    queue.errors = [AccessDenied("no", op="receive")]
    queue.send(body("done.2"))
    with pytest.raises(AccessDenied):
        await asyncio.wait_for(running, 5)


def test_pauses_grow_and_have_an_end() -> None:
    pauses = [pause_seconds(receives) for receives in (1, 2, 3, 4, 5, 6, 7, 1000)]
    assert pauses == [30, 60, 120, 240, 480, MAX_PAUSE_SECONDS, 900, 900]
