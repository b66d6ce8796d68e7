"""Opus in Ogg (RFC 6716, RFC 7845): speech at a fifteenth of WAV's size. Encoded by PyAV.

libopus takes 8, 12, 16, 24 and 48 kHz; audio at other rates is resampled to the next above. The
file counts samples at 48 kHz: its last page's granule position, less the pre-skip that its header
tells, is its exact length (RFC 7845, sections 4 and 4.4). The header is constant.

PyAV is an extra: libsndfile, which is always there, decodes Opus well, but takes five times as
long to encode it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
import soxr

from recorder.containers.codecs import Ending, MissingCodec, Samples
from uploader.errors import BotRecorderError

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
CLOCK = 48_000
"""Granule positions are samples at this rate (RFC 7845, section 4)."""

DEFAULT_BITRATE, LEAST_BITRATE, MOST_BITRATE = 24_000, 6_000, 256_000
"""Of each channel; libopus holds 510 kbit/s in two."""

TAIL_BYTES = 65_536
"""The last page begins within so many bytes of the end: a page has less (RFC 3533, section 6)."""

_COMPLEXITY = 3  # of 10: as good to the ear for speech, at two thirds of the time
_PAGE_US = 800_000
"""40 packets of 1275 bytes at most, 6 segments each, are less than a page's 255 segments: none goes
on in the next page, which libsndfile cannot seek behind."""
_BLOCK_SECONDS = 0.1
_HINT = "pip install 'bot-recorder[opus]'"


class InvalidOpus(BotRecorderError, ValueError):
    """The bytes are not those of an Ogg Opus file."""


@dataclass(frozen=True, slots=True)
class OpusInfo:
    """What an identification header says of its file.

    Attributes:
        channels: 1 or 2.
        pre_skip: Samples at 48 kHz that a decoder drops at the beginning.
        input_rate: Hz of what was encoded; for information only.
        serial: Of the logical stream.
    """

    channels: int
    pre_skip: int
    input_rate: int
    serial: int


def parse_opus_head(data: bytes | bytearray | memoryview) -> OpusInfo:
    """Return what the beginning of an Ogg Opus file says (RFC 7845, section 5.1).

    Raises:
        InvalidOpus: It is none, or cut off.
    """
    head = bytes(data[:47])
    if head[:4] != b"OggS" or head[28:36] != b"OpusHead" or len(head) < 47:
        raise InvalidOpus(f"not an Ogg Opus file: it begins {head[:36]!r}")
    channels, pre_skip, rate = struct.unpack_from("<BHI", head, 37)
    (serial,) = struct.unpack_from("<I", head, 14)
    return OpusInfo(channels, pre_skip, rate, serial)


def last_granule(tail: bytes, serial: int) -> int:
    """Return the granule position of the page that ends a file.

    Args:
        tail: The file's last `TAIL_BYTES`, or all of them.
        serial: Of the stream.

    Raises:
        InvalidOpus: No page of the stream ends just there and says that it is the last.
    """
    at = tail.rfind(b"OggS")
    while at >= 0:
        page = tail[at:]
        if len(page) >= 27 and len(page) >= 27 + page[26]:
            size = 27 + page[26] + sum(page[27 : 27 + page[26]])
            flags, granule, found = struct.unpack_from("<BqI", page, 5)
            if size == len(page) and found == serial and flags & 0x04:
                return int(granule)
        at = tail.rfind(b"OggS", 0, at)
    raise InvalidOpus("an Ogg Opus file without its last page")


def _coded_rate(rate: int) -> int:
    return next((one for one in RATES if one >= rate), RATES[-1])


class _Sink:
    """What the muxer writes to."""

    def __init__(self) -> None:
        self._fresh = bytearray()

    def write(self, data: bytes) -> int:
        self._fresh += data
        return len(data)

    def taken(self) -> bytes:
        data = bytes(self._fresh)
        self._fresh.clear()
        return data


class _Encoder:
    """See `codecs.Encoder`. Frames of 20 ms."""

    def __init__(self, av: Any, rate: int, channels: int, bitrate: int) -> None:
        self._av = av
        self._source_rate, self._rate = rate, _coded_rate(rate)
        self._channels = channels
        self._layout = "stereo" if channels == 2 else "mono"
        self._time_base = Fraction(1, self._rate)
        self._resampler: soxr.ResampleStream | None = None
        if self._rate != rate:
            # As floats: for integers, soxr adds noise that is another each time.
            self._resampler = soxr.ResampleStream(rate, self._rate, channels, dtype="float32")
        self._block = int(rate * _BLOCK_SECONDS)
        self._frame = self._rate // 50
        self._taken = 0
        self._made = 0
        self._raw: Samples = np.zeros((0, channels), np.int16)
        self._pcm: Samples = np.zeros((0, channels), np.int16)
        self._sink = _Sink()
        # Bit exact: no random serial number, so that to encode again gives the same bytes.
        self._file = av.open(
            self._sink,
            "w",
            format="ogg",
            options={"fflags": "bitexact", "flush_packets": "0", "page_duration": str(_PAGE_US)},
        )
        # Not `voip`: it takes away what is low, and a recording is to be what was heard.
        # Constrained: or else speech takes a third more than it was given.
        options = {
            "application": "audio",
            "vbr": "constrained",
            "compression_level": str(_COMPLEXITY),
        }
        self._stream = self._file.add_stream(
            "libopus", rate=self._rate, layout=self._layout, options=options
        )
        self._stream.bit_rate = bitrate * channels
        self._stream.codec_context.format = "s16"
        self._file.start_encoding()

    def write(self, frames: Samples) -> bytes:
        """See `codecs.Encoder`."""
        self._taken += len(frames)
        if self._resampler is None:
            self._pcm = np.concatenate([self._pcm, frames])
        else:
            self._resample(frames)
        self._encode(self._frame)
        return self._sink.taken()

    def close(self) -> Ending:
        """See `codecs.Encoder`."""
        if self._resampler is not None:
            self._pcm = np.concatenate([self._pcm, self._resampled(self._raw, last=True)])
        left = OPUS.coded(self._taken, self._source_rate)[0] - self._made
        missing = np.zeros((max(0, left - len(self._pcm)), self._channels), np.int16)
        self._pcm = np.concatenate([self._pcm[:left], missing])
        self._encode(1)
        for packet in self._stream.encode(None):
            self._file.mux(packet)
        self._file.close()
        return Ending(self._sink.taken(), b"")

    def abandon(self) -> None:
        """See `codecs.Encoder`."""
        self._file.close()

    def _resample(self, frames: Samples) -> None:
        """Take whole blocks only: what comes out must not depend on how calls split the frames."""
        raw = np.concatenate([self._raw, frames])
        whole = len(raw) // self._block * self._block
        made = [self._resampled(raw[at : at + self._block]) for at in range(0, whole, self._block)]
        self._raw = raw[whole:].copy()
        self._pcm = np.concatenate([self._pcm, *made])

    def _resampled(self, frames: Samples, *, last: bool = False) -> Samples:
        if self._resampler is None:
            return frames
        found = self._resampler.resample_chunk(np.ascontiguousarray(frames, np.float32), last=last)
        rounded: Samples = np.clip(np.rint(found), -32768, 32767).astype(np.int16)
        return rounded.reshape(-1, self._channels)

    def _encode(self, least: int) -> None:
        """Encode what there is in frames; the last may be shorter, but no less than `least`."""
        at, pcm = 0, np.ascontiguousarray(self._pcm)
        while len(pcm) - at >= least:
            block = pcm[at : at + self._frame]
            frame = self._av.AudioFrame.from_ndarray(
                block.reshape(1, -1), format="s16", layout=self._layout
            )
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._made, self._time_base
            for packet in self._stream.encode(frame):
                self._file.mux(packet)
            at += len(block)
            self._made += len(block)
        self._pcm = pcm[at:].copy()


@dataclass(frozen=True, slots=True)
class _Opus:
    """Ogg Opus as a `Codec`."""

    name: str = "opus"
    extension: str = "opus"  # RFC 7845, section 9
    media_type: str = "audio/ogg; codecs=opus"
    described: str = "an Ogg Opus file"
    lossless: bool = False

    def refusal(self, rate: int) -> str | None:
        """Return nothing: what libopus does not take is resampled."""
        return None

    def missing(self) -> str | None:
        """Return what installs PyAV, where it is not there."""
        return None if find_spec("av") else _HINT

    def coded(self, samples: int, rate: int) -> tuple[int, int]:
        """Return the length at the rate that is encoded, to the nearest sample; at least one.

        Without a packet of audio there is no page to end the stream.
        """
        to = _coded_rate(rate)
        return max(1, (2 * samples * to + rate) // (2 * rate)), to

    def is_same(self, head: bytes, tail: bytes, own: bytes, samples: int, rate: int) -> bool:
        """Return whether the last page's granule position tells of the same length."""
        try:
            info = parse_opus_head(head)
            length = last_granule(tail, info.serial) - info.pre_skip
        except InvalidOpus:
            return False
        coded, at = self.coded(samples, rate)
        return length == coded * CLOCK // at

    def typical_bytes(self, samples: int, rate: int, channels: int, bitrate: int) -> int:
        """Return what the bitrate makes; silence takes less."""
        return round(samples / rate * bitrate * channels / 8)

    def encoder(self, rate: int, channels: int, bitrate: int) -> _Encoder:
        """Return a new encoder."""
        try:
            import av
        except ImportError as error:
            raise MissingCodec("PyAV, which encodes Opus, is not installed", hint=_HINT) from error
        return _Encoder(av, rate, channels, bitrate)


OPUS = _Opus()
