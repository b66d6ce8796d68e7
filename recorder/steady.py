"""Places frames by the many where they simply go on: what nearly all frames do. Pure.

`recorder.timeline` and `recorder.placement` have the rules, frame by frame. Of many frames, this
finds those that the rules put at the cursor for sure, and brings the track to where it is after
them: the very state that taking them one by one leads to. The first other one, and whatever it is
not sure of, it leaves to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recorder.drift import Drift
from recorder.grid import Grid, plain_length, plain_lengths
from recorder.journal_format import Kind, Rows, fieldless
from recorder.placement import HALF_NS, NS, PACED_SECONDS, TIMESTAMP_NS, Placement
from recorder.runs import Run, TrackState

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def positions(at_ns: Ints, sample_rate: int) -> Ints:
    """Return `Placement.position` of each of many times."""
    seconds = at_ns // NS  # by themselves: all of it in ns by a rate is more than 64 bits hold
    return seconds * sample_rate + ((at_ns - seconds * NS) * sample_rate + HALF_NS) // NS


class Frames:
    """The frames of one track among pending records, as columns.

    Args:
        rows: The pending records.
        index: Which of them.
        placement: The rules.

    Attributes:
        index: Of each frame, among the pending records.
        at: Position at which it arrived.
        due: Position at which it would begin by that.
        given: By how much it may begin later, because it begins to be played when it is given.
        written_ns: When it was written.
        written: The position of that.
        samples: Of its input.
        ends: Input samples up to its end, from the first frame on.
        timed: Whether it has a media timestamp.
        time_ns: That.
        elapsed_ns: How long all frames before it are together.
        changes: Numbers of the frames that differ in rate, or in having timestamps, from the one
            before.
        joints: Numbers of the frames that do not lie behind the one before in the journal.
    """

    def __init__(self, rows: Rows, index: Ints, placement: Placement) -> None:
        rows = fieldless(rows)[index].view(rows.dtype)
        sample_rate = placement.sample_rate
        self.index = index
        self.rate = rows["sample_rate"].astype(np.int64)
        self.channels = rows["channels"].astype(np.int64)
        self.segment, self.offset = rows["segment"], rows["offset"]
        length = rows["length"].astype(np.int64)
        self.samples = length // (2 * self.channels)
        at_ns, self.written_ns = rows["at_ns"], rows["written_ns"]
        self.timed: Flags = rows["kind"] == Kind.TIMED_AUDIO
        self.time_ns = rows["time_ns"]
        changes = (self.rate[1:] != self.rate[:-1]) | (self.timed[1:] != self.timed[:-1])
        self.changes = np.flatnonzero(changes) + 1
        self.at = positions(at_ns, sample_rate)
        self.written = positions(self.written_ns, sample_rate)
        plain = self._plain(sample_rate)
        self.due = self.at - plain
        whole = (at_ns <= self.written_ns) & (plain >= int(PACED_SECONDS * sample_rate))
        self.given: Ints = np.where(whole, plain, 0)
        self.ends: Ints = np.concatenate(([0], np.cumsum(self.samples)))
        self.elapsed_ns: Ints = np.concatenate(([0], np.cumsum(self.samples * NS // self.rate)))
        joints = (self.offset[1:] != self.offset[:-1] + length[:-1]) | (
            self.segment[1:] != self.segment[:-1]
        )
        self.joints = np.flatnonzero(joints | (self.channels[1:] != self.channels[:-1])) + 1

    def _plain(self, sample_rate: int) -> Ints:
        if not len(self.changes):
            return plain_lengths(self.samples, int(self.rate[0]), sample_rate)
        same = self.rate == sample_rate
        other: Ints = (self.samples * sample_rate + self.rate // 2) // self.rate
        return np.where(same, self.samples, other)

    def alike(self, first: int, end: int) -> int:
        """Return the number of the first frame from `first` that is not like it, or `end`."""
        change = int(np.searchsorted(self.changes, first, side="right"))
        return min(end, int(self.changes[change])) if change < len(self.changes) else end


class _Clock(NamedTuple):
    """A run's clock after some more frames: what `Timeline._keep_time` would come to."""

    drift: Drift
    stretched: list[tuple[int, int]]


