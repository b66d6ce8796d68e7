"""Takes records by the many, where they are frames that go on; the rest is for one by one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recorder.journal_format import IS_AUDIO, Rows
from recorder.placement import Placement
from recorder.runs import TrackState
from recorder.steady import Frames, Steady

LEAST_BATCH = 8
"""For fewer frames, taking them by the many costs more than one by one."""

MOST_PATIENCE = 64
"""So many are taken one by one before it is tried again, where most do not go on."""


class Batches:
    """Takes the records of one look by the many, as far as they are frames that go on.

    Args:
        placement: The rules.
        reach: How far before its writing a frame can be placed, samples.
        tracks: As far as they are decided on; more may join them meanwhile.
        rows: The records that may be decided on.
        least: For how many it is worth it.
    """

    def __init__(
        self, placement: Placement, reach: int, tracks: Sequence[TrackState], rows: Rows, least: int
    ) -> None:
        self._placement = placement
        self._reach = reach
        self._tracks = tracks
        self._rows = rows
        self._least = least
        self._audio = IS_AUDIO[rows["kind"]]
        self._marks = np.flatnonzero(~self._audio)
        self._frames: dict[int, Frames | None] = {}
        self._patience = self._waiting = 0

    def take(self, first: int) -> int:
        """Take records from number `first` on, if they go on; return how many were taken."""
        if self._waiting:
            self._waiting -= 1
            return 0
        mark = int(np.searchsorted(self._marks, first))
        end = int(self._marks[mark]) if mark < len(self._marks) else len(self._rows)
        taken = self._take(first, end) if end > first else 0
        if taken < self._least:
            self._patience = min(MOST_PATIENCE, 2 * self._patience + 1)
            self._waiting = self._patience
        else:
            self._patience = 0
        return taken

    def _take(self, first: int, end: int) -> int:
        found = list[Steady]()
        for number, state in enumerate(self._tracks):
            frames = self._frames_of(number)
            if frames is None:
                continue
            a, b = np.searchsorted(frames.index, (first, end)).tolist()
            if a == b:
                continue
            steady = Steady.found(self._placement, self._reach, state, frames, a, b)
            if steady is None:
                end = int(frames.index[a])
                continue
            if steady.count < b - a:
                end = min(end, int(frames.index[a + steady.count]))
            found.append(steady)
        settled = False
        while not settled:
            settled = True
            for steady in found:
                index = steady.frames.index[steady.first : steady.first + steady.count]
                steady.shorten(int(np.searchsorted(index, end)))
                count = steady.count
                steady.settle()
                if steady.count < count:
                    end, settled = int(index[steady.count]), False
        for steady in found:
            steady.commit()
        return end - first

    def _frames_of(self, track: int) -> Frames | None:
        if track not in self._frames:
            index = np.flatnonzero(self._audio & (self._rows["track"] == track))
            found = Frames(self._rows, index, self._placement) if len(index) else None
            self._frames[track] = found
        return self._frames[track]
