"""The form of a journal segment: a table of headers, then the payloads they speak of. Pure bytes.

A segment is of fixed size. Behind `MAGIC` lies a table of 40-byte little-endian headers, filled in
the order in which records were accepted:

    offset  size  field
         0     8  at_ns        when the frame's last sample arrived, ns after the recording's start
         8     8  written_ns   when it was written here, same clock; never decreases
        16     8  time_ns      of `TIMED_AUDIO`, its media timestamp; of `PLAYED`, the position; ns
        24     4  sample_rate  Hz, audio only
        28     2  channels     audio only
        30     1  kind         `Kind`
        31     1  track        index of the track, 255 for none
        32     4  length       bytes of payload
        36     4  commit       where the payload is, and a check: see below

Payloads lie behind the table. Room for audio is handed out in *extents* from the front, each of one
track, so that what a track says lies together; payloads of marks are stored from the segment's end.

The commit word has the payload's offset in its lower 20 bits, never zero, and in its upper 12 a
check of the fields before it that a program could trip over, and of the segment's number: a file
that is used again for another segment may have old headers behind its end if the power fails. The
word is stored last, after the payload and the other fields, into a table that was zero: whoever
reads a zero there, in this process or after its death, sees the end of what was accepted.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

SEGMENT_BYTES = 1024 * 1024  # 10 s of a call's two tracks at 24 kHz
TABLE_BYTES = 96 * 1024
MAGIC = b"BOTREC journal 2".ljust(64, b"\0")

HEADER = struct.Struct("<qqqQII")
HEADER_BYTES = HEADER.size
TABLE_AT = len(MAGIC)
SLOTS = (TABLE_BYTES - TABLE_AT) // HEADER_BYTES
TABLE_END = TABLE_AT + SLOTS * HEADER_BYTES

COMMIT = struct.Struct("<I")
COMMIT_OFFSET = HEADER_BYTES - COMMIT.size
END_OF_SEGMENT = 0xFFFF_FFFF
NO_TRACK = 255

# What audio leaves is for marks, and what they leave is for what a full spool must still take:
# that audio is being lost, once for each track there can be, and the stop.
LAST_BYTES = 24 * 1024
MARK_BYTES = LAST_BYTES + 8 * 1024
LAST_SLOTS = 72
MARK_SLOTS = LAST_SLOTS + 160
MAX_PAYLOAD = SEGMENT_BYTES - TABLE_BYTES - MARK_BYTES

EXTENT_BYTES = 64 * 1024

Rows = NDArray[np.void]
"""Headers, as structured arrays of `HEADERS`, or with what else is known of them."""

HEADERS = np.dtype(
    [
        ("at_ns", "<i8"),
        ("written_ns", "<i8"),
        ("time_ns", "<i8"),
        ("sample_rate", "<u4"),
        ("channels", "<u2"),
        ("kind", "u1"),
        ("track", "u1"),
        ("length", "<u4"),
        ("commit", "<u4"),
    ]
)

_FORMS = np.dtype([("times", "<i8", 3), ("form", "<u8"), ("length", "<u4"), ("commit", "<u4")])
_OFFSET_BITS = 20
_OFFSETS = (1 << _OFFSET_BITS) - 1
_CHECKS = (1 << 32 - _OFFSET_BITS) - 1
_MULTIPLIER = 0x9E37_79B9_7F4A_7C15  # 2**64 by the golden ratio: spreads what differs by little
_WORD = (1 << 64) - 1


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


IS_AUDIO = np.zeros(256, np.bool_)
"""Whether a kind is audio, by its number."""
IS_AUDIO[[Kind.AUDIO, Kind.TIMED_AUDIO]] = True
_KNOWN = np.zeros(256, np.bool_)
_KNOWN[list(Kind)] = True


def fieldless(rows: Rows) -> NDArray[np.void]:
    """Return rows as bytes without fields: numpy copies fields one by one, which is slower."""
    return rows.view(np.dtype((np.void, rows.dtype.itemsize)))


def form(kind: int, track: int, sample_rate: int = 0, channels: int = 0) -> int:
    """Return the fields from `sample_rate` to `track` as one number, as a header holds them."""
    return sample_rate | channels << 32 | kind << 48 | track << 56


def check(form: int, length: int, segment: int) -> int:
    """Return the check of a header in a segment, in the place it has in the commit word."""
    mixed = (form ^ length << 20) * _MULTIPLIER & _WORD
    return (mixed >> 52 ^ segment & _CHECKS) << _OFFSET_BITS


def sound(rows: Rows, segment: int) -> NDArray[np.bool_]:
    """Return which of some committed headers can have been written by `HEADER`."""
    length, commit = rows["length"].astype(np.uint64), rows["commit"]
    mixed = (rows.view(_FORMS)["form"] ^ length << np.uint64(20)) * np.uint64(_MULTIPLIER)
    checks = (mixed >> np.uint64(52)).astype(np.uint32) ^ np.uint32(segment & _CHECKS)
    checked = checks == commit >> np.uint32(_OFFSET_BITS)
    offset = offsets(commit)
    inside = (offset >= TABLE_END) & (offset + length.astype(np.int64) <= SEGMENT_BYTES)
    kind = rows["kind"]
    possible = _KNOWN[kind] & (~IS_AUDIO[kind] | (rows["sample_rate"] > 0) & (rows["channels"] > 0))
    whole: NDArray[np.bool_] = checked & inside & possible
    return whole


def offsets(commit: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return where payloads lie in their segment, bytes, by their headers' commit words."""
    return (commit & np.uint32(_OFFSETS)).astype(np.int64)