@dataclass(slots=True)
class Steady:
    """Frames [first, first + count) of a track, which go on with its run.

    Attributes:
        placement: The rules.
        reach: How far before its writing a frame can be placed, samples.
        state: The track.
        run: Its run.
        frames: Its frames.
        first: The first of them.
        count: How many go on.
        cursors: The cursor before each frame, and after the last.
        clock: The run's clock after all of them, where it is worked out.
    """

    placement: Placement
    reach: int
    state: TrackState
    run: Run
    frames: Frames
    first: int
    count: int
    cursors: Ints
    clock: _Clock | None = None

    @classmethod
    def found(
        cls,
        placement: Placement,
        reach: int,
        state: TrackState,
        frames: Frames,
        first: int,
        end: int,
    ) -> Steady | None:
        """Return those of the frames [first, end) that go on, if no block of them is stretched.

        Returns:
            None where not even the first one does.
        """
        run = state.run
        if run is None or frames.rate[first] != run.grid.rate_in:
            return None
        if frames.timed[first] and state.next_ns is None:
            return None
        count = frames.alike(first, end) - first
        steady = cls(placement, reach, state, run, frames, first, count, frames.at[:0])
        steady._place(run.grid)
        return steady if steady.count else None

    def shorten(self, count: int) -> None:
        """Take the first `count` frames alone."""
        if count < self.count:
            self.count, self.clock = count, None

    def settle(self) -> None:
        """Have fewer of them, if need be: those that go on with the blocks that are stretched."""
        while self.clock is None and self.count:
            self.clock = clock = self._kept_time()
            if clock.stretched:
                grid = self.run.grid.copy()
                for block, extra in clock.stretched:
                    grid.stretch(block, extra)
                count = self.count
                self._place(grid)
                if self.count < count:
                    self.clock = None

    def commit(self) -> None:
        """Bring the track to where it is after these frames."""
        if self.clock is None or not self.count:
            return
        state, run, frames = self.state, self.run, self.frames
        first, end = self.first, self.first + self.count
        for block, extra in self.clock.stretched:
            run.grid.stretch(block, extra)
            state.origins[-1][1] += extra
        state.drift = self.clock.drift
        joints = frames.joints
        joints = joints[np.searchsorted(joints, first, side="right") : np.searchsorted(joints, end)]
        for begin, until in pairwise([first, *joints.tolist(), end]):
            samples = int(frames.ends[until] - frames.ends[begin])
            channels, segment = int(frames.channels[begin]), int(frames.segment[begin])
            run.add(samples, channels, segment, int(frames.offset[begin]))
        state.cursor = run.start + run.grid.output(run.count)
        state.media = run.media + plain_length(run.count, run.grid.rate_in, run.grid.rate_out)
        state.following = max(0, state.following - self.count)
        if state.source == "playout" and not state.ahead:
            state.ahead = bool(self._ahead().any())
        state.heard_ns = None if state.ahead else int(frames.written_ns[end - 1])
        if not frames.timed[first]:
            state.next_ns = None
        elif state.next_ns is not None:
            state.next_ns += int(frames.elapsed_ns[end] - frames.elapsed_ns[first])

    def _counts(self) -> Ints:
        """Return the run's input samples before each frame, and after the last."""
        ends = self.frames.ends[self.first : self.first + self.count + 1]
        return ends + (self.run.count - int(ends[0]))

    def _ahead(self) -> Flags:
        """Return after which frames the track is ahead of real time."""
        at = self.frames.at[self.first : self.first + self.count]
        return self.cursors[1 : self.count + 1] - at > self.placement.jitter

    def _place(self, grid: Grid) -> None:
        """Find the cursors, and which frames go on, where the blocks are as in `grid`."""
        self.cursors = self.run.start + grid.outputs(self._counts())
        goes_on = self._in_time() & self._not_too_late()
        if self.frames.timed[self.first]:
            goes_on &= self._as_stamped()
        if not goes_on.all():
            self.count = int(goes_on.argmin())

    def _in_time(self) -> Flags:
        """Return which frames `Placement.start` puts at the cursor, whatever follows."""
        state, frames, placement = self.state, self.frames, self.placement
        here = slice(self.first, self.first + self.count)
        lag = frames.due[here] - self.cursors[:-1]
        limit = placement.jitter
        if state.source == "playout":
            lag += frames.given[here] + state.delay
        elif frames.timed[self.first]:
            limit = placement.untimely
        in_time: Flags = lag <= limit
        in_time[: state.following] = True
        return in_time

    def _as_stamped(self) -> Flags:
        """Return which frames have the timestamp that follows on the ones before."""
        here = slice(self.first, self.first + self.count)
        elapsed = self.frames.elapsed_ns[here]
        expected = elapsed + ((self.state.next_ns or 0) - int(elapsed[0]))
        close: Flags = np.abs(self.frames.time_ns[here] - expected) < TIMESTAMP_NS
        return close

    def _not_too_late(self) -> Flags:
        """Return which frames can still be placed at the cursor when they are written."""
        state, frames = self.state, self.frames
        here = slice(self.first, self.first + self.count)
        reachable: Flags = self.cursors[:-1] >= frames.written[here] - self.reach
        if reachable.all():
            return reachable
        written_ns = frames.written_ns[here]
        stall_ns = self.placement.stall_ns
        heard: Flags = np.empty(self.count, np.bool_)
        heard[0] = state.heard_ns is not None and written_ns[0] - state.heard_ns <= stall_ns
        heard[1:] = written_ns[1:] - written_ns[:-1] <= stall_ns
        if state.source == "playout":
            if state.ahead:
                heard[1:] = False
            else:
                heard[1:] &= ~np.logical_or.accumulate(self._ahead()[:-1])
        return reachable | heard

    def _kept_time(self) -> _Clock:
        """Work out the run's clock after all the frames."""
        run, frames = self.run, self.frames
        grid, drift, stretched = run.grid, self.state.drift.copy(), list[tuple[int, int]]()
        counts = self._counts()
        due = frames.due[self.first : self.first + self.count]
        lags = due - run.start - plain_lengths(counts[:-1], grid.rate_in, grid.rate_out)
        blocks = (counts[1:] - 1) // grid.block_in
        firsts = np.concatenate(([0], np.flatnonzero(blocks[1:] != blocks[:-1]) + 1))
        least: list[int] = np.minimum.reduceat(lags, firsts).tolist()
        steps = bool(frames.timed[self.first]) or self.state.source == "playout"
        inserted, sample_rate = grid.inserted, self.placement.sample_rate
        numbers: list[int] = blocks[firsts].tolist()
        if numbers[-1] - numbers[0] + 1 == len(numbers) and drift.pass_over(
            numbers[0], least, grid.block_out, sample_rate, inserted
        ):
            return _Clock(drift, stretched)
        for block, lag in zip(numbers, least, strict=True):
            while drift.blocks <= block:
                begun = drift.blocks  # not the first: that one began with the run
                extra = drift.next_block(grid.block_out, sample_rate, inserted, steps=steps)
                if extra:
                    stretched.append((begun, extra))
                    inserted += extra
            drift.note(lag)
        return _Clock(drift, stretched)
