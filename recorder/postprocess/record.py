"""A recording's `postprocess.json`: what was done with it, by compare-and-swap.

    version       of the format
    recording_id  whose it is
    by            token of who wrote it
    steps         by name: `state` (done, failed, put off), `content` and `parameters` it is about,
                  `at`, and `result` or `reason`
    claim         who is at work: `owner`, a random token, and `until`; null for nobody

The claim keeps two from doing the same at the same time; it runs out by itself, by the clock of
who looks. It is a courtesy: what makes a second time harmless is that every step may be done twice,
and that of two writers one loses the condition of its write, and notes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from uploader.errors import BotRecorderError, Conflict, NoSuchObject, PreconditionFailed
from uploader.manifest import ATTRIBUTES
from uploader.store import ObjectInfo, Store

T = TypeVar("T")

VERSION = 1
_MEND = "delete it, and all steps are done again"

Call = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Claimed(BotRecorderError):
    """Another process is at work on the recording.

    Attributes:
        seconds: How long its claim has still to run, by this process's clock.
    """

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class RecordFile:
    """The record in the store.

    Args:
        store: Open.
        call: Makes a request through the retry layer.
        key: Of the record.
        recording_id: Whose it is.
        owner: Token of who is at work.
        conditional: Whether the store has conditional writes. Without, the last writer wins.
        tags: Object tags of the record.
        now: The wall clock.
    """

    def __init__(
        self,
        store: Store,
        call: Call,
        key: str,
        *,
        recording_id: str,
        owner: str,
        conditional: bool = True,
        tags: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.key = key
        self.owner = owner
        self.steps: dict[str, Any] = {}
        self.tags = dict(tags or {})
        self._store = store
        self._call = call
        self._recording_id = recording_id
        self._conditional = conditional
        self._now = now
        self._claim: dict[str, Any] | None = None
        self._etag: str | None = None
        self._sure = True
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Read what was done; nothing, if there is no record.

        Raises:
            BotRecorderError: It is no record, or of a newer version than this program knows.
            StoreError: Refused, or not to be had.
        """
        try:
            body, info = await self._call("get_record", lambda: self._store.read(self.key))
        except NoSuchObject:
            self.steps, self._claim, self._etag = {}, None, None
            return
        self._take(_parse(body, self.key), info)

    def _take(self, document: Mapping[str, Any], info: ObjectInfo) -> None:
        claim = document.get("claim")
        self.steps = dict(document["steps"])
        self._claim = claim if isinstance(claim, dict) else None
        self._etag = info.etag

    async def claim(self, seconds: float) -> None:
        """Become the one at work; see `load` first.

        Raises:
            Claimed: Another one is, or was quicker.
            StoreError: Refused, or not to be had.
        """
        left = self._left()
        if left > 0:
            raise Claimed(f"{self.key}: another process is at work on it", seconds=left)
        await self._write(self._until(seconds))

    def _left(self) -> float:
        """Return how long somebody else's claim runs, seconds."""
        if self._claim is None or self._claim.get("owner") == self.owner:
            return 0.0
        try:
            until = datetime.fromisoformat(str(self._claim.get("until")))
            return (until - self._now()).total_seconds()
        except (ValueError, TypeError):  # no time, or one without a timezone
            return 0.0

    def _until(self, seconds: float) -> dict[str, Any]:
        until = self._now() + timedelta(seconds=seconds)
        return {"owner": self.owner, "until": until.isoformat(timespec="milliseconds")}

    async def renew(self, seconds: float) -> None:
        """Have the claim run on. Raises as `claim`."""
        await self._write(self._until(seconds))

    async def note(self, step: str, entry: Mapping[str, Any], *, seconds: float | None) -> None:
        """Note what came of a step.

        Args:
            step: Its name.
            entry: What is said of it; the time is added.
            seconds: How long the claim runs on; None gives it up.

        Raises:
            Claimed: Another one has taken over: nothing was noted.
            StoreError: Refused, or not to be had.
        """
        at = self._now().isoformat(timespec="seconds")
        self.steps[step] = {**entry, "at": at}
        await self._write(None if seconds is None else self._until(seconds))

    async def release(self) -> None:
        """Give the claim up, if it is this one's. Raises as `claim`."""
        if not self._sure:  # of a write that was broken off, nobody knows whether it arrived
            await self.load()
        if self._claim is not None and self._claim.get("owner") == self.owner:
            await self._write(None)

    async def _write(self, claim: dict[str, Any] | None) -> None:
        async with self._writing:
            document = {
                "version": VERSION,
                "recording_id": self._recording_id,
                "by": self.owner,
                "claim": claim,
                "steps": self.steps,
            }
            body = json.dumps(document, indent=1).encode()
            self._sure = False
            try:
                info = await self._call("put_record", lambda: self._put(body))
            except (Conflict, PreconditionFailed) as error:
                await self._settle(body, error)
            else:
                self._etag = info.etag
            self._claim, self._sure = claim, True

    async def _put(self, body: bytes) -> ObjectInfo:
        attributes = replace(ATTRIBUTES, tags=self.tags)
        if not self._conditional:
            return await self._store.put(self.key, body, attributes)
        if self._etag is None:
            return await self._store.put(self.key, body, attributes, if_absent=True)
        return await self._store.put(self.key, body, attributes, if_match=self._etag)

    async def _settle(self, body: bytes, error: BotRecorderError) -> None:
        """Find out who won: a write of ours whose answer was lost, or somebody else.

        Raises:
            Claimed: Somebody else.
        """
        try:
            found, info = await self._call("get_record", lambda: self._store.read(self.key))
        except NoSuchObject:
            found = b""
        if found == body:  # it has this owner's token
            self._etag = info.etag
            return
        raise Claimed(f"{self.key}: another process has written it", seconds=0.0) from error


def _parse(body: bytes, key: str) -> dict[str, Any]:
    """Return a record's document.

    Raises:
        BotRecorderError: It is not one, or of a newer version than this program knows.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BotRecorderError(f"{key} is not JSON: {error}", hint=_MEND) from error
    if not isinstance(document, dict) or not isinstance(document.get("steps"), dict):
        raise BotRecorderError(f"{key} is no record of post-processing", hint=_MEND)
    if type(version := document.get("version")) is not int:
        raise BotRecorderError(f"{key} is no record of post-processing", hint=_MEND)
    if version > VERSION:
        raise BotRecorderError(
            f"{key} has version {version}, this program knows up to {VERSION}",
            hint="update bot-recorder",
        )
    steps = {name: one for name, one in document["steps"].items() if isinstance(one, dict)}
    return {**document, "steps": steps}
