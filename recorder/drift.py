"""Keeps a source whose clock runs slow or fast against ours in its place. Pure.

Frames arrive late, never early, so the least lag of some seconds shows how far a source's clock
has moved, whatever the jitter. Where that is more than a few milliseconds, blocks are stretched a
little until it is gone: at most `MAX_STRETCH` in frequency. Just noticeable variations of frequency
are about 0.7 % above 500 Hz and 3.6 Hz below (Zwicker and Fastl, Psychoacoustics, 7.2).

To stretch a block costs several times as much as to resample it, mostly for a filter of its own. So
few are, all by the same, and those in a row can share the filter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self, cast

WINDOW_SECONDS = 5.0
"""How far back the least lag is looked for: longer than jitter; drift in it is 2.5 ms at most."""

BEGIN_SECONDS = 0.004
"""From here on it is corrected..."""

END_SECONDS = 0.001
"""... until here."""

STEADY_SECONDS = 0.01
"""More between the halves of a window is no drift, but a burst that goes on."""

MOST_SECONDS = 0.25
"""More is no drift: the source is not in real time, or a pause is still to be noticed."""

STRETCH = 0.0005
"""By so much of its length a block is stretched: from 4 ms down to 1 ms in 6 s."""

MUCH_SECONDS = 0.006
"""From here on it is twice as much, and from twice this on, `MAX_STRETCH`."""

MAX_STRETCH = 0.002

KNOWN_SECONDS = 30.0
"""By so much steady lag it is known how fast a clock moves..."""

MAX_DRIFT = 0.0005
"""... and no clock moves faster."""


@dataclass(slots=True)
class Drift:
    """What is known of a run's clock.

    Attributes:
        minima: The least lag, output samples, in each of the newest blocks, as if none had been
            stretched; the last is of the block that goes on. None where nothing arrived in a block.
        blocks: How many blocks of the run have begun.
        correcting: Whether it is being corrected: 1 where it is slow, -1 where it is fast, or 0.
        offset: Lag that is not the clock's: what it has stepped by.
        moved: How far the clock had moved when lag was steady last, output samples.
        unknown: In how many blocks since then it was not steady.
        steady: In how many blocks it was, in all.
        corrected: Output samples inserted in all, whatever runs they are in.
    """

    minima: list[int | None] = field(default_factory=list)
    blocks: int = 0
    correcting: int = 0
    offset: int = 0
    moved: int = 0
    unknown: int = 0
    steady: int = 0
    corrected: int = 0

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON types, for the constructor."""
        return {name: getattr(self, name) for name in self.__slots__}

    def copy(self) -> Self:
        """Return one of its own that is the same."""
        return replace(self, minima=self.minima.copy())

    def go_on(self, inserted: int) -> None:
        """Go on in another run, which follows one that had so much inserted."""
        self.minima = [None if least is None else least - inserted for least in self.minima]
        self.blocks = 0

    def note(self, lag: int) -> None:
        """Take a frame's lag against the run as it would be if no block had been stretched."""
        least = self.minima[-1]
        self.minima[-1] = lag if least is None else min(least, lag)

    def pass_over(
        self, first: int, least: list[int], block_out: int, sample_rate: int, inserted: int
    ) -> bool:
        """Take the least lags of blocks in a row at once, if none of them can be one to stretch.

        Args:
            first: The first block's number: that of the block that goes on, or of the next.
            least: The least lag of each.
            block_out: See `next_block`.
            sample_rate: Likewise.
            inserted: Likewise.

        Returns:
            Whether they were taken: then this is what `next_block` and `note` would have made of
            it. False also where only they can tell.
        """
        window, _ = _bounds(block_out, sample_rate)
        minima, begun = self.minima, first + len(least) - self.blocks
        if self.correcting or self.unknown or begun < 1 or len(minima) < window:
            return False
        series = minima + least
        if first < self.blocks:
            last = minima[-1]
            at = len(minima) - 1
            series[at : at + 2] = [least[0] if last is None else min(last, least[0])]
        if None in series:
            return False
        known = cast("list[int]", series)
        low, high = min(known), max(known)
        base, most = inserted + self.offset, BEGIN_SECONDS * sample_rate
        if low - base <= -most or high - base >= most:
            return False
        # Steady it is, too: twice `BEGIN_SECONDS` is less than `STEADY_SECONDS`.
        self.minima = series[-window:]
        self.moved = min(known[-window - 1 : -1][: window // 2]) - base + self.corrected
        self.blocks += begun
        self.steady += begun
        return True

    def next_block(self, block_out: int, sample_rate: int, inserted: int, *, steps: bool) -> int:
        """Return by how many output samples the block that begins now is to be stretched.

        Args:
            block_out: Its length, output samples.
            sample_rate: Of the output, Hz.
            inserted: What was inserted into the run so far.
            steps: Whether lag that comes or goes at once is not the clock's: a way that got longer,
                a queue that was filled.
        """
        window, tolerance = _bounds(block_out, sample_rate)
        minima = self.minima
        halves = _steady(minima, window, tolerance)
        self.blocks += 1
        minima.append(None)
        if len(minima) > window:
            del minima[:-window]
        if halves is None:
            self.unknown += 1
            return 0
        older, newer = halves
        least = older if older < newer else newer
        lag = least - inserted - self.offset
        if steps and self.unknown:
            meanwhile = self._meanwhile(self.unknown + window // 2, block_out, sample_rate)
            step = lag + self.corrected - self.moved - meanwhile
            self.offset += step
            lag -= step
        self.unknown = 0
        self.steady += 1
        # By the older half: in the newer one, lag may have begun to step.
        self.moved = older - inserted - self.offset + self.corrected
        if not self.correcting and abs(lag) < BEGIN_SECONDS * sample_rate:
            return 0  # nearly always: the rest would find the same
        if abs(lag) > MOST_SECONDS * sample_rate:
            self.correcting = 0
            return 0
        side = 1 if lag > 0 else -1
        if self.correcting == side:
            threshold = END_SECONDS * sample_rate
        else:
            threshold = BEGIN_SECONDS * sample_rate
            if lag > 0:
                threshold += self._uncertain(least)
        self.correcting = side if abs(lag) >= threshold else 0
        if not self.correcting:
            return 0
        much = abs(lag) / (MUCH_SECONDS * sample_rate)
        stretch = STRETCH if much < 1 else 2 * STRETCH if much < 2 else MAX_STRETCH
        extra = side * max(1, int(stretch * block_out))
        self.corrected += extra
        return extra

    def _uncertain(self, least: int) -> int:
        """Return how far the least lag may be from what it would be without jitter.

        Frames cannot come early, but all of some seconds can come late: about as much as the least
        of a block is above the least of all.
        """
        known = _known(self.minima)
        return sum(known) // len(known) - least if known else 0

    def _meanwhile(self, blocks: int, block_out: int, sample_rate: int) -> int:
        """Return how far the clock moves in so many blocks, if it goes on as before."""
        if self.steady * block_out < KNOWN_SECONDS * sample_rate:
            return 0
        most = int(blocks * block_out * MAX_DRIFT)
        return max(-most, min(most, blocks * self.moved // self.steady))


@cache
def _bounds(block_out: int, sample_rate: int) -> tuple[int, int]:
    """Return a window's length in blocks, and what more than steady lag differs by, samples."""
    window = max(2, round(WINDOW_SECONDS * sample_rate / block_out))
    return window, int(STEADY_SECONDS * sample_rate)


def _steady(minima: list[int | None], window: int, tolerance: int) -> tuple[int, int] | None:
    """Return the least lag in a window's halves; None while it is not full, or lag steps."""
    if len(minima) < window:
        return None
    older, newer = _known(minima[: window // 2]), _known(minima[window // 2 :])
    if not older or not newer:
        return None
    halves = min(older), min(newer)
    return None if abs(halves[0] - halves[1]) > tolerance else halves


def _known(lags: list[int | None]) -> list[int]:
    if None not in lags:
        return cast("list[int]", lags)
    return [lag for lag in lags if lag is not None]
