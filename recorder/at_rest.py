"""A finished recording in the store, opened to make something of it: to read, or to add to.

What is added is noted in the manifest by compare-and-swap, and only while the recording is final:
a recording that still has an owner, or waits for one, is nobody else's to write to.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from loguru import logger

from recorder.catalog import Catalog, NoSuchRecording
from recorder.chunks import Chunk
from recorder.names import check_recording_id
from recorder.plan import Plan
from recorder.recovery import DURABLE
from uploader.budget import ByteBudget
from uploader.context import Context
from uploader.errors import BotRecorderError, InvalidRequest, StoreError
from uploader.manifest import LostOwnership, ManifestFile, Stored
from uploader.probe import Capabilities, probe
from uploader.retry import Deadline, Retrier, RetryPolicy
from uploader.store import ObjectInfo, Store

POLICY = RetryPolicy(attempts=6, deadline_seconds=300.0, attempt_timeout_seconds=120.0)
"""Somebody waits for the answer, and a part takes a while on a slow line."""

HELD_BYTES = 64 * 1024**2
"""Of audio on its way at a time."""

TRIES = 5
"""How often a manifest is looked at again that somebody else has just changed."""

T = TypeVar("T")

Changes = Mapping[str, Any]


class NoAudio(BotRecorderError):
    """The store does not have the audio any more, or not as it was recorded."""


class NotFinished(BotRecorderError):
    """A recording is not final: it has an owner, or waits for somebody to finish it."""


@dataclass(slots=True)
class AtRest:
    """A finished recording.

    Attributes:
        plan: What was recorded.
        document: Its manifest, as it was when it was opened.
        objects: What lies in its folder, by key.
        context: Store, retries, budget.
        samples: Its length.
        tracks: Names of its tracks, in order.
    """

    plan: Plan
    document: Mapping[str, Any]
    objects: Mapping[str, ObjectInfo]
    context: Context
    samples: int
    tracks: tuple[str, ...]

    @property
    def store(self) -> Store:
        """Where it is."""
        return self.context.store

    def chunks(self) -> list[Chunk]:
        """Return its chunks as the manifest lists them.

        Raises:
            BotRecorderError: The list is damaged.
        """
        return [Chunk.from_dict(told) for told in self.document.get("chunks", [])]

    def outputs(self) -> list[Mapping[str, Any]]:
        """Return what the manifest says of outputs that are complete."""
        listed = self.document.get("outputs")
        found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        return [one for one in found if one.get("state") == "completed"]

    async def change(self, change: Callable[[Mapping[str, Any]], Changes]) -> None:
        """Change the manifest by compare-and-swap.

        Args:
            change: Returns the fields that are to be others, given the manifest as it is by now.
                May be called several times.

        Raises:
            NotFinished: The recording is not final any more.
            BotRecorderError: The manifest is gone, or keeps changing.
            StoreError: Refused, or not to be had before the deadline.
        """
        for _ in range(TRIES):
            manifest = ManifestFile(self.context, self.plan.manifest_key, secrets.token_hex(8))
            stored = await manifest.read()
            if stored is None:
                break
            _check_final(stored.document, self.plan.recording_id)
            with suppress(LostOwnership):
                await manifest.take_over(stored, change(stored.document))
                return
        raise BotRecorderError(f"{self.plan.manifest_key} is gone or keeps changing")

    async def read(self, key: str, start: int, end: int, piece: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes [start, end) of an object in pieces; the next is on its way meanwhile.

        Raises:
            BotRecorderError: The object has fewer.
            StoreError: The store refuses, or does not answer.
        """
        async with (
            self.context.budget.reserve(min(2 * piece, end - start)),
            aclosing(self.pieces(key, start, end, piece)) as pieces,
        ):
            async for body in pieces:
                yield body

    async def pieces(
        self, key: str, start: int, end: int, piece: int
    ) -> AsyncGenerator[bytes, None]:
        """Do the same; that two pieces are held is the caller's to reserve."""
        ahead: asyncio.Task[bytes] | None = None
        try:
            for begin in range(start, end, piece):
                getting = ahead or self._getting(key, begin, min(end, begin + piece))
                ahead = getting
                body = await getting
                following = begin + piece
                ahead = None
                if following < end:
                    ahead = self._getting(key, following, min(end, following + piece))
                yield body
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])

    def _getting(self, key: str, start: int, end: int) -> asyncio.Task[bytes]:
        return asyncio.ensure_future(self.get(key, start, end))

    async def get(self, key: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of an object; that they are held is the caller's to reserve.

        Raises:
            BotRecorderError: The object has fewer.
            StoreError: The store refuses, or does not answer.
        """
        context = self.context
        try:
            body = await context.call("get", lambda: context.store.get(key, start=start, end=end))
        except InvalidRequest:  # it begins behind the end
            body = b""
        if len(body) != end - start:
            raise BotRecorderError(
                f"{key} is cut off: it ends before byte {end}",
                hint="`recorder verify` says what else is not as it was recorded",
            )
        return body


async def open_at_rest(
    store: Store,
    recording: str | Mapping[str, Any],
    day: date | None = None,
    *,
    budget: ByteBudget | None = None,
    writes: bool = True,
) -> AtRest:
    """Open a finished recording.

    Args:
        store: Open.
        recording: Its id, or its manifest's content.
        day: Of which day, for an id that was used on several; the newest if None.
        budget: Of the bytes that are held.
        writes: Whether anything will be written: then it is found out what the store can do.

    Raises:
        InvalidName: The id is none.
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        BotRecorderError: Its manifest is none.
        StoreError: The store refuses, or does not answer.
    """
    if isinstance(recording, Mapping):
        plan = Plan.from_dict(recording)
        name, day = plan.recording_id, date.fromisoformat(plan.day)
    else:
        name = check_recording_id(recording)
    details = await Catalog(store, POLICY).find(name, day)
    found = details.recording
    if found.problem:
        raise BotRecorderError(f"recording {name!r}: {found.problem}")
    document = found.manifest.values
    _check_final(document, name)
    plan = Plan.from_dict(document)
    if plan.folder != found.folder:
        raise BotRecorderError(f"{found.folder} has the manifest of {plan.folder}")
    retrier = Retrier(POLICY)
    capabilities = Capabilities(True, True, True, True)
    if writes:
        capabilities = await probe(store, retrier, secrets.token_hex(8))
    context = Context(
        store=store,
        retrier=retrier,
        budget=budget or ByteBudget(HELD_BYTES),
        capabilities=capabilities,
        deadline=Deadline(),
        recording_id=name,
        log=logger.bind(recording_id=name),
        on_failure=lambda failed: None,
    )
    tracks = tuple(track.text("name") for track in found.manifest.items("tracks"))
    return AtRest(plan, document, details.objects, context, found.manifest.count("samples"), tracks)


async def in_thread(function: Callable[[], T], /) -> T:
    """Run blocking work on a thread of the loop's."""
    return await asyncio.to_thread(function)


async def in_spite_of_cancels(work: Awaitable[None]) -> None:
    """Wait for work to end, however often this is cancelled: what tidies up is done with soon."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    task.result()


def _check_final(document: Mapping[str, Any], name: str) -> None:
    state = document.get("state")
    if state not in DURABLE:
        raise NotFinished(
            f"recording {name!r} is {state}: only what is finished can be worked on",
            hint="if its host is lost, `recorder recover --bucket` finishes it",
        )


def same_bytes(key: str, told: int | None, found: int) -> None:
    """Compare the CRC-64/NVME of an output with what is told of it; None is that nothing is.

    Raises:
        NoAudio: It is another.
    """
    if told not in (None, found):
        raise NoAudio(
            f"{key} has other bytes than were recorded: its checksum differs",
            hint="restore it from an older version; nothing was replaced",
        )


__all__ = [
    "AtRest",
    "NoAudio",
    "NoSuchRecording",
    "NotFinished",
    "StoreError",
    "Stored",
    "open_at_rest",
]
