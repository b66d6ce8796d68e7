"""The timer of all sessions: what is due together is spread, and nobody is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from recorder.ticker import LEAST_AT_ONCE, TICK_SECONDS, Ticker

CHUNK = 10.0


class Session:
    """Seals for the first time when a chunk has passed, and then after each."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.sealed: list[float] = []
        self.alive = True
        self.closed = False

    def tick(self, now: float) -> float | None:
        return now - self.due if now >= self.due else None

    def go_on(self, now: float) -> None:
        self.sealed.append(now)
        self.due += CHUNK

    async def close(self, seconds: float) -> None:
        self.closed = True


class Broken(Session):
    """Fails at each look."""

    def tick(self, now: float) -> float | None:
        raise RuntimeError("broken")


class Clock:
    """Virtual time in which a ticker looks."""

    def __init__(self, sessions: list[Any]) -> None:
        self.now = 0.0
        self.left = set(sessions)
        self.ticker = Ticker(self.left, lambda: self.now, CHUNK)

    async def until(self, end: float, note: Callable[[], None] = lambda: None) -> None:
        while self.now < end:
            await self.ticker.look()
            note()
            self.now += TICK_SECONDS


@pytest.mark.parametrize("count", [1, LEAST_AT_ONCE, 100, 1000])
async def test_calls_that_began_together_seal_one_after_the_other(count: int) -> None:
    sessions = [Session(CHUNK) for _ in range(count)]
    clock = Clock(sessions)
    at_once = []
    done = 0

    def note() -> None:
        nonlocal done
        now = sum(len(one.sealed) for one in sessions)
        at_once.append(now - done)
        done = now

    await clock.until(5 * CHUNK, note)
    assert max(at_once) == max(min(count, LEAST_AT_ONCE), count // 25)
    assert all(len(one.sealed) == 4 for one in sessions)
    for round_ in range(4):
        late = [one.sealed[round_] - (round_ + 1) * CHUNK for one in sessions]
        assert max(late) <= CHUNK / 4 + TICK_SECONDS


async def test_what_has_waited_longest_comes_first() -> None:
    sessions = [Session(number / 1000) for number in range(3 * LEAST_AT_ONCE)]
    clock = Clock(sessions[::-1])
    clock.now = 5.0
    await clock.ticker.look()
    assert [bool(one.sealed) for one in sessions] == [True] * LEAST_AT_ONCE + [False] * 8


async def test_a_broken_session_stops_no_other() -> None:
    sessions = [Broken(0), Session(1), Broken(0), Session(1)]
    await Clock(sessions).until(2)
    assert [len(one.sealed) for one in sessions] == [0, 1, 0, 1]


async def test_what_has_ended_is_closed_and_looked_at_no_more() -> None:
    session = Session(100)
    clock = Clock([session])
    await clock.until(1)
    assert not session.closed
    session.alive = False
    await clock.until(2)
    assert session.closed
    assert not clock.left
