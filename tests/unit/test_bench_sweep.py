"""How the largest fleet is found, and requests that wait for one another are counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.sweep import CLOSE, largest
from bench.trial import Figures, TrialFailed
from rounds import RoundsStore

from uploader.local import LocalStore


def fleets(limit: int, sizes: list[int]) -> Any:
    async def fleet(count: int) -> Figures:
        sizes.append(count)
        return {"sessions": count, "late": count > limit}

    return fleet


@pytest.mark.parametrize("limit", [25, 26, 49, 50, 99, 333, 799])
async def test_the_largest_that_keeps_up_is_found_closely(limit: int) -> None:
    sizes: list[int] = []
    found = await largest(fleets(limit, sizes), lambda one: not one["late"], most=800)
    assert found.largest <= limit < found.largest * CLOSE + 1
    assert not found.at_most
    assert [one["sessions"] for one in found.tried] == sizes


async def test_none_may_keep_up() -> None:
    sizes: list[int] = []
    assert (await largest(fleets(0, sizes), lambda one: not one["late"])).largest == 0
    assert sizes == [25, 25]  # one more try


async def test_all_may_keep_up() -> None:
    found = await largest(fleets(10_000, []), lambda one: not one["late"], most=100)
    assert (found.largest, found.at_most) == (100, True)


async def test_a_fleet_that_breaks_does_not_keep_up() -> None:
    async def fleet(count: int) -> Figures:
        if count > 25:
            raise TrialFailed("out of memory")
        return {"sessions": count}

    found = await largest(fleet, lambda _: True)
    assert found.largest == 25
    assert found.tried[1] == {"sessions": 50, "failed": True}


async def test_requests_side_by_side_are_one_round(tmp_path: Path) -> None:
    idle: Any = SimpleNamespace(working=0)
    async with RoundsStore(LocalStore(tmp_path)) as store:
        store.count(idle)
        await asyncio.gather(*(store.put(f"{number}", b"") for number in range(5)))
        await store.head("1")
        await asyncio.gather(store.put("5", b""), store.delete("1"))
        await store.delete("2")
    assert store.ops() == [["put"], ["head"], ["delete", "put"], ["delete"]]
    assert [len(one) for one in store.rounds] == [5, 1, 2, 1]
