"""Where a run's input lies in the output: blocks of it, each with a length of its own. Pure.

Borders of blocks lie where an input and an output sample coincide, so that each block can be
resampled by itself. A block that is *stretched* has some output samples more, or less, than its
rates give: that is how a source whose clock runs slow or fast against ours is kept in its place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import cache
from math import ceil, gcd
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BLOCK_SECONDS = 0.5
"""Least length of a block, seconds of input. A longer one costs less (setting up a filter for
each), a shorter one can be rendered sooner after it was heard."""


@cache
def block_lengths(rate_in: int, rate_out: int) -> tuple[int, int]:
    """Return a block's length in input samples, and in output samples where it is not stretched.

    Raises:
        ValueError: A rate is below 1.
    """
    if rate_in < 1 or rate_out < 1:
        raise ValueError(f"a sample rate is 1 Hz or more: {rate_in} to {rate_out} Hz")
    common = gcd(rate_in, rate_out)
    unit_in, unit_out = rate_in // common, rate_out // common
    units = ceil(BLOCK_SECONDS * rate_in / unit_in)
    return units * unit_in, units * unit_out


@dataclass(slots=True)
class Grid:
    """The blocks of one run.

    Attributes:
        rate_in: Hz.
        rate_out: Hz.
        block_in: Length of a block, input samples.
        block_out: Length of a block that is not stretched, output samples.
        blocks: Numbers of the stretched blocks that are kept, ascending.
        totals: For each of them, output samples inserted up to its end since the run's begin;
            negative where samples were taken out.
        before: What was inserted before the first that is kept.

    Raises:
        ValueError: A rate is below 1.
    """

    rate_in: int
    rate_out: int
    blocks: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    before: int = 0
    block_in: int = field(init=False)
    block_out: int = field(init=False)

    def __post_init__(self) -> None:
        """Find out the blocks' lengths."""
        self.block_in, self.block_out = block_lengths(self.rate_in, self.rate_out)

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON types, for the constructor."""
        names = ("rate_in", "rate_out", "blocks", "totals", "before")
        return {name: getattr(self, name) for name in names}

    @property
    def inserted(self) -> int:
        """Output samples inserted since the run's begin."""
        return self.totals[-1] if self.totals else self.before

    def stretch(self, block: int, extra: int) -> None:
        """Give a block, behind all stretched so far, `extra` output samples more (or less)."""
        if extra:
            total = self.inserted + extra
            self.blocks.append(block)
            self.totals.append(total)

    def added(self, block: int) -> int:
        """Return how many output samples a block has more than its rates give."""
        index = bisect_left(self.blocks, block)
        if index == len(self.blocks) or self.blocks[index] != block:
            return 0
        return self.totals[index] - (self.totals[index - 1] if index else self.before)

    def block_start(self, block: int) -> int:
        """Return the output sample a block begins at."""
        index = bisect_left(self.blocks, block)
        return block * self.block_out + (self.totals[index - 1] if index else self.before)

    def output(self, count: int) -> int:
        """Return how many output samples the first `count` input samples make, rounded half up."""
        if not self.blocks and not self.before:
            return plain_length(count, self.rate_in, self.rate_out)
        block_in = self.block_in
        block, within = divmod(count, block_in)
        length = self.block_out + self.added(block)
        return self.block_start(block) + plain_length(within, block_in, length)

    def outputs(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `output` of each of many counts."""
        if not self.blocks and not self.before:
            return plain_lengths(counts, self.rate_in, self.rate_out)
        block: NDArray[np.int64] = counts // self.block_in
        totals = np.array([self.before, *self.totals])
        index = np.searchsorted(self.blocks, block)
        before = totals[index]
        # Of a block that is stretched itself, what it adds.
        stretched = np.array([*self.blocks, -1])[index] == block
        added = np.where(stretched, np.append(totals[1:], 0)[index] - before, 0)
        within = (counts - block * self.block_in) * (self.block_out + added)
        length: NDArray[np.int64] = (within + self.block_in // 2) // self.block_in
        outputs: NDArray[np.int64] = block * self.block_out + before + length
        return outputs

    def copy(self) -> Self:
        """Return one of its own that is the same."""
        return type(self)(
            self.rate_in, self.rate_out, self.blocks.copy(), self.totals.copy(), self.before
        )

    def block_of(self, output: int) -> int:
        """Return the block an output sample lies in; not one that was forgotten."""
        if not self.blocks:
            return (output - self.before) // self.block_out
        # The last stretched block that begins at or before it, then on in plain ones.
        index = bisect_right(self.blocks, output, key=self.block_start)
        if not index:
            return (output - self.before) // self.block_out
        block = self.blocks[index - 1]
        behind = output - self.block_start(block) - self.block_out - self.added(block)
        return block if behind < 0 else block + 1 + behind // self.block_out

    def forget_before(self, block: int) -> None:
        """Drop what is known of blocks before `block`; nothing is asked about them any more."""
        index = bisect_left(self.blocks, block)
        if index:
            self.before = self.totals[index - 1]
            del self.blocks[:index], self.totals[:index]


def plain_length(count: int, rate_in: int, rate_out: int) -> int:
    """Return how many samples `count` make at another rate, rounded half up."""
    return count if rate_in == rate_out else (count * rate_out + rate_in // 2) // rate_in


def plain_lengths(counts: NDArray[np.int64], rate_in: int, rate_out: int) -> NDArray[np.int64]:
    """Return `plain_length` of each of many counts."""
    if rate_in == rate_out:
        return counts
    return (counts * rate_out + rate_in // 2) // rate_in
