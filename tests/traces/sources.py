"""A sampling clock that reads a voice: samples from any point on, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traces.pcm import encode
from traces.trace import Encoding
from traces.voice import Signal, Voice

Span = tuple[float, float]


@dataclass(frozen=True)
class Format:
    """What frames are made of.

    Attributes:
        rate: Hz.
        channels: 1 or more.
        encoding: Of the bytes.
        frame: Seconds.
    """

    rate: int = 16_000
    channels: int = 1
    encoding: Encoding = "pcm16"
    frame: float = 0.02

    @property
    def count(self) -> int:
        """Samples of a frame."""
        return round(self.rate * self.frame)


class Sampled:
    """A voice as a device samples it.

    Args:
        voice: Whose.
        content: Which second of the voice the first sample is.
        form: The format.
        ppm: By how much the device's clock is fast, parts per million.
        speech: Where the voice is heard, on its own time axis; elsewhere there is silence.
    """

    def __init__(
        self, voice: Voice, content: float, form: Format, ppm: float, speech: Sequence[Span] | None
    ) -> None:
        self.rate = form.rate * (1 + ppm * 1e-6)
        self._voice = voice
        self._content = content
        self._form = form
        self._speech = speech
        self._block = -1
        self._bytes = b""
        self._width = form.channels * (2 if form.encoding == "pcm16" else 1)

    def pcm(self, first: int, count: int) -> bytes:
        """Return samples [first, first + count)."""
        pieces = []
        while count > 0:
            block, within = divmod(first, self._form.rate)
            taken = min(count, self._form.rate - within)
            if block != self._block:
                self._block, self._bytes = block, self._render(block)
            pieces.append(self._bytes[within * self._width : (within + taken) * self._width])
            first, count = first + taken, count - taken
        return b"".join(pieces)

    def _render(self, block: int) -> bytes:
        form = self._form
        start = self._content + block * form.rate / self.rate
        signal = self._heard(start)
        spread = None
        if form.channels > 1:
            spread = self._voice.samples(start + 500.0, form.rate, self.rate)
        return encode(signal, form.channels, form.encoding, spread)

    def _heard(self, start: float) -> Signal:
        count = self._form.rate
        if self._speech is None:
            return self._voice.samples(start, count, self.rate)
        signal = np.zeros(count, np.float32)
        for begin, end in self._speech:
            low = max(0, _ceil((begin - start) * self.rate))
            high = min(count, _ceil((end - start) * self.rate))
            if low < high:
                at = start + low / self.rate
                signal[low:high] = self._voice.samples(at, high - low, self.rate)
        return signal


def _ceil(value: float) -> int:
    """Return the first whole number not below, to a rounding error."""
    return int(np.ceil(value - 1e-6))


def without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """Return what of spans lies in no hole."""
    left = sorted(spans)
    for hole_start, hole_end in holes:
        cut: list[Span] = []
        for start, end in left:
            cut.append((start, min(end, hole_start)))
            cut.append((max(start, hole_end), end))
        left = [(start, end) for start, end in cut if end - start > 1e-9]
    return sorted(left)
