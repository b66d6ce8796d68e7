"""What recovery found and did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

from recorder.deliverable import as_told, said, state_of
from recorder.result import RecordingResult, State


class Outcome(StrEnum):
    """What became of a recording that recovery came across."""

    RECOVERED = "recovered"  # finished: its outputs are verified in the store
    CONTINUED = "continued"  # late audio was attached to a recording that was finished elsewhere
    CLEANED = "cleaned"  # it was finished; what it had left behind is gone
    PENDING = "pending"  # not now: the store is away, say; nothing is lost, the next try may do it
    FAILED = "failed"  # needs somebody: reason and hint say what; nothing was deleted
    ALIVE = "alive"  # it has a live owner, or had when this looked
    TAKEN = "taken"  # somebody else is finishing it


Source = Literal["spool", "bucket"]


@dataclass(frozen=True, slots=True)
class Recovered:
    """One recording that recovery came across.

    Attributes:
        recording_id: Its id.
        source: Whether it was found in the local spool or in the bucket.
        outcome: What became of it; on a dry run, what would.
        result: As `Session.stop` returns it, where it was finished or tried to be.
        reason: Why it is not finished, or what was done.
        hint: What can be done about it.
    """

    recording_id: str
    source: Source
    outcome: Outcome
    result: RecordingResult | None = None
    reason: str = ""
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)


def finished(recording_id: str, source: Source, result: RecordingResult) -> Recovered:
    """Return what came of an attempt to finish a recording."""
    if result.durable:
        return Recovered(recording_id, source, Outcome.RECOVERED, result)
    outcome = Outcome.PENDING if result.state is State.PENDING else Outcome.FAILED
    return Recovered(recording_id, source, outcome, result, result.reason, result.hint)


def failed(recording_id: str, source: Source, error: Exception) -> Recovered:
    """Return what an attempt came to that could not even begin."""
    told = as_told(error)
    reason, hint = said(told)
    outcome = Outcome.PENDING if state_of(told) is State.PENDING else Outcome.FAILED
    return Recovered(recording_id, source, outcome, None, reason, hint)
