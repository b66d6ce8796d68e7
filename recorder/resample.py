"""Sample rate conversion that can stop and start anywhere and still gives the same samples.

A streaming resampler carries state: what it gives depends on how it was fed, and a process that
restarts cannot go on. Here the output is a pure function of the input. It is computed in blocks
on a fixed grid that begins with the run's first sample; each is resampled by itself, with as much
of its neighbours' input beside it as the filter sees, and cut out. Block borders lie where an
input and an output sample coincide, so blocks join without a seam and without delay.

A run is a stretch of one track at one input rate; it begins and ends in silence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from math import ceil, gcd

import numpy as np
import numpy.typing as npt
import soxr

from recorder.grid import Grid

Samples = npt.NDArray[np.int16]
Blocks = npt.NDArray[np.float32] | Samples
"""Shape (blocks, samples of one); whole numbers that 16 bits hold, whatever their type."""

CONTEXT_SAMPLES = 160
"""Least input beside a block, samples of the lower rate: 10 ms at 16 kHz. soxr's HQ filter reaches
about 100 of them; beyond its reach more changes nothing, and costs what it is long."""

_QUALITY = "HQ"  # 20 bits: its noise is below a 16-bit sample's
_CACHED_BLOCKS = 2

_TOGETHER = 8
"""Blocks that are resampled in one call, as its channels: setting up the filter is done once."""

_KEPT_BYTES = 2 << 20
"""More than is allocated for these, here and in soxr."""


class BlockResampler:
    """Resamples one run, any range of it at any time. Not for several threads at once.

    Attributes:
        grid: The run's blocks; grows with it.
        context: Input samples beside a block.

    Args:
        grid: The run's blocks.
    """

    def __init__(self, grid: Grid) -> None:
        _keep_memory()
        self.grid = grid
        common = gcd(grid.rate_in, grid.rate_out)
        unit_in = grid.rate_in // common
        lower = min(grid.rate_in, grid.rate_out)
        units = ceil(CONTEXT_SAMPLES * grid.rate_in / (lower * unit_in))
        self.context = units * unit_in
        self._context_out = units * (grid.rate_out // common)
        self._cached: OrderedDict[tuple[int, int], Blocks] = OrderedDict()

    def available_output(self, n_in: int, final: bool) -> int:
        """Return how many output samples, from the run's first, can be rendered now.

        Args:
            n_in: Input samples that are there.
            final: Whether that is the whole run.
        """
        grid = self.grid
        if final:
            return grid.output(n_in)
        block = max(0, (n_in - self.context) // grid.block_in)
        while self._is_plain(block) and block * grid.block_in < n_in:
            block += 1
        return min(grid.output(n_in), grid.block_start(block))

    def needed_input(self, out_start: int, out_end: int, n_in: int) -> tuple[int, int]:
        """Return the input range [start, end) that `render` of an output range reads, or more.

        Args:
            out_start: First output sample.
            out_end: The one after the last.
            n_in: Input samples that are there: the range does not go beyond.
        """
        grid = self.grid
        first = grid.block_of(out_start)
        if self._is_plain(first):
            start = first * grid.block_in + out_start - grid.block_start(first)
        else:
            start = first * grid.block_in
        # Also where this block is plain: the next one may reach back.
        start = min(max(0, start - self.context), n_in)
        if out_start >= out_end:
            return start, start
        last = grid.block_of(out_end - 1)
        if self._is_plain(last):
            return start, min(last * grid.block_in + out_end - grid.block_start(last), n_in)
        return start, self._block_input(last, n_in)[1]

    def render(
        self,
        out_start: int,
        out_end: int,
        fetch: Callable[[int, int], Samples],
        n_in: int,
        final: bool,
        output: Samples | None = None,
    ) -> Samples:
        """Return the output samples [out_start, out_end), the same however they are asked for.

        Args:
            out_start: First output sample.
            out_end: The one after the last; at most `available_output(n_in, final)`.
            fetch: Returns the input samples [start, end), which lie within 0 and `n_in`; they
                never change.
            n_in: Input samples that are there.
            final: Whether that is the whole run: silence follows.
            output: Where to put them, of that length; somewhere new if None.

        Returns:
            16-bit samples; what would exceed them is saturated. Not to be written to where no
            `output` was given: it may be what `fetch` returned.

        Raises:
            ValueError: The range is not available, or `fetch` returned another number of samples.
        """
        available = self.available_output(n_in, final)
        if not 0 <= out_start <= out_end <= available:
            raise ValueError(
                f"output [{out_start}, {out_end}) was asked for, [0, {available}) is available"
            )
        grid = self.grid
        if output is None:
            if grid.rate_in == grid.rate_out and not grid.blocks:
                return _fetched(fetch, out_start - grid.before, out_end - grid.before)
            output = np.empty(out_end - out_start, np.int16)
        position = out_start
        while position < out_end:
            index = grid.block_of(position)
            begin = grid.block_start(index)
            if self._is_plain(index):
                end = min(grid.block_start(index + 1), out_end)
                first = index * grid.block_in + position - begin
                part = _fetched(fetch, first, first + end - position)
                output[position - out_start : end - out_start] = part
            else:
                blocks = self._blocks_from(index, out_end, fetch, n_in)
                end = min(begin + blocks.size, out_end)
                _lay(blocks, position - begin, output[position - out_start : end - out_start])
            position = end
        return output

    def _is_plain(self, index: int) -> bool:
        """Return whether a block's output is its input."""
        return self.grid.rate_in == self.grid.rate_out and not self.grid.added(index)

    def _block_input(self, index: int, n_in: int) -> tuple[int, int]:
        """Return the input range of block `index` with its context, as far as it exists."""
        start = index * self.grid.block_in - self.context
        end = (index + 1) * self.grid.block_in + self.context
        return min(max(start, 0), n_in), min(end, n_in)

    def _blocks_from(
        self, index: int, out_end: int, fetch: Callable[[int, int], Samples], n_in: int
    ) -> Blocks:
        """Return block `index` of the output, a row, with those after it that can be made with it.

        They are of full length even at the run's end; none begins at `out_end` or behind.
        """
        key = (index, self._block_input(index, n_in)[1])
        if (cached := self._cached.get(key)) is not None:
            self._cached.move_to_end(key)
            return cached
        grid = self.grid
        extra, until = grid.added(index), index + 1
        begin = grid.block_start(index)
        most = min(_TOGETHER, ceil((out_end - begin) / (grid.block_out + extra)))
        while until - index < most and grid.added(until) == extra:
            until += 1
        made = self._made(range(index, until), extra, fetch, n_in)
        newest = until - 1
        self._cached[newest, self._block_input(newest, n_in)[1]] = made[-1:].astype(np.int16)
        if len(self._cached) > _CACHED_BLOCKS:
            self._cached.popitem(last=False)
        return made

    def _made(
        self, blocks: range, extra: int, fetch: Callable[[int, int], Samples], n_in: int
    ) -> Blocks:
        """Resample blocks that are stretched by the same, each by itself; whole numbers."""
        grid = self.grid
        if extra:
            # Only a whole block is a whole number of samples at this ratio: so much is before it.
            before, skip = grid.block_in, grid.block_out + extra
            ratio = grid.block_in, grid.block_out + extra
        else:
            before, skip = self.context, self._context_out
            ratio = grid.rate_in, grid.rate_out
        first = self._block_input(blocks[0], n_in)[0]
        end = self._block_input(blocks[-1], n_in)[1]
        # Floats, since soxr gives 16-bit output other, dithered roundings. Before and after the
        # run there is silence, of the same length in every block: the filter sees no border.
        begin = blocks[0] * grid.block_in - before
        whole = np.zeros((len(blocks) - 1) * grid.block_in + self._length(before), np.float32)
        whole[first - begin : end - begin] = _fetched(fetch, first, end)
        step = whole.itemsize
        shape, strides = (len(blocks), self._length(before)), (grid.block_in * step, step)
        # Each row begins within the one before it.
        rows = np.ndarray(shape, np.float32, whole, strides=strides)
        if before > self.context:
            rows = rows.copy()
            rows[:, : before - self.context] = 0
        # As channels, each of which soxr works on by itself: it changes none of them.
        resampled: npt.NDArray[np.float32] = soxr.resample(rows.T, *ratio, quality=_QUALITY)
        cut = resampled[skip : skip + grid.block_out + extra].T
        np.rint(cut, out=cut)
        np.clip(cut, -32768, 32767, out=cut)
        return cut

    def _length(self, before: int) -> int:
        """Return how much input a block is resampled with, if there is so much before it."""
        return before + self.grid.block_in + self.context


def _lay(blocks: Blocks, begin: int, output: Samples) -> None:
    """Put samples of blocks that lie one behind the other, from `begin` on, into an output."""
    length = blocks.shape[1]
    row, within = divmod(begin, length)
    filled = 0
    while filled < len(output):
        left = len(output) - filled
        if not within and left >= length:
            rows = left // length
            output[filled : filled + rows * length].reshape(rows, length)[:] = blocks[
                row : row + rows
            ]
            row += rows
            filled += rows * length
        else:
            count = min(length - within, left)
            output[filled : filled + count] = blocks[row, within : within + count]
            row, within, filled = row + 1, 0, filled + count


@cache
def _keep_memory() -> None:
    """Let go of a large piece of memory, once.

    glibc takes from it how much to keep at hand rather than to give back to the system at once:
    to have the same pages given anew for each call costs half as much as to resample.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def _fetched(fetch: Callable[[int, int], Samples], start: int, end: int) -> Samples:
    samples = fetch(start, end)
    if samples.shape != (end - start,):
        raise ValueError(f"samples [{start}, {end}) were to be fetched, got {samples.shape}")
    return samples
