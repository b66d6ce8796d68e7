"""Works on a whole archive: lists it by days, and hands recordings to an engine, a few at a time.

What is done is known from the recordings' records alone: a run that was broken off is gone on with
by running it again. Of the archive, no more is held than some days' names.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from recorder.catalog import POLICY
from recorder.names import InvalidName
from recorder.postprocess.run import Processed, Processor, Verdict
from recorder.postprocess.subject import Place, place_of
from recorder.settings import Settings
from uploader.retry import Retrier
from uploader.store import Listing, Store

DAYS_AT_ONCE = 4
"""Days that are listed side by side, and so held."""
CLAIMED_LOOKS = 5
"""How often a recording that another process has claimed is waited for."""

_PREFIX = re.compile(r"(?:dt=[0-9-]{0,10}|dt=\d{4}-\d{2}-\d{2}/[A-Za-z0-9._-]{0,100}/?)?", re.ASCII)
_PREFIX_RULE = (
    "allowed are the beginning of a day's folder, as dt=2026-11 or dt=2026-11-23, and of a "
    "recording's in it, as dt=2026-11-23/20261123T15"
)


class Engine(Protocol):
    """Where recordings are worked on.

    Attributes:
        width: Batches at a time.
        batch: Most recordings of a batch.
    """

    width: int
    batch: int

    async def places(self, day: str) -> list[Place]:
        """Return the recordings of a day's folder, `dt=YYYY-MM-DD/`."""
        ...

    async def work(self, places: Sequence[Place]) -> list[Processed]:
        """Do what is to be done with some recordings."""
        ...


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        days: Days there are.
        listed: Days that have been listed.
        found: Recordings found in them.
        verdicts: Recordings by what came of them.
    """

    days: int = 0
    listed: int = 0
    found: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)

    @property
    def worked(self) -> int:
        """Recordings that were worked on."""
        return sum(self.verdicts.values())

    @property
    def undone(self) -> int:
        """Recordings that are to be looked at: with a step that failed or was put off."""
        settled = (Verdict.DONE, Verdict.UNCHANGED, Verdict.GONE, Verdict.NOT_COMPLETE)
        return sum(count for verdict, count in self.verdicts.items() if verdict not in settled)


def check_key_prefix(prefix: str) -> str:
    """Return a prefix of recordings' folders, below the store's own.

    Raises:
        InvalidName: No recording's folder can begin so.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InvalidName("prefix", prefix, f"is no beginning of folders; {_PREFIX_RULE}")
    return prefix


async def list_days(store: Store, prefix: str = "") -> list[str]:
    """Return the days' folders that have recordings below a prefix, oldest first."""
    listing = await _level(store, "")
    return sorted(
        folder
        for folder in listing.folders
        if folder.startswith("dt=") and (folder.startswith(prefix) or prefix.startswith(folder))
    )


async def list_places(store: Store, day: str, prefix: str = "") -> list[Place]:
    """Return the recordings of a day's folder that are below a prefix."""
    listing = await _level(store, day)
    found = (place_of(folder) for folder in listing.folders if folder.startswith(prefix))
    return [place for place in found if place is not None]


async def _level(store: Store, prefix: str) -> Listing:
    return await Retrier(POLICY).call("list_level", lambda: store.list_level(prefix))


async def run(
    engine: Engine,
    days: Sequence[str],
    *,
    on_done: Callable[[Processed], None] = lambda one: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Work on all recordings of some days.

    Args:
        engine: Where.
        days: Their folders.
        on_done: Told of each recording.
        on_progress: Told how far it is, whenever that changes.

    Raises:
        StoreError: A day cannot be listed.
    """
    progress = Progress(days=len(days))
    batches: asyncio.Queue[list[Place] | None] = asyncio.Queue(maxsize=engine.width)
    todo = iter(days)

    async def list_some() -> None:
        for day in todo:
            places = await engine.places(day)
            progress.listed += 1
            progress.found += len(places)
            on_progress(progress)
            for batch in _batches(places, engine.batch):
                await batches.put(batch)

    async def list_all() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(DAYS_AT_ONCE):
                group.create_task(list_some())
        for _ in range(engine.width):
            await batches.put(None)

    async def work() -> None:
        while (batch := await batches.get()) is not None:
            for one in await engine.work(batch):
                progress.verdicts[one.verdict] += 1
                on_done(one)
            on_progress(progress)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(list_all())
            for _ in range(engine.width):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise _first(errors) from errors
    return progress


def _batches(places: Sequence[Place], size: int) -> Iterator[list[Place]]:
    for start in range(0, len(places), size):
        yield list(places[start : start + size])


def _first(error: Exception) -> Exception:
    """Return the error that a group of them began with."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def work_through(
    processor: Processor, places: Sequence[Place], *, again: bool, owner: str
) -> AsyncIterator[Processed]:
    """Yield what came of recordings, one after the other, waiting for those others have claimed.

    Args:
        processor: Open.
        places: The recordings.
        again: Do all steps, done or not.
        owner: Token of the run's claims: an attempt whose node died is taken over at once.
    """
    longest = processor.settings.postprocess_claim_seconds
    for place in places:
        done = await processor.process(place, again=again, owner=owner)
        for _ in range(CLAIMED_LOOKS - 1):
            if done.verdict is not Verdict.CLAIMED:
                break
            await asyncio.sleep(min(done.wait_seconds or 1.0, longest))
            done = await processor.process(place, again=again, owner=owner)
        yield done


class LocalEngine:
    """Works in this process.

    Args:
        processor: Open.
        prefix: Of the folders that are wanted.
        again: Do all steps, done or not.
    """

    batch = 1

    def __init__(self, processor: Processor, prefix: str = "", *, again: bool = False) -> None:
        self.width = processor.settings.postprocess_concurrency
        self._processor = processor
        self._prefix = prefix
        self._again = again
        self._owner = new_owner()

    async def places(self, day: str) -> list[Place]:
        """See `Engine.places`."""
        return await list_places(self._processor.store, day, self._prefix)

    async def work(self, places: Sequence[Place]) -> list[Processed]:
        """See `Engine.work`."""
        worked = work_through(self._processor, places, again=self._again, owner=self._owner)
        return [one async for one in worked]


def new_owner() -> str:
    """Return the token of one run."""
    return f"backfill-{secrets.token_hex(8)}"


def explain_prefix(prefix: str, settings: Settings) -> str:
    """Return where a run looks, for people."""
    return f"{settings.location}/{prefix}" + ("" if prefix.endswith("/") else "*")
