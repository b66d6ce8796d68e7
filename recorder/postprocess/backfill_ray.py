"""The engine of a backfill on a Ray cluster. The only file that imports Ray, an extra.

Listing and work are Ray tasks: one whose node or process dies is done again elsewhere by Ray, and
what was noted meanwhile is not done twice. Each node needs bot-recorder with the extra `ray`, ways
to the bucket, and what its steps need; settings are sent along, secrets included.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from recorder.postprocess.backfill import list_places, new_owner, work_through
from recorder.postprocess.run import Processed, Processor, Verdict
from recorder.postprocess.subject import Place
from recorder.settings import Settings
from recorder.stores import make_store
from uploader.errors import BotRecorderError

BATCH = 8
"""Recordings of one task: opening a store is paid for once, and what dies with a node is little."""
MAX_RETRIES = 10
"""Deaths of a task that are taken for its node's; beyond, it is the recording that kills it."""


class RayUnavailable(BotRecorderError):
    """Ray is not installed, or its cluster is not there."""


@dataclass(frozen=True, slots=True)
class _Orders:
    """What all tasks of a run share."""

    settings: Settings
    steps: tuple[str, ...]
    prefix: str
    again: bool
    owner: str


class RayEngine:
    """Works on a cluster; made by `open_ray`."""

    batch = BATCH

    def __init__(self, ray: Any, orders: _Orders, width: int) -> None:
        self.width = width
        self._ray = ray
        self._orders = ray.put(orders)
        # Listing waits for the store, and takes no processor.
        options = {"max_retries": MAX_RETRIES}
        self._list = ray.remote(num_cpus=0, **options)(_list)
        self._work = ray.remote(num_cpus=1, **options)(_work)

    async def places(self, day: str) -> list[Place]:
        """See `Engine.places`."""
        try:
            found: list[Place] | str = await _answer(self._list.remote(self._orders, day))
        except self._ray.exceptions.RayError as error:
            found = f"its task died {MAX_RETRIES + 1} times: {type(error).__name__}"
        if isinstance(found, str):
            raise BotRecorderError(f"{day} cannot be listed: {found}")
        return found

    async def work(self, places: Sequence[Place]) -> list[Processed]:
        """See `Engine.work`."""
        try:
            done: list[Processed] = await _answer(self._work.remote(self._orders, list(places)))
        except self._ray.exceptions.RayError as error:
            reason = f"its task died {MAX_RETRIES + 1} times: {type(error).__name__}"
            return [Processed(place, Verdict.FAILED, reason=reason) for place in places]
        return done


@contextlib.asynccontextmanager
async def open_ray(
    settings: Settings,
    *,
    steps: Sequence[str],
    prefix: str = "",
    again: bool = False,
    address: str | None = None,
    width: int | None = None,
    logs: bool = False,
) -> AsyncIterator[RayEngine]:
    """Connect to a cluster, and leave it at the end: what is under way then ends.

    Args:
        settings: Sent along.
        steps: Names of the steps.
        prefix: Of the folders that are wanted.
        again: Do all steps, done or not.
        address: The cluster's; Ray's own `RAY_ADDRESS`, or else a cluster of this machine, if None.
        width: Tasks at a time; twice the cluster's processors if None.
        logs: Whether to show what the tasks log.

    Raises:
        RayUnavailable: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'bot-recorder[ray]', or use --engine local"
        raise RayUnavailable("Ray is not installed", hint=hint) from error
    try:
        await asyncio.to_thread(
            ray.init,
            address=address,
            log_to_driver=logs,
            logging_level="ERROR",
            configure_logging=True,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "give --ray-address HOST:PORT of a cluster that runs"
        raise RayUnavailable(f"no Ray cluster to work on: {error}", hint=hint) from error
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        orders = _Orders(settings, tuple(steps), prefix, again, new_owner())
        yield RayEngine(ray, orders, width or max(2, 2 * cpus))
    finally:
        await asyncio.to_thread(ray.shutdown)


async def _answer(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())


def _list(orders: _Orders, day: str) -> list[Place] | str:
    """Return the recordings of a day, or why they cannot be listed."""

    async def look() -> list[Place]:
        async with make_store(orders.settings) as store:
            return await list_places(store, day, orders.prefix)

    try:
        return asyncio.run(look())
    except BotRecorderError as error:
        return str(error)


def _work(orders: _Orders, places: list[Place]) -> list[Processed]:
    """Return what came of some recordings."""

    async def work() -> list[Processed]:
        async with Processor(orders.settings, steps=orders.steps) as processor:
            worked = work_through(processor, places, again=orders.again, owner=orders.owner)
            return [one async for one in worked]

    try:
        return asyncio.run(work())
    except BotRecorderError as error:  # the store cannot be opened on this node
        return [Processed(place, Verdict.FAILED, reason=str(error)) for place in places]
