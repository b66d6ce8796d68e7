"""The engine: a thread of its own, whose work ends before what it used is let go of."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from recorder.engine import Engine, RecorderClosed


def test_threads_take_turns_quickly_while_there_is_an_engine() -> None:
    before = sys.getswitchinterval()
    first, second = Engine(), Engine()
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    first.close()
    first.close()
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    second.close()
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("own", [0.0001, 0.002])
def test_a_program_that_sets_the_interval_itself_is_left_alone(own: float) -> None:
    before = sys.getswitchinterval()
    try:
        engine = Engine()
        sys.setswitchinterval(own)
        engine.close()
        assert sys.getswitchinterval() == pytest.approx(own)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_caller_waits_until_its_thread_has_ended(times: int) -> None:
    engine = Engine()
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        go_on.wait()
        order.append("the thread ended")

    async def caller() -> None:
        try:
            await engine.in_thread(work)
        finally:
            order.append("the caller went on")

    async def scenario() -> None:
        task = asyncio.ensure_future(caller())
        await engine.in_thread(begun.wait)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        order.append("cancelled")
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    await engine.run(scenario())
    await asyncio.to_thread(engine.close)
    assert order == ["cancelled", "the thread ended", "the caller went on"]


async def test_what_is_asked_of_a_closed_engine_is_an_error_that_says_so() -> None:
    engine = Engine()
    await asyncio.to_thread(engine.close)
    engine.close()
    with pytest.raises(RecorderClosed):
        await engine.run(asyncio.sleep(0))
