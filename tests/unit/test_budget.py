"""The bound on bytes in flight."""

from __future__ import annotations

import asyncio
import random

import pytest

from uploader.budget import ByteBudget


class Users:
    """Reserves in tasks of its own; notes who was admitted, in order."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.admitted: list[str] = []
        self._release: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, size: int) -> None:
        self._release[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._use(name, size))
        await settle()

    async def _use(self, name: str, size: int) -> None:
        async with self.budget.reserve(size):
            self.admitted.append(name)
            await self._release[name].wait()

    async def leave(self, name: str) -> None:
        self._release[name].set()
        await self._tasks[name]
        await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._tasks[name]
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("size", "admitted"), [(39, 2), (40, 2), (41, 1)])
async def test_the_limit(size: int, admitted: int) -> None:
    users = Users(ByteBudget(100))
    await users.ask("a", 60)
    await users.ask("b", size)
    assert len(users.admitted) == admitted
    assert users.budget.in_use == (60 + size if admitted == 2 else 60)
    assert users.budget.waiting == 2 - admitted
    await users.leave("a")
    await users.leave("b")
    assert (users.budget.in_use, users.budget.waiting) == (0, 0)


async def test_nobody_is_overtaken() -> None:
    users = Users(ByteBudget(100))
    await users.ask("a", 60)
    await users.ask("large", 80)
    await users.ask("small", 10)
    assert users.admitted == ["a"], "the small one would fit, but the large one was first"
    await users.leave("a")
    assert users.admitted == ["a", "large", "small"]
    await users.leave("large")
    await users.leave("small")


async def test_more_than_the_limit_is_admitted_alone() -> None:
    users = Users(ByteBudget(100))
    await users.ask("small", 1)
    await users.ask("huge", 1000)
    await users.ask("next", 1)
    assert users.admitted == ["small"]
    await users.leave("small")
    assert users.admitted == ["small", "huge"]
    assert users.budget.in_use == 1000
    await users.leave("huge")
    assert users.admitted[-1] == "next"
    await users.leave("next")
    assert users.budget.peak == 1000


async def test_several_are_admitted_at_once() -> None:
    users = Users(ByteBudget(100))
    await users.ask("a", 100)
    for name in "bcde":
        await users.ask(name, 30)
    assert users.budget.waiting == 4
    await users.leave("a")
    assert users.admitted == ["a", "b", "c", "d"]
    assert users.budget.in_use == 90
    for name in "bcd":
        await users.leave(name)
    await users.leave("e")
    assert users.budget.peak == 100


async def test_who_gives_up_waiting_makes_room_for_the_next() -> None:
    users = Users(ByteBudget(100))
    await users.ask("a", 60)
    await users.ask("large", 80)
    await users.ask("small", 10)
    await users.cancel("large")
    assert users.admitted == ["a", "small"]
    assert users.budget.in_use == 70
    await users.leave("a")
    await users.leave("small")
    assert users.budget.in_use == 0


async def test_who_is_cancelled_inside_gives_back() -> None:
    users = Users(ByteBudget(100))
    await users.ask("a", 100)
    await users.ask("b", 100)
    await users.cancel("a")
    assert users.admitted == ["a", "b"]
    await users.leave("b")
    assert users.budget.in_use == 0


async def test_an_error_inside_gives_back() -> None:
    budget = ByteBudget(10)
    with pytest.raises(ZeroDivisionError):
        async with budget.reserve(10):
            raise ZeroDivisionError
    assert budget.in_use == 0


async def test_cancelled_in_the_moment_of_admission() -> None:
    budget = ByteBudget(100)
    users = Users(budget)
    await users.ask("a", 100)
    waiting = asyncio.create_task(users._use("b", 100))
    await settle()
    users._release["b"] = asyncio.Event()
    users._release["a"].set()
    while budget.waiting:  # noqa: ASYNC110 - until b is admitted, but before b runs
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (budget.in_use, budget.waiting) == (0, 0)


async def test_cancelled_and_released_in_the_same_moment() -> None:
    users = Users(ByteBudget(100))
    await users.ask("a", 100)
    await users.ask("b", 100)
    await users.ask("c", 100)
    users._tasks["b"].cancel()
    await users.leave("a")
    assert users.admitted == ["a", "c"]
    await users.leave("c")
    assert (users.budget.in_use, users.budget.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_the_books_balance(seed: int) -> None:
    dice = random.Random(seed)
    budget = ByteBudget(100)
    seen: list[int] = []

    async def use(size: int, turns: int) -> None:
        async with budget.reserve(size):
            seen.append(budget.in_use)
            assert budget.in_use <= 100 or budget.in_use == size
            for _ in range(turns):
                await asyncio.sleep(0)

    tasks = []
    for _ in range(60):
        tasks.append(asyncio.create_task(use(dice.randrange(0, 130), dice.randrange(5))))
        if dice.random() < 0.3:
            dice.choice(tasks).cancel()
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (budget.in_use, budget.waiting) == (0, 0)
    assert budget.peak == max(seen)


async def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        ByteBudget(0)
    with pytest.raises(ValueError, match="-1 bytes"):
        async with ByteBudget(1).reserve(-1):
            pass
    async with ByteBudget(1).reserve(0):
        pass
