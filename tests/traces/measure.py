"""How far a recorded track is from what was heard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.trace import Heard, TrackTruth
from traces.voice import Signal

SEARCH_RATE = 8000
STRETCH_SECONDS = 0.2
NEAR_SECONDS = 0.2
FAR_SECONDS = 60.0
SURE = 0.65
FOUND = 0.35
"""Least correlation: chance gives 0.2 at most, half a stretch 0.7."""

QUIET = 45.0
"""Below this, for `RUN_SECONDS`, there is no voice: it crosses zero much faster."""

RUN_SECONDS = 0.002
BREAK_SECONDS = 0.001
EDGE_SECONDS = 0.004
BLOCK = 80
"""10 ms at 8 kHz: the least that is said to be there, or lost."""

ALIKE = 0.35
"""Least correlation of a block: several sigmas above chance, and two voices at once have 0.7."""

PIECE_SECONDS = 30.0

_BATCH = 256

Samples = NDArray[np.int16]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Errors:
    """Of a recording, in milliseconds; see `Bounds`."""

    length: float = 0.0
    placement: float = 0.0
    inserted: float = 0.0
    lost: float = 0.0
    phantom: float = 0.0

    def beside(self, other: Errors) -> Errors:
        """Return the worse length and placement, and the sums of the rest."""
        return Errors(
            max(self.length, other.length, key=abs),
            max(self.placement, other.placement, key=abs),
            self.inserted + other.inserted,
            self.lost + other.lost,
            self.phantom + other.phantom,
        )


@dataclass(slots=True)
class Stretch:
    """A short piece of speech, looked for in the recording.

    Attributes:
        heard: Which speech it is of.
        start: Where it was heard, seconds.
        seconds: Its length.
        step: Seconds from the one before to here.
        found: Where it is in the recording, or None.
        needle: The voice in it, once it was asked for.
    """

    heard: Heard
    start: float
    seconds: float
    step: float
    found: float | None = None
    needle: Signal | None = None


def measure(
    recorded: Samples, rate: int, truths: Sequence[TrackTruth], every: float = 0.1
) -> Errors:
    """Compare a track with what was heard on it, by one speaker or by several at once.

    Args:
        recorded: The samples.
        rate: Hz, a multiple of 8000.
        truths: The speakers'.
        every: Seconds between the stretches that are looked for.
    """
    search = recorded[:: rate // SEARCH_RATE].astype(np.float32)
    worst = inserted = lost = 0.0
    explained: list[Span] = []
    for truth in truths:
        stretches = _stretches(truth, every)
        finder = _Finder(search, truth)
        finder.find(stretches)
        lost += _missing(finder, stretches, explained)
        inside: list[Span] = []
        for before, stretch in zip([None, *stretches], stretches, strict=False):
            if stretch.found is None:
                continue
            worst = max(worst, stretch.found - stretch.start, key=abs)
            if before is None or before.found is None or before.heard is not stretch.heard:
                continue
            end = stretch.found + stretch.seconds
            moved = stretch.found - before.found - stretch.step
            if moved > -stretch.step:
                inside.append((before.found + BREAK_SECONDS, end - BREAK_SECONDS))
            if every > STRETCH_SECONDS:  # in between nobody has looked
                lost -= min(0.0, moved + BREAK_SECONDS)
                explained.append((before.found, end))
        inserted += _quiet(recorded, rate, inside)
    phantom = _sounds(recorded, rate, explained)
    return Errors(0.0, worst * 1e3, inserted * 1e3, lost * 1e3, phantom * 1e3)


def _stretches(truth: TrackTruth, every: float) -> list[Stretch]:
    """Cut speech into stretches; the last of each lies at its very end."""
    stretches = []
    for heard in truth.heard:
        seconds = min(STRETCH_SECONDS, heard.end - heard.start)
        if seconds < EDGE_SECONDS * 4:
            continue
        last = heard.end - seconds
        starts = [*np.arange(heard.start, last - 1e-3, every), last]
        before = heard.start - seconds
        for start in starts:
            # On the grid of the search: what is in its place is found at its very start.
            place = round(float(start) * SEARCH_RATE) / SEARCH_RATE
            stretches.append(Stretch(heard, place, seconds, place - before))
            before = place
    return stretches


def _missing(finder: _Finder, stretches: Sequence[Stretch], explained: list[Span]) -> float:
    """Return the seconds of speech that are nowhere; note what of the track is explained."""
    end = max((stretch.start + stretch.seconds for stretch in stretches), default=0.0)
    said = np.zeros(round(end * SEARCH_RATE) + BLOCK, dtype=bool)
    there = np.zeros_like(said)
    for stretch in stretches:
        first = round(stretch.start * SEARCH_RATE)
        said[first : first + round(stretch.seconds * SEARCH_RATE)] = True
        if stretch.found is None:
            continue
        for block in np.flatnonzero(finder.blocks_alike(stretch)) * BLOCK:
            there[first + block : first + block + BLOCK] = True
            place = stretch.found + block / SEARCH_RATE
            explained.append((place - EDGE_SECONDS, place + BLOCK / SEARCH_RATE + EDGE_SECONDS))
    missing = _runs(said & ~there)
    lengths = missing[:, 1] - missing[:, 0]
    # What is left over of the last block of a stretch is too short to be told.
    return float(lengths[lengths >= BLOCK // 2].sum()) / SEARCH_RATE


class _Finder:
    """Finds stretches of one voice in a track at 8 kHz."""

    def __init__(self, track: Signal, truth: TrackTruth) -> None:
        self._track = track
        self._truth = truth

    def find(self, stretches: Sequence[Stretch]) -> None:
        """Note where each stretch is."""
        by_length: dict[int, list[Stretch]] = {}
        for stretch in stretches:
            by_length.setdefault(round(stretch.seconds * SEARCH_RATE), []).append(stretch)
        unsure: list[tuple[Stretch, float]] = []
        for count, alike in by_length.items():
            for first in range(0, len(alike), _BATCH):
                unsure += self._near(alike[first : first + _BATCH], count)
        shift = 0.0
        for stretch, likeness in sorted(unsure, key=lambda pair: pair[0].start):
            shift = self._elsewhere(stretch, likeness, shift)

    def blocks_alike(self, stretch: Stretch) -> NDArray[np.bool_]:
        """Return which blocks of a stretch are at the place where it was found."""
        blocks = max(1, round(stretch.seconds * SEARCH_RATE) // BLOCK)
        wanted = self._needle(stretch, blocks * BLOCK).reshape(blocks, BLOCK)
        place = round((stretch.found or 0.0) * SEARCH_RATE)
        got = self._cut(place, blocks * BLOCK).reshape(blocks, BLOCK)
        norms = np.sqrt((wanted**2).sum(axis=1) * np.maximum((got**2).sum(axis=1), 1.0))
        alike: NDArray[np.bool_] = (wanted * got).sum(axis=1) >= ALIKE * norms
        return alike

    def _near(self, stretches: Sequence[Stretch], count: int) -> list[tuple[Stretch, float]]:
        """Look where the stretches were heard; return those that are not surely there."""
        reach = round(NEAR_SECONDS * SEARCH_RATE)
        size = 1 << (count + 2 * reach).bit_length()
        needles = np.zeros((len(stretches), size), np.float32)
        hay = np.zeros((len(stretches), size), np.float32)
        lows = []
        for row, stretch in enumerate(stretches):
            needles[row, :count] = self._needle(stretch, count)
            low = round(stretch.start * SEARCH_RATE) - reach
            lows.append(low)
            hay[row, : count + 2 * reach] = self._cut(low, count + 2 * reach)
        spectra = np.fft.rfft(hay, axis=1) * np.conj(np.fft.rfft(needles, axis=1))
        products = np.fft.irfft(spectra, size, axis=1)[:, : 2 * reach + 1]
        unsure = []
        for row, stretch in enumerate(stretches):
            norm = float(np.linalg.norm(needles[row]))
            place, likeness = _peak(products[row], hay[row], count, norm)
            place += lows[row] / SEARCH_RATE
            if likeness >= SURE:
                stretch.found = place
            else:
                stretch.found = place if likeness >= FOUND else None
                unsure.append((stretch, likeness))
        return unsure

    def _elsewhere(self, stretch: Stretch, likeness: float, shift: float) -> float:
        """Look where the one before would have it, and then far around; return how far off."""
        for around, reach in ((stretch.start + shift, 0.5), (stretch.start, FAR_SECONDS)):
            place, found = self._look(stretch, around, reach)
            if found > likeness + 0.05:
                likeness = found
                stretch.found = place if found >= FOUND else None
            if likeness >= SURE:
                break
        return shift if stretch.found is None else stretch.found - stretch.start

    def _look(self, stretch: Stretch, around: float, reach: float) -> tuple[float, float]:
        count = round(stretch.seconds * SEARCH_RATE)
        needle = self._needle(stretch, count)
        low = round((around - reach) * SEARCH_RATE)
        high = round((around + reach) * SEARCH_RATE) + count
        low, high = max(low, -count), min(high, len(self._track) + count)
        if high - low <= count:
            return 0.0, 0.0
        size = 1 << (high - low).bit_length()
        hay = self._cut(low, high - low)
        spectrum = np.fft.rfft(hay, size) * np.conj(np.fft.rfft(needle, size))
        products = np.fft.irfft(spectrum, size)[: high - low - count + 1]
        place, likeness = _peak(products, hay, count, float(np.linalg.norm(needle)))
        return place + low / SEARCH_RATE, likeness

    def _needle(self, stretch: Stretch, count: int) -> Signal:
        """Return the voice as it is in a stretch."""
        needle = stretch.needle
        if needle is None:
            heard = stretch.heard
            content = heard.content + (stretch.start - heard.start) * heard.pace
            size = round(stretch.seconds * SEARCH_RATE)
            needle = self._truth.voice.samples(content, size, SEARCH_RATE / heard.pace)
            stretch.needle = needle
        return needle[:count]

    def _cut(self, low: int, count: int) -> Signal:
        """Return samples [low, low + count) of the track, and silence around it."""
        cut = np.zeros(count, np.float32)
        start, end = max(low, 0), min(low + count, len(self._track))
        if start < end:
            cut[start - low : end - low] = self._track[start:end]
        return cut


def _peak(
    products: NDArray[np.float64], hay: Signal, count: int, norm: float
) -> tuple[float, float]:
    """Return the place of the best match in the hay, seconds, and its correlation."""
    total = np.concatenate([[0.0], np.cumsum(hay.astype(np.float64) ** 2)])
    energy = total[count : count + len(products)] - total[: len(products)]
    # A few samples of the voice in silence are no match of the whole, however alike.
    energy = np.maximum(energy, (0.5 * norm) ** 2)
    likeness = products / (np.sqrt(energy) * max(norm, 1e-9))
    best = int(np.argmax(likeness))
    place = float(best)
    if 0 < best < len(products) - 1:
        left, middle, right = products[best - 1 : best + 2]
        bend = left - 2 * middle + right
        if bend < 0:
            place += float(0.5 * (left - right) / bend)
    return place / SEARCH_RATE, float(likeness[best])


def _quiet(track: Samples, rate: int, spans: list[Span]) -> float:
    """Return the seconds of spans that lie in runs without a voice."""
    quiet = 0
    for start, end in _pieces(spans):
        part = np.abs(track[_index(start, rate) : _index(end, rate)].astype(np.int32))
        runs = _runs(part < QUIET)
        lengths = runs[:, 1] - runs[:, 0]
        quiet += int(lengths[lengths >= RUN_SECONDS * rate].sum())
    return quiet / rate


def _sounds(track: Samples, rate: int, explained: list[Span]) -> float:
    """Return the seconds of sound that no speech explains."""
    block = round(RUN_SECONDS * rate)
    ends = [0.0, *(end for _, end in _merged(explained))]
    starts = [*(start for start, _ in _merged(explained)), len(track) / rate]
    sound = 0
    for start, end in _pieces(list(zip(ends, starts, strict=True))):
        part = np.abs(track[_index(start, rate) : _index(end, rate)].astype(np.int32))
        whole = part[: len(part) // block * block].reshape(-1, block)
        sound += int(np.count_nonzero(whole.max(axis=1, initial=0) >= QUIET)) * block
    return sound / rate


def _merged(spans: list[Span]) -> list[Span]:
    """Return spans in order, with those that touch made one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _pieces(spans: list[Span]) -> Iterator[Span]:
    """Return merged spans, none too long to be looked at in one go."""
    for start, end in _merged(spans):
        while end - start > PIECE_SECONDS:
            yield start, start + PIECE_SECONDS
            start += PIECE_SECONDS
        if start < end:
            yield start, end


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the [start, end) of each run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def _index(seconds: float, rate: int) -> int:
    return max(0, round(seconds * rate))
