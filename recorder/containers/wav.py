"""WAV, and RF64 where WAV's 32-bit sizes end: 16-bit PCM behind a header of fixed length.

The header is RIFF, a reserve, `fmt ` and `data`. The reserve is a JUNK chunk that players skip;
above 4 GiB it becomes the `ds64` chunk that holds 64-bit sizes and RIFF becomes RF64 (EBU Tech
3306). So every header has the same length, and what follows it never moves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from uploader.errors import BotRecorderError

_DS64_BYTES = 28  # three 64-bit sizes and a table of no entries (EBU Tech 3306, section 3.5)
_FMT_BYTES = 16
HEADER_BYTES = 12 + (8 + _DS64_BYTES) + (8 + _FMT_BYTES) + 8

_PCM = 1
_EXTENSIBLE = 0xFFFE
#: KSDATAFORMAT_SUBTYPE_PCM without its first two bytes, which are the format's number.
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_IN_DS64 = 0xFFFFFFFF  # "the size is in ds64"


class InvalidWav(BotRecorderError, ValueError):
    """The bytes are not the beginning of a 16-bit PCM WAV or RF64 file."""


@dataclass(frozen=True, slots=True)
class WavInfo:
    """What a header says of its file.

    Attributes:
        samples: Frames: samples of each channel.
        sample_rate: Hertz.
        channels: Interleaved samples of each frame.
        data_offset: Where the samples begin, in bytes from the file's beginning.
    """

    samples: int
    sample_rate: int
    channels: int
    data_offset: int


def wav_header(samples: int, sample_rate: int, channels: int) -> bytes:
    """Return the `HEADER_BYTES` before `samples` frames of interleaved 16-bit little-endian PCM.

    Args:
        samples: Frames: samples of each channel.
        sample_rate: Hertz.
        channels: 1 or more.

    Raises:
        ValueError: A number below its minimum or above what its field holds.
    """
    frame_bytes = 2 * channels
    if samples < 0:
        raise ValueError(f"a file cannot have {samples} samples")
    if not 1 <= channels <= 0x7FFF:  # of the field's 0xFFFF: block align is twice as much
        raise ValueError(f"a WAV file has 1 to 32767 channels, not {channels}")
    if not (sample_rate >= 1 and sample_rate * frame_bytes <= 0xFFFFFFFF):
        raise ValueError(f"a WAV file of {channels} channels cannot hold {sample_rate} Hz")
    data_bytes = samples * frame_bytes
    riff_bytes = HEADER_BYTES - 8 + data_bytes
    if riff_bytes > 0xFFFFFFFF:
        if riff_bytes > 0xFFFFFFFFFFFFFFFF:
            raise ValueError(f"an RF64 file cannot hold {samples} samples of {channels} channels")
        riff = struct.pack("<4sI4s", b"RF64", _IN_DS64, b"WAVE")
        reserve = struct.pack("<4sIQQQI", b"ds64", _DS64_BYTES, riff_bytes, data_bytes, samples, 0)
        data = struct.pack("<4sI", b"data", _IN_DS64)
    else:
        riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
        reserve = struct.pack("<4sI28x", b"JUNK", _DS64_BYTES)
        data = struct.pack("<4sI", b"data", data_bytes)
    fmt = struct.pack(
        "<4sIHHIIHH",
        b"fmt ",
        _FMT_BYTES,
        _PCM,
        channels,
        sample_rate,
        sample_rate * frame_bytes,
        frame_bytes,
        16,
    )
    return riff + reserve + fmt + data


def parse_header(data: bytes | bytearray | memoryview) -> WavInfo:
    """Return what the beginning of a 16-bit PCM WAV or RF64 file says of it.

    Chunks this project does not write are skipped. The size that a `data` chunk claims is
    returned as it is: whether so many bytes follow is for the caller to see.

    Args:
        data: The file's first bytes, up to and including the head of its `data` chunk; more is
            not looked at.

    Raises:
        InvalidWav: Another kind of file, other than 16-bit PCM, or cut off before the samples.
    """
    view = memoryview(data)
    magic, form = bytes(view[:4]), bytes(view[8:12])
    if magic not in (b"RIFF", b"RF64") or form != b"WAVE":
        raise InvalidWav(f"not a WAV or RF64 file: it begins {bytes(view[:12])!r}")
    is_rf64 = magic == b"RF64"
    data_size: int | None = None
    fmt: tuple[int, int] | None = None
    position = 12
    while position + 8 <= len(view):
        chunk, size = struct.unpack_from("<4sI", view, position)
        position += 8
        if chunk == b"data":
            if is_rf64 and size == _IN_DS64:
                if data_size is None:
                    raise InvalidWav("an RF64 file without a ds64 chunk before its samples")
                size = data_size
            if fmt is None:
                raise InvalidWav("a WAV file without a fmt chunk before its samples")
            channels, sample_rate = fmt
            return WavInfo(size // (2 * channels), sample_rate, channels, position)
        body = view[position : position + size]
        if chunk == b"ds64" and is_rf64 and len(body) >= 16:
            _, data_size = struct.unpack_from("<QQ", body)
        elif chunk == b"fmt " and len(body) == size:
            fmt = _parse_format(body)
        position += size + size % 2  # chunks begin at even offsets
    raise InvalidWav(f"no samples begin within the first {len(view)} bytes")


def _parse_format(body: memoryview) -> tuple[int, int]:
    """Return channels and sample rate of a `fmt ` chunk's body."""
    if len(body) < _FMT_BYTES:
        raise InvalidWav(f"a fmt chunk of {len(body)} bytes; it has at least {_FMT_BYTES}")
    tag, channels, sample_rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 40 and bytes(body[26:40]) == _SUBFORMAT_TAIL:
        (tag,) = struct.unpack_from("<H", body, 24)
    if tag != _PCM or bits != 16:
        raise InvalidWav(f"not 16-bit PCM: format {tag:#x} with {bits} bits")
    if channels < 1 or sample_rate < 1 or frame_bytes != 2 * channels:
        raise InvalidWav(
            f"{channels} channels at {sample_rate} Hz in frames of {frame_bytes} bytes cannot be"
        )
    return channels, sample_rate


@dataclass(frozen=True, slots=True)
class Wav:
    """WAV as a `Container`."""

    name: str = "wav"
    extension: str = "wav"
    media_type: str = "audio/wav"
    header_bytes: int = HEADER_BYTES

    def header(self, samples: int, rate: int, channels: int) -> bytes:
        """Return `wav_header` of the numbers."""
        return wav_header(samples, rate, channels)


WAV = Wav()
