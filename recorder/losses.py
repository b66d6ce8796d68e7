"""Audio that the spool has no room for: noted as gaps, so that nobody takes it for silence."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from recorder.journal import JournalWriter
from recorder.quota import SpoolFull
from recorder.records import NO_TRACK, Kind
from recorder.timeline import NS

MIN_LOST_SECONDS = 0.25
"""A gap is no shorter: as a pause that may be jitter it would move what follows."""

MAX_REASON = 200
"""Characters of a gap's reason that are kept: each track's must fit where only marks still do."""


@dataclass(slots=True)
class Lost:
    """Frames refused in a row, on one track."""

    start: int
    reason: str
    until: int = 0
    frames: int = 0

    def payload(self, track: str, *, open_end: bool = False) -> bytes:
        """Return what the journal says of it; `open_end` where nobody knows yet when it ends."""
        reason = self.reason if len(self.reason) <= MAX_REASON else f"{self.reason[:MAX_REASON]}..."
        told = {"track": track, "frames": self.frames, "reason": reason}
        if open_end:
            told["open"] = True
        return json.dumps(told).encode()


class Losses:
    """Of one session, whose lock is held around every call.

    Args:
        journal: Where gaps are noted.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        self._lost: dict[str, Lost] = {}

    def __bool__(self) -> bool:
        """Whether audio of any track is being lost."""
        return bool(self._lost)

    def refused(self, track: str, start_ns: int, written_ns: int, error: SpoolFull) -> bool:
        """Take note of a frame that was not accepted; return whether it is a gap's first.

        Args:
            track: Whose.
            start_ns: Where the frame begins, ns after the recording's start.
            written_ns: Now, likewise.
            error: Why.
        """
        lost = self._lost.get(track)
        first = lost is None
        if lost is None:
            self._lost[track] = lost = Lost(start_ns, str(error))
            # At once: whoever finds the journal of a dead process must find the gap. Its end is
            # noted when there is room again, or at the recording's.
            body = lost.payload(track, open_end=True)
            with contextlib.suppress(SpoolFull):  # noted at its end, then
                self._journal.append(Kind.LOST, NO_TRACK, start_ns, written_ns, body)
        lost.frames += 1
        lost.until = written_ns
        return first

    def end(self, track: str, length: int, written_ns: int) -> None:
        """Note that a track's gap ends, if there is one, since a frame is about to follow.

        Args:
            track: Whose.
            length: The frame's bytes.
            written_ns: Now, ns after the recording's start.

        Raises:
            SpoolFull: There is no room for it, or the gap would be too short.
        """
        lost = self._lost.get(track)
        if lost is not None:
            if written_ns - lost.start < MIN_LOST_SECONDS * NS:
                raise SpoolFull(lost.reason)
            # Marks fit where audio does not: the gap ends only when there is room for audio.
            self._journal.make_room(length)
            body = lost.payload(track)
            self._journal.append(Kind.LOST, NO_TRACK, lost.start, lost.until, body)
            del self._lost[track]

    def marks(self) -> list[tuple[Kind, int, int, bytes]]:
        """Return what is to be noted of the gaps that go on: kind, begin, end, payload."""
        return [
            (Kind.LOST, lost.start, lost.until, lost.payload(track))
            for track, lost in self._lost.items()
        ]
