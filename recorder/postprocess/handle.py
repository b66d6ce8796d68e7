"""Follows up one message about new objects: the same for a function and for a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recorder.postprocess.events import Wanted, read_event, wanted
from recorder.postprocess.run import Processed, Processor, Verdict


@dataclass(frozen=True, slots=True)
class Handled:
    """What came of a message.

    Attributes:
        recordings: What came of each recording that it is about.
    """

    recordings: tuple[Processed, ...]

    @property
    def settled(self) -> bool:
        """Whether the message has done its work; else it is to come again."""
        return all(one.settled for one in self.recordings)

    @property
    def reason(self) -> str:
        """Why it has not."""
        open_ones = [one for one in self.recordings if not one.settled]
        return "; ".join(
            f"{one.place.recording_id}: {one.verdict}: {one.reason}" for one in open_ones
        )

    @property
    def wait_seconds(self) -> float | None:
        """When it is to come again at the earliest; None if nobody knows."""
        waits = [one.wait_seconds for one in self.recordings if not one.settled]
        return max((one for one in waits if one is not None), default=None)


async def handle(processor: Processor, event: str | bytes | Mapping[str, Any]) -> Handled:
    """Do what a message wants, one recording after the other.

    A manifest is written many times before it is complete, and once when it is: an event about one
    that is not complete has nothing to do, because another will come. An output is written once,
    just before its recording is complete: then the message is to come again.

    Raises:
        UnreadableEvent: The message is none that is known: it would be none the next time.
    """
    location = processor.settings.location
    found: dict[str, Wanted] = {}
    for created in read_event(event):
        one = wanted(created, location)
        if one is not None:
            known = found.get(one.place.folder)
            if known is None or known.of_manifest:
                found[one.place.folder] = one
    return Handled(tuple([await _follow(processor, one) for one in found.values()]))


async def _follow(processor: Processor, one: Wanted) -> Processed:
    done = await processor.process(one.place, key=one.key)
    if one.of_manifest and done.verdict is Verdict.NOT_COMPLETE:
        return Processed(one.place, Verdict.UNCHANGED, reason=done.reason)
    return done
