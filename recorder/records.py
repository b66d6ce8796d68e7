"""The journal's record format: what capture writes, frame by frame. Pure bytes, no I/O.

A record is a 32-byte little-endian header, then its payload, then padding to 8 bytes:

    offset  size  field
         0     8  at_ns        when the frame's last sample arrived, ns after the recording's start
         8     8  written_ns   when it was written here, same clock; never decreases
        16     4  sample_rate  Hz, audio only
        20     2  channels     audio only
        22     1  kind         `Kind`
        23     1  track        index of the track, 255 for none
        24     4  payload      bytes of payload
        28     4  size         bytes of the whole record, padding included: the commit word

Records of audio with a media timestamp, and of playback positions, have 8 bytes before their
payload, counted as part of it: that time, ns, signed.

The commit word is stored last, after the payload, into memory that was zero: whoever reads a zero
there, in this process or after its death, sees the end of what was accepted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<qqIHBBII")
HEADER_BYTES = HEADER.size
COMMIT = struct.Struct("<I")
TIME = struct.Struct("<q")
TIME_BYTES = TIME.size
COMMIT_OFFSET = HEADER_BYTES - COMMIT.size
END_OF_SEGMENT = 0xFFFF_FFFF
NO_TRACK = 255


class Kind(IntEnum):
    """What a record says."""

    AUDIO = 1  # payload: interleaved 16-bit little-endian PCM
    TRACK = 2  # payload: JSON object, `name` and `source`; `track` is the new index
    CLEAR = 3  # what lies after `at` on the track was never heard
    PAUSE = 4
    RESUME = 5
    TURN_START = 6
    TURN_END = 7  # payload: JSON object, `interrupted`
    LOST = 8  # payload: JSON object, `track`, `frames`, `reason`; refused from `at` until `written`
    STOP = 9  # payload: JSON object, `discard_unheard`
    TIMED_AUDIO = 10  # as AUDIO, with a media timestamp; read as AUDIO
    PLAYED = 11  # at `at`, so much of all audio of the track, in ns of it, had been played


@dataclass(slots=True)  # not frozen: that doubles what each frame costs here
class Record:
    """One record, its payload left where it is; not to be changed.

    Attributes:
        kind: What it says.
        track: Track index, `NO_TRACK` for none.
        at_ns: Arrival, ns after the recording's start.
        written_ns: When it was written, ns after the recording's start.
        sample_rate: Hz.
        channels: Interleaved channels.
        segment: Number of the journal segment it is in.
        offset: Of the payload, in the segment, bytes.
        length: Of the payload, bytes.
        time_ns: Of audio, the media time of its first sample on the source's own clock; of a
            playback position, that position. None where there is none.
    """

    kind: Kind
    track: int
    at_ns: int
    written_ns: int
    sample_rate: int
    channels: int
    segment: int
    offset: int
    length: int
    time_ns: int | None = None

    @property
    def begin(self) -> int:
        """Offset of the whole record in its segment, bytes."""
        return self.offset - HEADER_BYTES - (0 if self.time_ns is None else TIME_BYTES)

    @property
    def samples(self) -> int:
        """Samples of each channel, for audio."""
        return self.length // (2 * self.channels)


def record_size(payload_bytes: int) -> int:
    """Return the size of a record with such a payload, padding included."""
    return (HEADER_BYTES + payload_bytes + 7) & ~7


def parse_record(view: memoryview, segment: int, offset: int) -> tuple[Record, int] | None:
    """Return the record at `offset` and its size, or None where none is committed.

    Raises:
        ValueError: What is there was not written by `HEADER`: the segment is damaged.
    """
    if offset + HEADER_BYTES > len(view):
        return None
    at_ns, written_ns, rate, channels, kind, track, length, size = HEADER.unpack_from(view, offset)
    if size in (0, END_OF_SEGMENT):
        return None
    if size != record_size(length) or offset + size > len(view) or kind not in _KINDS:
        raise ValueError(f"damaged record in segment {segment} at byte {offset}")
    start = offset + HEADER_BYTES
    time_ns = None
    if kind in _TIMED:
        if length < TIME_BYTES:
            raise ValueError(f"damaged record in segment {segment} at byte {offset}")
        (time_ns,) = TIME.unpack_from(view, start)
        start, length = start + TIME_BYTES, length - TIME_BYTES
    known = Kind.AUDIO if kind == Kind.TIMED_AUDIO else _KINDS[kind]
    return (
        Record(known, track, at_ns, written_ns, rate, channels, segment, start, length, time_ns),
        size,
    )


_KINDS = {int(kind): kind for kind in Kind}
_TIMED = frozenset((int(Kind.TIMED_AUDIO), int(Kind.PLAYED)))
