"""What a compressed format is, and an encoder of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from uploader.errors import BotRecorderError

Samples = NDArray[np.int16]


class MissingCodec(BotRecorderError):
    """What encodes or decodes this format is not installed."""


class Format(Protocol):
    """A kind of file."""

    @property
    def name(self) -> str:
        """What settings and manifests call it, e.g. `wav`."""
        ...

    @property
    def extension(self) -> str:
        """Of file names, without the dot."""
        ...

    @property
    def media_type(self) -> str:
        """For Content-Type (RFC 9110, section 8.3)."""
        ...


class Encoder(Protocol):
    """Turns samples into a file, in order. Blocking: for a worker thread, one call at a time."""

    def write(self, frames: Samples) -> bytes:
        """Encode frames, shape (samples, channels); return the file's next bytes.

        How frames are split among calls changes no byte. Bytes may lag behind the frames.
        """
        ...

    def close(self) -> Ending:
        """End the file."""
        ...

    def abandon(self) -> None:
        """Let go of all memory; the file is not wanted. Idempotent, also after `close`."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a file ends.

    Attributes:
        data: Its last bytes.
        head: What its first bytes, as many, really are: they tell of the whole.
    """

    data: bytes
    head: bytes


class Codec(Format, Protocol):
    """A compressed format."""

    @property
    def described(self) -> str:
        """What a file of it is, for messages, e.g. `a FLAC file of 16 bits`."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether decoded samples are those that were encoded."""
        ...

    def refusal(self, rate: int) -> str | None:
        """Return why the format cannot hold this sample rate, as a predicate; None if it can."""
        ...

    def missing(self) -> str | None:
        """Return what has to be installed before there can be an encoder; None if nothing."""
        ...

    def coded(self, samples: int, rate: int) -> tuple[int, int]:
        """Return the length of a file and the rate it is counted at, for so many samples."""
        ...

    def is_same(self, head: bytes, tail: bytes, own: bytes, samples: int, rate: int) -> bool:
        """Return whether a file made elsewhere holds what one made here does.

        Args:
            head: The file's beginning.
            tail: Its end; of both up to 64 KiB.
            own: What `Ending.head` was of the file made here.
            samples: What was encoded.
            rate: Its rate, Hz.
        """
        ...

    def typical_bytes(self, samples: int, rate: int, channels: int, bitrate: int) -> int:
        """Return about how long a file of so much speech is."""
        ...

    def encoder(self, rate: int, channels: int, bitrate: int) -> Encoder:
        """Return a new encoder.

        Args:
            rate: Hz, of what will be written.
            channels: 1 or 2.
            bitrate: Bits per second of each channel, where the format has such a thing.

        Raises:
            MissingCodec: It is not installed.
            ValueError: The rate is refused.
        """
        ...
