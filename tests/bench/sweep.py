"""How many calls one process keeps up with: fleets of growing size, until one does not."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.trial import Figures, TrialFailed

FIRST = 25
MOST = 3200
TRIES = 2
"""A fleet fails when it fails so often: other programs have their moments."""

CLOSE = 1.25


@dataclass(slots=True)
class Found:
    """What a sweep found.

    Attributes:
        largest: The largest fleet that kept up; 0 if the first did not.
        at_most: Whether no larger one was tried, because none is.
        tried: Figures of all fleets, in their order.
    """

    largest: int = 0
    at_most: bool = False
    tried: list[Figures] = field(default_factory=list)


async def largest(
    fleet: Callable[[int], Awaitable[Figures]],
    keeps_up: Callable[[Figures], bool],
    *,
    first: int = FIRST,
    most: int = MOST,
) -> Found:
    """Double a fleet until it does not keep up, then come closer by halves.

    Args:
        fleet: Measures a fleet of so many calls.
        keeps_up: Whether it kept up.
        first: Size of the first.
        most: Size of the largest there is.
    """
    found = Found()

    async def holds(count: int) -> bool:
        for _ in range(TRIES):
            try:
                figures = await fleet(count)
            except TrialFailed as error:  # it ran out of something
                sys.stderr.write(f"    {count} calls: {str(error)[-300:]}\n")
                found.tried.append({"sessions": count, "failed": True})
                return False
            found.tried.append(figures)
            if keeps_up(figures):
                found.largest = max(found.largest, count)
                return True
        return False

    count, failed = first, 0
    while not failed:
        if not await holds(count):
            failed = count
        elif count == most:
            found.at_most = True
            return found
        else:
            count = min(2 * count, most)
    while found.largest and failed > found.largest * CLOSE:
        middle = (found.largest + failed) // 2
        if not await holds(middle):
            failed = middle
    return found
