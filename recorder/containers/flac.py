"""FLAC (RFC 9639): lossless, about half of WAV's size. Encoded by libFLAC, in libsndfile.

A file begins with `fLaC` and the STREAMINFO block: sizes of blocks and frames, rate, channels, the
number of samples, and the MD5 of all of them (RFC 9639, section 8.2). Most of these are known at
the end only: they are the file's first 42 bytes, all else is final as it comes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import soundfile

from recorder.containers.codecs import Ending, Samples
from uploader.errors import BotRecorderError

HEAD_BYTES = 4 + 4 + 34  # the marker, the block's header and its body
_LEVEL = 0.5  # libFLAC's 5, its default
_MAX_BITS = 36  # of the number of samples
_EMPTY_BLOCK = 4096  # samples of a block, where there is none


class InvalidFlac(BotRecorderError, ValueError):
    """The bytes are not the beginning of a FLAC file."""


@dataclass(frozen=True, slots=True)
class FlacInfo:
    """What STREAMINFO says of its file.

    Attributes:
        samples: Of each channel.
        sample_rate: Hertz.
        channels: 1 to 8.
        bits: Of each sample.
        md5: Of all samples, interleaved, little-endian; zeros where it was not computed.
    """

    samples: int
    sample_rate: int
    channels: int
    bits: int
    md5: bytes


def parse_streaminfo(data: bytes | bytearray | memoryview) -> FlacInfo:
    """Return what the beginning of a FLAC file says of it.

    Raises:
        InvalidFlac: It is none, or cut off.
    """
    head = bytes(data[:HEAD_BYTES])
    if head[:4] != b"fLaC":
        raise InvalidFlac(f"not a FLAC file: it begins {head[:12]!r}")
    if len(head) < HEAD_BYTES or head[4] & 0x7F != 0 or head[5:8] != b"\0\0\x22":
        raise InvalidFlac("a FLAC file that does not begin with STREAMINFO")
    # 20 bits of rate, 3 of channels, 5 of bits, 36 of samples (RFC 9639, section 8.2)
    packed = int.from_bytes(head[18:26], "big")
    return FlacInfo(
        samples=packed & (1 << _MAX_BITS) - 1,
        sample_rate=packed >> 44,
        channels=(packed >> 41 & 0x7) + 1,
        bits=(packed >> _MAX_BITS & 0x1F) + 1,
        md5=head[26:HEAD_BYTES],
    )


def _without_samples(rate: int, channels: int) -> bytes:
    """Return a whole file of no samples: the marker, and STREAMINFO as the only block."""
    block = _EMPTY_BLOCK.to_bytes(2, "big")
    packed = rate << 44 | channels - 1 << 41 | 16 - 1 << _MAX_BITS
    frames = bytes(6)  # sizes of frames: not known
    md5 = hashlib.md5(b"", usedforsecurity=False).digest()
    return b"fLaC\x80\0\0\x22" + block + block + frames + packed.to_bytes(8, "big") + md5


class _Tape:
    """The file that libsndfile writes: what is behind the head goes on at once."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.wrong = ""
        self._fresh = bytearray()
        self._size = 0
        self._at = 0

    def taken(self) -> bytes:
        """Return what was written since, but for changes of the head."""
        if self.wrong:  # libsndfile does not tell of what goes wrong in here
            raise RuntimeError(f"libsndfile wrote {self.wrong}")
        data = bytes(self._fresh)
        self._fresh.clear()
        return data

    def write(self, data: bytes) -> int:
        data = bytes(data)
        start, self._at = self._at, self._at + len(data)
        if start == self._size:
            self._size += len(data)
            self._fresh += data
            if start < HEAD_BYTES:
                self.head += data[: HEAD_BYTES - start]
        elif self._at <= len(self.head):
            self.head[start : self._at] = data
        else:
            self.wrong = f"{len(data)} bytes at {start}, behind the head and before the end"
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        return b""

    def flush(self) -> None:
        """Do nothing: there is nothing between this and who takes."""


class _Encoder:
    """See `codecs.Encoder`."""

    def __init__(self, rate: int, channels: int) -> None:
        self._tape = _Tape()
        self._empty = _without_samples(rate, channels)
        self._file = soundfile.SoundFile(
            self._tape, "w", rate, channels, "PCM_16", format="FLAC", compression_level=_LEVEL
        )

    def write(self, frames: Samples) -> bytes:
        """See `codecs.Encoder`."""
        self._file.write(frames)
        return self._tape.taken()

    def close(self) -> Ending:
        """See `codecs.Encoder`."""
        self._file.close()
        data = self._tape.taken()
        if not self._tape.head:  # libsndfile begins a file with its first sample
            return Ending(self._empty, self._empty)
        return Ending(data, bytes(self._tape.head))

    def abandon(self) -> None:
        """See `codecs.Encoder`."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Flac:
    """FLAC as a `Codec`."""

    name: str = "flac"
    extension: str = "flac"
    media_type: str = "audio/flac"  # RFC 9639, section 10.1
    described: str = "a FLAC file of 16-bit samples"
    lossless: bool = True

    def refusal(self, rate: int) -> str | None:
        """Return why not: frames tell their rate in Hz with 16 bits, or in tens of Hz."""
        if rate <= 0xFFFF or (rate % 10 == 0 and rate <= 655_350):
            return None
        return "is no rate that a FLAC stream can have: above 65535 Hz, whole tens of hertz"

    def missing(self) -> str | None:
        """Return nothing: libsndfile is there."""
        return None

    def coded(self, samples: int, rate: int) -> tuple[int, int]:
        """Return both as they are."""
        return samples, rate

    def is_same(self, head: bytes, tail: bytes, own: bytes, samples: int, rate: int) -> bool:
        """Return whether STREAMINFO tells of the same samples: their number and their MD5."""
        try:
            return parse_streaminfo(head) == parse_streaminfo(own)
        except InvalidFlac:
            return False

    def typical_bytes(self, samples: int, rate: int, channels: int, bitrate: int) -> int:
        """Return half of what the samples are: clean speech takes less, noise more."""
        return HEAD_BYTES + samples * channels

    def encoder(self, rate: int, channels: int, bitrate: int) -> _Encoder:
        """Return a new encoder; there is no bitrate to be had."""
        if reason := self.refusal(rate):
            raise ValueError(f"{rate} {reason}")
        return _Encoder(rate, channels)


FLAC = _Flac()
