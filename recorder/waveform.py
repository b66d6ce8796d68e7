"""Waveform data: the least and the greatest sample of each stretch of audio. Pure.

The file is BBC audiowaveform's JSON, version 2 (audiowaveform, doc/DataFormat.md): per pixel and
channel a minimum and a maximum, interleaved. peaks.js and wavesurfer.js draw it.

Pixels lie on a grid that begins with the waveform's first sample. What is added may begin and end
anywhere: of a pixel that is added in several pieces the extremes of all of them count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from uploader.errors import BotRecorderError

VERSION = 2
BITS = 8
"""Of a value: what a player draws is some hundred pixels high."""

DEFAULT_SAMPLES_PER_PIXEL = 2400
"""A tenth of a second at 24 kHz: an hour of stereo is 0.65 MB at most, of speech half of it."""
MIN_SAMPLES_PER_PIXEL = 64
MAX_SAMPLES_PER_PIXEL = 1_000_000

Frames = npt.NDArray[np.int16]
Extremes = npt.NDArray[np.int8]

_AT_ONCE = 2048  # values turned into text by one call: it keeps the interpreter for 0.2 ms


class InvalidWaveform(BotRecorderError, ValueError):
    """The bytes are no waveform data of version 2."""


def pixel_count(samples: int, samples_per_pixel: int) -> int:
    """Return how many pixels so many samples have; the last may be of fewer."""
    return -(-samples // samples_per_pixel)


def extremes(frames: Frames, samples_per_pixel: int, offset: int = 0) -> Extremes:
    """Return the minima and maxima of frames: shape (pixels, channels, 2), 8 bits each.

    Args:
        frames: Shape (samples, channels), at least one sample.
        samples_per_pixel: Samples of each pixel.
        offset: Where in its pixel the first frame lies, samples.
    """
    samples, channels = frames.shape
    found = np.empty((pixel_count(offset + samples, samples_per_pixel), channels, 2), np.int8)
    first = min(samples, samples_per_pixel - offset) if offset else 0
    if first:
        _reduce(frames[:first].reshape(1, -1), channels, found[:1])
    whole = (samples - first) // samples_per_pixel
    at, behind = int(first > 0), first + whole * samples_per_pixel
    if whole:
        rows = frames[first:behind].reshape(whole, -1)
        _reduce(rows, channels, found[at : at + whole])
    if behind < samples:
        _reduce(frames[behind:].reshape(1, -1), channels, found[at + whole :])
    return found


def _reduce(rows: Frames, channels: int, found: Extremes) -> None:
    """Put the extremes of each row, frames side by side, into `found`."""
    found[:, :, 0] = _eight_bits(_folded(rows, channels, np.minimum))
    found[:, :, 1] = _eight_bits(_folded(rows, channels, np.maximum))


def _folded(rows: Frames, channels: int, least: np.ufunc) -> Frames:
    """Return the extreme of each channel, by halves laid on each other.

    That takes whole vectors of samples at a time, which no reduction along frames of a few
    channels does. Halves of an odd number overlap: what is compared twice is the same.
    """
    while (width := rows.shape[1]) > channels:
        half = (width // channels + 1) // 2 * channels
        rows = least(rows[:, :half], rows[:, width - half :])
    return rows


def _eight_bits(values: Frames) -> Extremes:
    """Return the upper eight bits, rounded towards zero: what is nearly silent is 0."""
    towards_zero = values + ((values >> 15) & 0xFF)
    return (towards_zero >> 8).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a waveform is of.

    Attributes:
        sample_rate: Hz.
        channels: How many.
        samples_per_pixel: Samples of each pixel.
        samples: Length of the audio.
    """

    sample_rate: int
    channels: int
    samples_per_pixel: int
    samples: int

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return pixel_count(self.samples, self.samples_per_pixel)


class Waveform:
    """A waveform that is being put together; what nothing is added to is silent.

    Args:
        shape: What it is of.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.values: Extremes = np.zeros((shape.pixels, shape.channels, 2), np.int8)
        self._touched = np.zeros(shape.pixels, np.bool_)

    def add(self, frames: Frames, position: int) -> None:
        """Add frames, shape (samples, channels), that begin with a sample of the waveform."""
        per_pixel = self.shape.samples_per_pixel
        if len(frames):
            self.merge(extremes(frames, per_pixel, position % per_pixel), position // per_pixel)

    def merge(self, found: Extremes, pixel: int) -> None:
        """Add the extremes of pixels from `pixel` on; those behind the end do not count."""
        found = found[: max(0, self.shape.pixels - pixel)]
        values = self.values[pixel : pixel + len(found)]
        known = self._touched[pixel : pixel + len(found)]
        both = found.copy()
        both[known, :, 0] = np.minimum(values[known, :, 0], found[known, :, 0])
        both[known, :, 1] = np.maximum(values[known, :, 1], found[known, :, 1])
        values[:] = both
        known[:] = True

    def to_json(self) -> bytes:
        """Return the file."""
        shape = self.shape
        head = json.dumps(
            {
                "version": VERSION,
                "channels": shape.channels,
                "sample_rate": shape.sample_rate,
                "samples_per_pixel": shape.samples_per_pixel,
                "bits": BITS,
                "length": shape.pixels,
            },
            separators=(",", ":"),
        )
        flat = self.values.reshape(-1)
        return b"".join([head[:-1].encode(), b',"data":[', *_listed(flat), b"]}\n"])


_AS_TEXT = [str(value).encode() for value in (*range(128), *range(-128, 0))]
"""Of each value, by its byte."""


def _listed(values: npt.NDArray[np.int8]) -> Iterable[bytes]:
    raw = values.tobytes()
    for start in range(0, len(raw), _AT_ONCE):
        text = b",".join([_AS_TEXT[value] for value in raw[start : start + _AT_ONCE]])
        yield b"," + text if start else text


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file that was read: its fields, and its values of shape (pixels, channels, 2)."""

    channels: int
    sample_rate: int
    samples_per_pixel: int
    bits: int
    length: int
    values: npt.NDArray[np.int16]

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Return what a file says, every field checked.

        Raises:
            InvalidWaveform: It is no waveform data of version 2, or contradicts itself.
        """
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidWaveform(f"not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidWaveform("no JSON object")
        if document.get("version") != VERSION:
            raise InvalidWaveform(f"version {document.get('version')!r}, not {VERSION}")
        channels, rate, per_pixel = (
            _whole(document, name, 1) for name in ("channels", "sample_rate", "samples_per_pixel")
        )
        bits, length = _whole(document, "bits", 1), _whole(document, "length", 0)
        if bits not in (8, 16):
            raise InvalidWaveform(f"{bits} bits, not 8 or 16")
        data = document.get("data")
        if not isinstance(data, list) or len(data) != length * channels * 2:
            found = len(data) if isinstance(data, list) else "no"
            raise InvalidWaveform(f"{found} values, not {length * channels * 2}")
        limit = 1 << (bits - 1)
        if not all(type(value) is int and -limit <= value < limit for value in data):
            raise InvalidWaveform(f"a value that is no number of {bits} bits")
        values = np.array(data, dtype=np.int16).reshape(length, channels, 2)
        return cls(channels, rate, per_pixel, bits, length, values)


def _whole(document: dict[str, Any], name: str, least: int) -> int:
    value = document.get(name)
    if type(value) is not int or value < least:
        raise InvalidWaveform(f"{name} is {value!r}, no whole number from {least}")
    return value
