"""What is said of a recording: in its manifest, and in the result that its user gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recorder.chunks import Contents
from recorder.deliverable import Deliverable, said
from recorder.plan import Plan
from recorder.result import Gap, OutputResult, RecordingResult, State
from recorder.turn_clips import TurnClips
from uploader.context import Context
from uploader.errors import BotRecorderError


@dataclass(slots=True)
class Account:
    """Where a recording stands.

    Attributes:
        plan: What is recorded.
        contents: Its chunks.
        context: Store, and requests counted.
        spool: Its local folder, if it has one here.
        outputs: Its outputs but for turns.
        clips: Its turns.
        sealed: Whether its length is final.
        noted: How many chunks a manifest lists that was written for sure.
        recovered: How often it was taken over, and from what.
        continuations: Late audio that lies beside it.
        leftovers: Keys of objects, and uploads, that should be gone and could not be deleted.
        peaks: What there is to say of its waveform; None if nothing has come of one yet.
    """

    plan: Plan
    contents: Contents
    context: Context
    spool: Path | None
    outputs: list[Deliverable] = field(default_factory=list)
    clips: TurnClips | None = None
    sealed: bool = False
    noted: int = 0
    recovered: list[Any] = field(default_factory=list)
    continuations: list[Any] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    peaks: dict[str, Any] | None = None

    def inherit(self, document: dict[str, Any], source: str) -> None:
        """Keep what the manifest of an earlier owner says of the recording's history."""
        self.sealed = document.get("sealed") is True
        self.continuations = list(document.get("continuations", []))
        taken = {
            "from": source,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "epoch": document["epoch"] + 1,
        }
        self.recovered = [*document.get("recovered", []), taken]

    def deliverables(self) -> list[Deliverable]:
        """Return all outputs, clips of turns included."""
        return [*self.outputs, *(self.clips.clips if self.clips else ())]

    def outcome(self) -> State:
        """Return what has come of the outputs."""
        states = {output.result().state for output in self.deliverables()}
        for worst in (State.FAILED, State.PENDING):
            if worst in states:
                return worst
        return State.COMPLETED_WITH_GAPS if self.contents.timeline.lost else State.COMPLETED

    def troubles(self) -> list[BotRecorderError]:
        """Return what is wrong with outputs."""
        return [output.error for output in self.deliverables() if output.error is not None]

    def gaps(self) -> list[Gap]:
        """Return what is missing."""
        lost = list(self.contents.timeline.lost)
        return [Gap(one.track, one.start, one.end, one.reason) for one in lost]

    def result(self, state: State, error: BotRecorderError | None) -> RecordingResult:
        """Return what the recording came to."""
        samples = self._samples(self.contents.sealed_samples)
        reason, hint = said(error)
        outputs: list[OutputResult] = []
        for output in self.deliverables():
            one = output.result()
            if one.state is not State.COMPLETED and not one.reason:
                one = replace(one, reason=reason, hint=hint)
            outputs.append(replace(one, hint=one.hint or self._hint(one.state)))
        durable = state in (State.COMPLETED, State.COMPLETED_WITH_GAPS)
        kept = self._chunks_kept() and not self.plan.keep_chunks
        return RecordingResult(
            recording_id=self.plan.recording_id,
            state=state,
            url=self.context.store.url(self.plan.folder),
            duration_seconds=self.plan.seconds(samples),
            samples=samples,
            sample_rate=self.plan.sample_rate,
            chunks=len(self.contents.sealed),
            outputs=tuple(outputs),
            gaps=tuple(self.gaps()),
            spool=None if durable or self.spool is None else str(self.spool),
            reason=reason,
            hint=hint or self._hint(state),
            leftovers=tuple(self._chunk_keys() if durable and kept else ()),
            counts=dict(self.context.counts),
        )

    def _hint(self, state: State) -> str:
        """Return what can be done where the error itself does not say it."""
        kept = "bucket" if self.spool is None else "spool"
        how = "`recorder recover --bucket`" if self.spool is None else "`recorder recover`"
        if state is State.PENDING:
            return f"the audio is kept in the {kept}: a running recorder tries again, or {how} does"
        if state is State.FAILED:
            return f"the audio is kept in the {kept}: when the cause is mended, {how} finishes it"
        return ""

    def with_leftovers(self, result: RecordingResult, keys: Sequence[str]) -> RecordingResult:
        """Take note of what could not be deleted; return the result that says so."""
        self.leftovers = sorted({*result.leftovers, *keys})
        return replace(result, leftovers=tuple(self.leftovers))

    def document(self, state: State, uploaded: int) -> dict[str, Any]:
        """Return the manifest's content.

        Args:
            state: Of the recording.
            uploaded: How many chunks are in the store.
        """
        plan, timeline = self.plan, self.contents.timeline
        sealed = self.contents.sealed[:uploaded]
        samples = self._samples(sealed[-1].end if sealed else plan.first_sample)
        done = state in (State.COMPLETED, State.COMPLETED_WITH_GAPS)
        leftovers = self.leftovers
        if done and self._chunks_kept() and not plan.keep_chunks:
            leftovers = sorted({*leftovers, *self._chunk_keys()})
        return {
            "state": str(state),
            **plan.to_dict(),
            "sealed": self.sealed,
            "samples": samples,
            "duration_seconds": plan.seconds(samples),
            "tracks": [
                {
                    "name": track.name,
                    "source": track.source,
                    "participant": track.participant,
                    "joined": track.joined,
                }
                for track in list(timeline.tracks)
            ],
            "chunks": [chunk.to_dict() for chunk in sealed],
            "chunks_kept": self._chunks_kept(),
            "outputs": [output.to_dict(with_parts=not done) for output in list(self.outputs)],
            "peaks": self.peaks,
            "turns": self.clips.to_list() if self.clips else [],
            "pauses": [list(pause) for pause in timeline.pauses],
            "gaps": [
                {"track": gap.track, "start": gap.start, "end": gap.end, "reason": gap.reason}
                for gap in self.gaps()
            ],
            "conditional_writes": self.context.capabilities.conditional_writes,
            "recovered": self.recovered,
            "continuations": self.continuations,
            "leftovers": leftovers,
        }

    def marks(self) -> object:
        """Return what the manifest says of the time between two chunks, to be compared."""
        timeline = self.contents.timeline
        tracks = [(one.name, one.participant, one.joined) for one in list(timeline.tracks)]
        turns = [(one.start, one.end) for one in list(timeline.turns)]
        gaps = [(one.track, one.start, one.end) for one in list(timeline.lost)]
        return tracks, turns, gaps, [tuple(pause) for pause in list(timeline.pauses)]

    def _samples(self, end: int) -> int:
        return max(0, end - self.plan.first_sample)

    def _chunks_kept(self) -> bool:
        return self.plan.keep_chunks or not self.context.capabilities.deletes

    def _chunk_keys(self) -> list[str]:
        return [self.plan.chunk_key(chunk) for chunk in self.contents.sealed]
