"""The `turns` output: a clip per speaking turn, made as soon as the turn is sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from recorder.deliverable import Deliverable
from recorder.outputs import OutputSpec, turn_output
from recorder.plan import Plan
from recorder.timeline import Timeline, Turn


class TurnClips:
    """Which turns are clipped, and how far their clips are.

    Args:
        plan: Of the recording.
        timeline: Whose turns.
        make: Returns a new deliverable.
    """

    def __init__(
        self, plan: Plan, timeline: Timeline, make: Callable[[OutputSpec], Deliverable]
    ) -> None:
        self._plan = plan
        self._timeline = timeline
        self._make = make
        self._pre_roll = int(plan.pre_roll_seconds * plan.sample_rate)
        self._clips: dict[int, tuple[Deliverable, int]] = {}

    @property
    def clips(self) -> list[Deliverable]:
        """Clips of the turns that are sealed, by number."""
        return [clip for clip, _ in self._clips.values()]

    async def deliver(self, sealed_samples: int) -> None:
        """Put the clips of all turns that end before `sealed_samples`; results tell how it went."""
        for turn, spec in self._due(sealed_samples):
            if turn.number not in self._clips:
                self._clips[turn.number] = self._make(spec), turn.end or 0
        left = [clip.finish(end) for clip, end in self._clips.values() if not clip.completed]
        for failed in await asyncio.gather(*left, return_exceptions=True):
            if failed is not None:
                raise failed

    def specs(self, sealed_samples: int) -> list[OutputSpec]:
        """Return the clips of all turns that end before `sealed_samples`."""
        return [spec for _, spec in self._due(sealed_samples)]

    def _due(self, sealed_samples: int) -> Iterator[tuple[Turn, OutputSpec]]:
        for turn in list(self._timeline.turns):
            if turn.end is not None and turn.end <= sealed_samples:
                track = self._timeline.tracks[turn.track].name
                first = self.first_sample(turn)
                yield turn, turn_output(turn.number, track, first, self._plan.output_format)

    def first_sample(self, turn: Turn) -> int:
        """Return where a turn's clip begins: before it by the pre-roll, not into the one before."""
        before = [
            other.end
            for other in self._timeline.turns
            if other.number < turn.number and other.track == turn.track and other.end is not None
        ]
        # Voice activity is noticed late on a microphone; a bot's playout is marked as it begins.
        capture = self._timeline.tracks[turn.track].source == "capture"
        pre_roll = self._pre_roll if capture else 0
        begin = self._plan.first_sample
        return max(begin, min(turn.start, max([begin, turn.start - pre_roll, *before])))

    def needed_from(self, otherwise: int) -> int:
        """Return the first sample that clips still need, or `otherwise`."""
        open_turns = [
            self.first_sample(turn)
            for turn in self._timeline.turns
            if turn.number not in self._clips or not self._clips[turn.number][0].completed
        ]
        # The next turn's pre-roll reaches back behind what is sealed.
        return min([max(0, otherwise - self._pre_roll), *open_turns])

    def to_list(self) -> list[dict[str, Any]]:
        """Return all turns as the manifest lists them."""
        return [self._told(turn) for turn in list(self._timeline.turns)]

    def _told(self, turn: Turn) -> dict[str, Any]:
        told = {
            "number": turn.number,
            "track": self._timeline.tracks[turn.track].name,
            "start": turn.start,
            "end": turn.end,
            "interrupted": turn.interrupted,
            "conversation_turn": turn.conversation_turn,
            "key": None,
        }
        if turn.number in self._clips:
            clip, _ = self._clips[turn.number]
            listed = clip.to_dict(with_parts=False)
            names = ("key", "first_sample", "state", "bytes", "samples", "checksum", "reason")
            told |= {name: listed[name] for name in names}
        return told
