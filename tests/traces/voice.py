"""A voice whose every stretch is unlike every other: where it lies is found by correlation.

Binary noise, drawn anew for every second, is band-limited to 2.6 kHz: it passes through telephony
and any resampling as it is. It can be taken at any time and rate, also from a clock that drifts.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]

LEVEL = 3000.0
"""Root mean square, roughly; peaks stay below 16,000."""

_COARSE = 6000
_UP = 4
_BASE = _COARSE * _UP
_CUTOFF = 2600.0
_TAPS = 32
_KEPT_SECONDS = 8
_POINTS = 8


class Voice:
    """What one speaker says, on a time axis of its own.

    Args:
        seed: Another one, another voice.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seconds: OrderedDict[int, Signal] = OrderedDict()
        self._drawn: dict[int, Signal] = {}

    def samples(self, start: float, count: int, rate: float) -> Signal:
        """Return the voice at `start`, `start + 1 / rate` and so on, seconds."""
        first, step = start * _BASE, _BASE / rate
        nearest, whole = round(first), round(step)
        if abs(first - nearest) < 1e-4 and abs(step - whole) * count < 1e-4:
            return self._base(nearest, (count - 1) * whole + 1)[::whole]
        places = first + step * np.arange(count)
        low = int(places[0]) - _POINTS
        base = self._base(low, int(places[-1]) + 2 * _POINTS - low)
        index = places.astype(np.int64)
        fraction = places - index
        index -= low
        table = _interpolator()
        weights = table[np.rint(fraction * (len(table) - 1)).astype(np.int64)]
        span = np.lib.stride_tricks.sliding_window_view(base, _POINTS)
        result: Signal = np.einsum("ij,ij->i", span[index - _POINTS // 2 + 1], weights)
        return result

    def _base(self, start: int, count: int) -> Signal:
        """Return samples at 24 kHz."""
        first, last = start // _BASE, (start + count - 1) // _BASE
        whole = np.concatenate([self._second(second) for second in range(first, last + 1)])
        offset = start - first * _BASE
        return whole[offset : offset + count]

    def _second(self, second: int) -> Signal:
        known = self._seconds.get(second)
        if known is not None:
            return known
        bits = np.concatenate(
            [
                self._bits(second - 1)[-_TAPS // 2 :],
                self._bits(second),
                self._bits(second + 1)[: _TAPS // 2],
            ]
        )
        spans = np.lib.stride_tricks.sliding_window_view(bits, _TAPS)[:_COARSE]
        made = (spans @ _kernel()).reshape(-1)
        self._seconds[second] = made
        while len(self._seconds) > _KEPT_SECONDS:
            self._seconds.popitem(last=False)
        return made

    def _bits(self, second: int) -> Signal:
        # Seeds are not negative; a voice may be asked for a moment before its zero.
        drawn = self._drawn.get(second)
        if drawn is None:
            if len(self._drawn) > _KEPT_SECONDS:
                self._drawn.clear()
            rng = np.random.default_rng((self._seed, second + 1_000_000))
            drawn = rng.integers(0, 2, _COARSE).astype(np.float32) * 2 - 1
            self._drawn[second] = drawn
        return drawn


@lru_cache
def _kernel() -> Signal:
    """Weights of coarse samples for each of the finer ones between two."""
    offsets = np.arange(_TAPS)[:, None] - _TAPS // 2 - np.arange(_UP)[None, :] / _UP
    weights = np.sinc(offsets * 2 * _CUTOFF / _COARSE) * 2 * _CUTOFF / _COARSE
    window = 0.5 + 0.5 * np.cos(np.pi * np.clip(offsets / (_TAPS / 2), -1, 1))
    return (weights * window * LEVEL).astype(np.float32)


@lru_cache
def _interpolator() -> Signal:
    """Lagrange weights of the points around a place, for fractions 0 to 1 of a sample."""
    fractions = np.linspace(0, 1, 16_385)
    points = np.arange(_POINTS) - (_POINTS // 2 - 1)
    table = np.ones((len(fractions), _POINTS))
    for one in range(_POINTS):
        for other in range(_POINTS):
            if one != other:
                table[:, one] *= (fractions - points[other]) / (points[one] - points[other])
    return table.astype(np.float32)
