"""Virtual latency: a store whose requests take one unit of time each, however fast this machine is.

Requests that are under way together take one unit together. So what a call took, in units, is how
many requests followed one another: what it waits for on a network whose bandwidth is no matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from faulty_store import FaultyStore

from recorder.engine import Engine
from uploader.errors import StoreError
from uploader.store import Store

QUIET_TURNS = 20
"""Turns of the loop in which nothing went on, after which all there is waits for requests."""


class RoundsStore(FaultyStore):
    """Lets requests through in rounds, once `count` was called.

    Attributes:
        rounds: The operations, with key and part number, of each round.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.rounds: list[list[tuple[str, str, int]]] = []
        self._engine: Engine | None = None
        self._waiting: list[tuple[tuple[str, str, int], asyncio.Event]] = []
        self._under_way = 0
        self._turning: asyncio.Task[None] | None = None

    def count(self, engine: Engine) -> None:
        """Begin to let requests through in rounds; with none under way.

        Args:
            engine: Whose workers may be at what leads to another request.
        """
        self._engine = engine

    def ops(self) -> list[list[str]]:
        """Return which operations each round had."""
        return [sorted({op for op, _, _ in one}) for one in self.rounds]

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StoreError]:
        """One request, as on S3."""
        deleting: dict[str, StoreError] = await self._do(
            "delete", keys[0], 0, lambda: self.inner.delete_many(keys)
        )
        return deleting

    async def _do(self, op: str, key: str, number: int, call: Callable[[], Any]) -> Any:
        if self._engine is None:
            return await super()._do(op, key, number, call)
        let_through = asyncio.Event()
        self._waiting.append(((op, key, number), let_through))
        if self._turning is None or self._turning.done():
            self._turning = asyncio.ensure_future(self._turn(self._engine))
        await let_through.wait()
        try:
            return await super()._do(op, key, number, call)
        finally:
            self._under_way -= 1

    async def _turn(self, engine: Engine) -> None:
        while self._waiting:
            quiet = 0
            while quiet < QUIET_TURNS:
                await asyncio.sleep(0)
                busy = self._under_way or engine.working
                quiet = 0 if busy else quiet + 1
            waiting, self._waiting = self._waiting, []
            self._under_way = len(waiting)
            self.rounds.append([what for what, _ in waiting])
            for _, let_through in waiting:
                let_through.set()
