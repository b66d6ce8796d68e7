"""How late an event loop is: what a bot on it would hear."""

from __future__ import annotations

import asyncio
import time

import numpy as np

EVERY_SECONDS = 0.005


class Lag:
    """Asks every 5 ms; `figures` are of what was asked since `begin`."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._late.clear()
        self._task = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + EVERY_SECONDS, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._late.append(time.monotonic() - due)

    def end(self) -> dict[str, float]:
        """Milliseconds."""
        if self._task is not None:
            self._task.cancel()
        late = np.array(self._late) * 1000
        return {
            "lag_p50_ms": float(np.percentile(late, 50)),
            "lag_p99_ms": float(np.percentile(late, 99)),
            "lag_max_ms": float(late.max()),
        }
