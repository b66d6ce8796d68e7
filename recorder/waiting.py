"""Waiting for several things on one loop, and for the end of what is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


def raise_first(results: Iterable[BaseException | None]) -> None:
    """Raise the first error of what was gathered, if there is one."""
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def first_of(future: asyncio.Future[Any], event: asyncio.Event) -> None:
    """Wait for either."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([future, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def ended(work: asyncio.Future[Any]) -> None:
    """Cancel work, and wait until it has ended."""
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # seen, or else it is complained of
