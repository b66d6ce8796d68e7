"""Runs to samples: gathers what capture put into the journal, resamples it, lays it on planes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recorder.layouts import downmix
from recorder.resample import BlockResampler
from recorder.timeline import Piece, Run, Timeline

Samples = NDArray[np.int16]


class Renderer:
    """Renders any output range of a timeline's runs.

    Args:
        timeline: Whose runs.
        segment: Returns the bytes of a journal segment.
    """

    def __init__(self, timeline: Timeline, segment: Callable[[int], memoryview | None]) -> None:
        self._timeline = timeline
        self._segment = segment
        self._resamplers: dict[int, BlockResampler] = {}

    def ready(self, end: int) -> bool:
        """Return whether every sample before `end` is settled and can be rendered."""
        return self.ready_until() >= end

    def ready_until(self) -> int:
        """Return the sample up to which all are settled and can be rendered."""
        end = self._timeline.settled
        for run in self._timeline.runs:
            if not run.closed and run.start < end:
                available = self._resampler(run).available_output(run.count, False)
                end = min(end, run.start + available)
        return end

    def planes(self, start: int, end: int, planes: Samples | None = None) -> Samples:
        """Return all tracks' samples [start, end), shape (tracks, end - start).

        Args:
            start: First sample.
            end: The one behind the last.
            planes: Of that shape, to be used, in whatever order in memory; a new one if None.
        """
        timeline = self._timeline
        if planes is None:
            planes = np.empty((len(timeline.tracks), end - start), dtype=np.int16)
        planes.fill(0)
        for run in timeline.runs:
            first = max(start, run.start)
            last = min(end, run.end)
            if first < last:
                self._render(run, first, last, planes[run.track, first - start : last - start])
        for pause_start, pause_end in timeline.pauses:
            until = end if pause_end is None else pause_end
            if pause_start is not None and pause_start < end and until > start:
                planes[:, max(0, pause_start - start) : max(0, until - start)] = 0
        return planes

    def needed_input(self, position: int) -> dict[int, int]:
        """Return per run the first input sample that rendering from `position` on still needs."""
        needed = {}
        for run in self._timeline.runs:
            if run.start < position:
                first = position - run.start
                needed[run.number], _ = self._resampler(run).needed_input(
                    first, first + 1, run.count
                )
        return needed

    def forget(self) -> None:
        """Drop the resamplers of runs the timeline has dropped."""
        alive = {run.number for run in self._timeline.runs}
        for number in self._resamplers.keys() - alive:
            del self._resamplers[number]

    def _resampler(self, run: Run) -> BlockResampler:
        resampler = self._resamplers.get(run.number)
        if resampler is None:
            resampler = BlockResampler(run.grid)
            self._resamplers[run.number] = resampler
        return resampler

    def _render(self, run: Run, first: int, last: int, output: Samples) -> None:
        """Put output samples [first, last) of a run where they belong."""
        first, last = first - run.start, last - run.start
        grid = run.grid
        if grid.rate_in == grid.rate_out and not grid.blocks:
            self._gather(run.pieces, first - grid.before, last - grid.before, output)
            return

        def fetch(start: int, end: int) -> Samples:
            gathered = np.empty(end - start, dtype=np.int16)
            self._gather(run.pieces, start, end, gathered)
            return gathered

        self._resampler(run).render(first, last, fetch, run.count, run.closed, output)

    def _gather(self, pieces: list[Piece], start: int, end: int, gathered: Samples) -> None:
        """Put input samples [start, end) of a run there, as mono."""
        index = max(0, bisect_right(pieces, start, key=_first) - 1)
        filled = start
        while filled < end:
            piece = pieces[index]
            view = self._segment(piece.segment)
            if view is None or piece.first > filled:
                raise LookupError(f"journal segment {piece.segment} is gone before its audio was")
            channels = piece.channels
            until = min(end, piece.first + piece.count)
            begin = piece.offset + 2 * channels * (filled - piece.first)
            samples = np.frombuffer(view, "<i2", channels * (until - filled), begin)
            if channels > 1:
                samples = downmix(samples.reshape(-1, channels))
            gathered[filled - start : until - start] = samples
            filled = until
            index += 1


def _first(piece: Piece) -> int:
    return piece.first
