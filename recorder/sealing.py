"""Sealing while a recording goes on: one step at a time, in worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from recorder.chunk_reader import Planes, joined
from recorder.chunks import Chunk
from recorder.delivery import Delivery
from recorder.engine import Engine, RecorderClosed
from recorder.records import Record
from recorder.sealer import Sealer
from uploader.store import Body


class Sealing:
    """Has what is due sealed, and then delivered.

    Args:
        sealer: Of the recording.
        delivery: Of the recording.
        engine: Whose threads this runs on.
    """

    def __init__(self, sealer: Sealer, delivery: Delivery, engine: Engine) -> None:
        self._sealer = sealer
        self._delivery = delivery
        self._engine = engine
        self._lock = asyncio.Lock()
        self._closed = False

    async def seal(
        self, now_ns: int, *, final: bool = False, rest: Sequence[tuple[Record, object]] = ()
    ) -> None:
        """Seal what is due and have it delivered.

        Args:
            now_ns: Now, ns after the recording's start.
            final: Nothing more will be written.
            rest: Records that no longer fit into the journal.

        Raises:
            SpoolFull: No room for a chunk; the next call tries again.
            RecorderClosed: The spool is not this process's any more.
        """
        before = len(self._sealer.sealed)
        async with self._lock:
            if self._closed:
                raise RecorderClosed("the recorder was closed")
            try:
                await self._engine.in_thread(
                    lambda: self._sealer.step(now_ns, final=final, rest=rest)
                )
            finally:
                if final or len(self._sealer.sealed) > before:
                    self._delivery.wake()

    async def close(self, release: Callable[[], None]) -> None:
        """Seal no more, and let go of the spool: not before whoever is at it has done his step."""
        async with self._lock:
            self._closed = True
            await self._engine.in_thread(release)

    async def open_chunk(self, now_ns: int, samples: int) -> tuple[Chunk, Body] | None:
        """Return what the open chunk will begin with; see `Sealer.open_chunk`."""
        async with self._lock:
            if self._closed:
                return None
            return await self._engine.in_thread(lambda: self._sealer.open_chunk(now_ns, samples))

    async def settled(self, now_ns: int) -> int:
        """Return up to which sample nothing changes any more, as things stand at `now_ns`."""
        async with self._lock:
            return await self._engine.in_thread(lambda: self._sealer.settled(now_ns))

    async def read(self, start: int, end: int, now_ns: int) -> Planes:
        """Return samples [start, end) of all tracks, sealed or not, as things stand at `now_ns`."""
        async with self._lock:
            sealed = min(end, max(start, self._sealer.sealed_samples))
            preview = self._sealer.preview
            fresh = Planes(*await self._engine.in_thread(lambda: preview(sealed, end, now_ns)))
        if start >= sealed:
            return fresh
        return joined(await self._delivery.reader.read(start, sealed), fresh)
