"""Records of the journal, one by one; by the many they are rows: see `recorder.journal_format`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recorder.journal_format import HEADERS, NO_TRACK, Kind, Rows, offsets

PLACED = np.dtype([*HEADERS.descr, ("offset", "<i8"), ("segment", "<i8"), ("slot", "<i8")])
"""Headers, and where each of them and its payload were found."""

_KINDS = {int(kind): kind for kind in Kind} | {int(Kind.TIMED_AUDIO): Kind.AUDIO}
_TIMED = frozenset((int(Kind.TIMED_AUDIO), int(Kind.PLAYED)))


@dataclass(slots=True)  # not frozen: that doubles what each costs here
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
        slot: Of its header, in the segment's table.
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
    slot: int = 0

    @property
    def samples(self) -> int:
        """Samples of each channel, for audio."""
        return self.length // (2 * self.channels)


def placed(headers: Rows, segment: int, slot: int) -> Rows:
    """Return headers of one segment, from a slot on, with where they were found."""
    rows = np.empty(len(headers), PLACED)
    for name in HEADERS.names or ():
        rows[name] = headers[name]
    rows["offset"] = offsets(headers["commit"])
    rows["segment"] = segment
    rows["slot"] = np.arange(slot, slot + len(headers))
    return rows


def record_of(row: Any) -> Record:
    """Return a row of `placed` as an object."""
    at_ns, written_ns, time_ns, rate, channels, kind, track, length, _, offset, segment, slot = (
        row.item()
    )
    return Record(
        _KINDS[kind],
        track,
        at_ns,
        written_ns,
        rate,
        channels,
        segment,
        offset,
        length,
        time_ns if kind in _TIMED else None,
        slot,
    )


def row_of(record: Record) -> tuple[int, ...]:
    """Return a record as `PLACED` has it."""
    kind = record.kind
    if kind is Kind.AUDIO and record.time_ns is not None:
        kind = Kind.TIMED_AUDIO
    return (
        record.at_ns,
        record.written_ns,
        record.time_ns or 0,
        record.sample_rate,
        record.channels,
        kind,
        record.track,
        record.length,
        0,
        record.offset,
        record.segment,
        record.slot,
    )


__all__ = ["NO_TRACK", "PLACED", "Kind", "Record", "placed", "record_of", "row_of"]
