"""Late audio: what an owner still had when another host had finished its recording already.

It becomes a recording of its own in a folder below the first one's, and is listed in its manifest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recorder.chunks import Chunk, Contents
from recorder.plan import Plan
from recorder.timeline import Turn
from uploader.context import Context
from uploader.errors import BotRecorderError
from uploader.manifest import LostOwnership, ManifestFile

TRIES = 5


class Slice:
    """Part of a recording's contents: the chunks that end in `(start, end]`.

    Args:
        contents: Of the whole.
        start: Sample on the recording's clock.
        end: Likewise; the whole's end, if None.
        listed: The chunks a manifest lists: where the end lies within a chunk, the last of them is
            the beginning of that chunk.
    """

    def __init__(
        self,
        contents: Contents,
        start: int = 0,
        end: int | None = None,
        listed: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._contents = contents
        until = contents.sealed_samples if end is None else end
        self.in_store = 0
        self.sealed: list[Chunk] = [one for one in contents.sealed if start < one.end <= until]
        self._end = self.sealed[-1].end if self.sealed else start
        if self._end < until and listed:
            last = Chunk.from_dict(listed[-1])
            if (last.first_sample, last.end) == (self._end, until):
                self.sealed.append(last)
                self._end = until
        self.timeline = copy.copy(contents.timeline)
        self.timeline.turns = [
            replace(turn, end=min(_end_of(turn, self._end), self._end))
            for turn in contents.timeline.turns
            if self._has(turn, start)
        ]
        self.timeline.lost = [
            replace(lost, end=None if lost.end is None else min(lost.end, self._end))
            for lost in contents.timeline.lost
            if (lost.end is None or lost.end > start) and lost.start <= self._end
        ]

    def _has(self, turn: Turn, start: int) -> bool:
        """Return whether some of a turn lies in it, or its one point: it may begin at the end."""
        goes_on = self._end < self._contents.sealed_samples
        begins_before_end = turn.start < self._end or (turn.start == self._end and not goes_on)
        return begins_before_end and (turn.start >= start or _end_of(turn, self._end) > start)

    @property
    def sealed_samples(self) -> int:
        """The sample behind the last chunk."""
        return self._end

    @property
    def finished(self) -> bool:
        """Whether all there is, is sealed."""
        return self._contents.finished

    def chunk_path(self, chunk: Chunk) -> Path:
        """Return the file of a chunk."""
        return self._contents.chunk_path(chunk)


def _end_of(turn: Turn, otherwise: int) -> int:
    return otherwise if turn.end is None else turn.end


def continuation_of(plan: Plan, number: int, first_sample: int) -> Plan:
    """Return the plan of what a spool has behind the end of a recording finished elsewhere.

    Args:
        plan: Of the recording.
        number: From 1: a continuation may itself have been finished elsewhere, before its end.
        first_sample: Where it begins, on the recording's clock.
    """
    name = f"continuation-{plan.token}-{number}"
    return replace(plan, continuation=name, first_sample=first_sample)


async def list_continuation(context: Context, plan: Plan, samples: int | None, owner: str) -> None:
    """Note a continuation in the manifest of the recording it belongs to. Idempotent.

    It is listed as soon as it has a manifest, by which others can finish it, and again with its
    length: none is ever finished unlisted.

    Args:
        context: Store and retries.
        plan: Of the continuation.
        samples: Its length, once it is finished.
        owner: Token of who writes.

    Raises:
        BotRecorderError: The manifest is gone, or keeps changing.
        StoreError: Refused, or not to be had before the deadline.
    """
    parent = replace(plan, continuation="", first_sample=0)
    told: dict[str, Any] = {
        "folder": plan.folder,
        "first_sample": plan.first_sample,
        "samples": samples,
    }
    for _ in range(TRIES):
        manifest = ManifestFile(context, parent.manifest_key, owner)
        stored = await manifest.read()
        if stored is None:
            break
        listed = [one for one in stored.document.get("continuations", []) if isinstance(one, dict)]
        others = [one for one in listed if one.get("folder") != plan.folder]
        if told in listed or (samples is None and len(others) < len(listed)):
            return
        try:
            await manifest.take_over(stored, {"continuations": [*others, told]})
        except LostOwnership:
            continue
        return
    raise BotRecorderError(f"{parent.manifest_key} is gone or keeps changing: cannot list in it")
