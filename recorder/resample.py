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
from math import ceil, gcd

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.int16]

#: Least length of a block, seconds of input. A longer one costs less (setting up a filter for
#: each), a shorter one can be rendered sooner after it was heard.
BLOCK_SECONDS = 0.5
#: Least input beside a block, seconds. soxr's HQ filter reaches about 20 ms at 8 kHz, and twice
#: that at 4 kHz; beyond its reach more changes nothing.
CONTEXT_SECONDS = 0.05

_QUALITY = "HQ"  # 20 bits: its noise is below a 16-bit sample's
_CACHED_BLOCKS = 2


class BlockResampler:
    """Resamples one run, any range of it at any time. Not for several threads at once.

    Attributes:
        rate_in: Hertz.
        rate_out: Hertz.
        block_in: Length of a block, input samples.
        block_out: Length of a block, output samples.
        context: Input samples beside a block.

    Args:
        rate_in: Hertz; 1 or more.
        rate_out: Hertz; 1 or more.

    Raises:
        ValueError: A rate is below 1.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        if rate_in < 1 or rate_out < 1:
            raise ValueError(f"a sample rate is 1 Hz or more: {rate_in} to {rate_out} Hz")
        self.rate_in = rate_in
        self.rate_out = rate_out
        common = gcd(rate_in, rate_out)
        self._unit_in, self._unit_out = rate_in // common, rate_out // common
        units = ceil(BLOCK_SECONDS * rate_in / self._unit_in)
        self._context_units = ceil(CONTEXT_SECONDS * rate_in / self._unit_in)
        self.block_in = units * self._unit_in
        self.block_out = units * self._unit_out
        self.context = self._context_units * self._unit_in
        self._blocks: OrderedDict[tuple[int, int], Samples] = OrderedDict()

    def out_length(self, n_in: int) -> int:
        """Return how many samples a whole run of `n_in` becomes: rounded, halves up."""
        return (n_in * self.rate_out + self.rate_in // 2) // self.rate_in

    def available_output(self, n_in: int, final: bool) -> int:
        """Return how many output samples, from the run's first, can be rendered now.

        Args:
            n_in: Input samples that are there.
            final: Whether that is the whole run.
        """
        if final:
            return self.out_length(n_in)
        if self.rate_in == self.rate_out:
            return n_in
        return max(0, (n_in - self.context) // self.block_in) * self.block_out

    def needed_input(self, out_start: int, out_end: int, n_in: int) -> tuple[int, int]:
        """Return the input range [start, end) that `render` of an output range reads.

        Args:
            out_start: First output sample.
            out_end: The one after the last.
            n_in: Input samples that are there: the range does not go beyond.
        """
        if out_start >= out_end:
            start = min(n_in, out_start * self.rate_in // self.rate_out)
            return start, start
        if self.rate_in == self.rate_out:
            return min(out_start, n_in), min(out_end, n_in)
        first, _ = self._block_input(out_start // self.block_out, n_in)
        _, last = self._block_input((out_end - 1) // self.block_out, n_in)
        return first, last

    def render(
        self,
        out_start: int,
        out_end: int,
        fetch: Callable[[int, int], Samples],
        n_in: int,
        final: bool,
    ) -> Samples:
        """Return the output samples [out_start, out_end), the same however they are asked for.

        Args:
            out_start: First output sample.
            out_end: The one after the last; at most `available_output(n_in, final)`.
            fetch: Returns the input samples [start, end), which lie within 0 and `n_in`; they
                never change.
            n_in: Input samples that are there.
            final: Whether that is the whole run: silence follows.

        Returns:
            16-bit samples; what would exceed them is saturated. Not to be written to: it may be
            what `fetch` returned.

        Raises:
            ValueError: The range is not available, or `fetch` returned another number of samples.
        """
        available = self.available_output(n_in, final)
        if not 0 <= out_start <= out_end <= available:
            raise ValueError(
                f"output [{out_start}, {out_end}) was asked for, [0, {available}) is available"
            )
        if self.rate_in == self.rate_out:
            return _fetched(fetch, out_start, out_end)
        output = np.empty(out_end - out_start, np.int16)
        position = out_start
        while position < out_end:
            index, within = divmod(position, self.block_out)
            count = min(self.block_out - within, out_end - position)
            block = self._block(index, fetch, n_in)
            output[position - out_start :][:count] = block[within : within + count]
            position += count
        return output

    def _block_input(self, index: int, n_in: int) -> tuple[int, int]:
        """Return the input range of block `index` with its context, as far as it exists."""
        start = index * self.block_in - self.context
        end = (index + 1) * self.block_in + self.context
        return min(max(start, 0), n_in), min(end, n_in)

    def _block(self, index: int, fetch: Callable[[int, int], Samples], n_in: int) -> Samples:
        """Return block `index` of the output, of full length even at the run's end."""
        start, end = self._block_input(index, n_in)
        key = (index, end)
        if (cached := self._blocks.get(key)) is not None:
            self._blocks.move_to_end(key)
            return cached
        # Floats, since soxr gives 16-bit output other, dithered roundings. Before and after the
        # run there is silence, of the same length in every block: the filter sees no border.
        padded = np.zeros(self.block_in + 2 * self.context, np.float32)
        offset = start - (index * self.block_in - self.context)
        padded[offset : offset + end - start] = _fetched(fetch, start, end)
        resampled: npt.NDArray[np.float32] = soxr.resample(
            padded, self.rate_in, self.rate_out, quality=_QUALITY
        )
        skip = self._context_units * self._unit_out
        block = resampled[skip : skip + self.block_out]
        np.rint(block, out=block)
        np.clip(block, -32768, 32767, out=block)
        self._blocks[key] = result = block.astype(np.int16)
        if len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return result


def _fetched(fetch: Callable[[int, int], Samples], start: int, end: int) -> Samples:
    samples = fetch(start, end)
    if samples.shape != (end - start,):
        raise ValueError(f"samples [{start}, {end}) were to be fetched, got {samples.shape}")
    return samples
