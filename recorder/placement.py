"""Where a frame begins: directly behind the one before, or after how much silence. Pure.

A frame that comes late was late, or there was a pause: the frames behind it tell which. What
a burst makes up for was a stall. What every following frame lags by was silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from recorder.grid import plain_length
from recorder.records import Kind, Record
from recorder.runs import TrackState

NS = 1_000_000_000
HALF_NS = NS // 2

JITTER_SECONDS = 0.06
"""A frame later than this against its run begins a new one, if those after it are late too."""

PACED_SECONDS = 0.2
"""A frame so long is none of a source that paces what it sends, but all that it has."""

FRAME_SECONDS = 0.02
"""A burst goes on while it makes up for a frame more."""

TIMESTAMP_NS = 8_000_000
"""A smaller step between media timestamps is rounding: some protocols have whole milliseconds.
The shortest packet that can be lost has 10 ms (RFC 6716, section 2.1.4, for Opus as it is sent)."""

UNTIMELY_SECONDS = 0.25
"""Timestamps that arrival contradicts by more, all the look-ahead long, stood still or jumped."""


Later = Callable[[], Iterator[Record]]


class Start(NamedTuple):
    """Where a frame begins.

    Attributes:
        position: Output sample.
        arrival: Where it would begin by its arrival alone, if that is what counts; None where it
            follows the frame before it, or its timestamp.
        following: How many frames behind it follow without a break, by what is known already.
    """

    position: int
    arrival: int | None = None
    following: int = 0


@dataclass(slots=True)
class Placement:
    """The rules, with their bounds.

    Attributes:
        sample_rate: Of the output, Hz.
        look_ahead_ns: How long a decision waits for what comes next.
        stall_ns: How long it waits at most, while a burst goes on.
        jitter: How late a frame may be that is jitter, samples.
        untimely: How far arrival may contradict timestamps, samples.
    """

    sample_rate: int
    look_ahead_ns: int
    stall_ns: int
    jitter: int = field(init=False)
    untimely: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the rules' lengths in samples."""
        self.jitter = int(JITTER_SECONDS * self.sample_rate)
        self.untimely = int(UNTIMELY_SECONDS * self.sample_rate)

    def position(self, at_ns: int) -> int:
        """Return the sample position of a time, ns after the recording's start."""
        return (at_ns * self.sample_rate + HALF_NS) // NS

    def samples(self, record: Record) -> int:
        """Return how many output samples a frame makes by itself."""
        return plain_length(record.samples, record.sample_rate, self.sample_rate)

    def start(
        self,
        record: Record,
        track: TrackState,
        later: Later,
        known_ns: int | None,
        earliest: int,
    ) -> Start | None:
        """Return where a frame begins: at the track's cursor, or behind it.

        Args:
            record: The frame.
            track: Its track, as far as it is decided on.
            later: Returns the records after it, in order.
            known_ns: All that was written before it is among them; None: there will be no more.
            earliest: No sample before it can still be placed.

        Returns:
            None where that cannot be told before more is known.
        """
        if track.source == "playout":
            return self._playout(record, track, later, known_ns, earliest)
        return self._capture(record, track, later, known_ns)

    def _capture(
        self, record: Record, track: TrackState, later: Later, known_ns: int | None
    ) -> Start | None:
        cursor = track.cursor
        lag = self._lag(record, cursor)
        tolerance = 0 if track.joined is None else self.jitter
        missing = 0
        if record.time_ns is not None and track.next_ns is not None:
            step_ns = record.time_ns - track.next_ns
            if step_ns >= TIMESTAMP_NS:
                missing = self.position(step_ns)
            # Timestamps are believed: arrival has a say only where it contradicts them by far.
            tolerance = missing + self.untimely
        if (lag <= tolerance or track.following) and not missing:
            return Start(cursor)
        enough = 0 if missing else tolerance
        found = self._least_lag(record, track, later, known_ns, enough)
        if found is None:
            return None
        least, following = found
        if missing > least + self.untimely:  # nothing arrives before it was spoken
            missing, tolerance = 0, self.jitter
        if least > tolerance:
            return Start(cursor + least, cursor + least, following)
        return Start(cursor + missing, None, following)

    def _playout(
        self,
        record: Record,
        track: TrackState,
        later: Later,
        known_ns: int | None,
        earliest: int,
    ) -> Start | None:
        cursor, length = track.cursor, self.samples(record)
        # What is not paced begins to be played when it is handed over, not its length before;
        # unless who hands it over says when it will have been played.
        given = record.at_ns <= record.written_ns
        whole = given and length >= int(PACED_SECONDS * self.sample_rate)
        if given and track.joined is None and self._outruns(record, later):
            whole = True  # nothing it could go on from
        lag = self._lag(record, cursor) + (length if whole else 0)
        tolerance = 0 if track.joined is None else self.jitter
        if lag + track.delay <= tolerance or track.following:
            return Start(cursor)
        if given and not whole and self._outruns(record, later):
            lag += length
        may_be_stalled = track.heard_ns is not None and not track.ahead and cursor >= earliest
        if may_be_stalled:
            found = self._least_lag(record, track, later, known_ns, -self.jitter - 1)
            if found is None:
                return None
            if -self.jitter <= found[0] <= self.jitter:
                # The burst makes up for the whole stall, and for no more.
                return Start(cursor, None, found[1])
        heard = self._heard(record, track, later)
        start = cursor + lag + track.delay if heard is None else heard
        return Start(max(cursor, start), cursor + lag)

    def _outruns(self, record: Record, later: Later) -> bool:
        """Return whether the frame behind this one comes before this one can have been played."""
        for one in later():
            if one.written_ns > record.written_ns + self.look_ahead_ns:
                break
            if one.track != record.track:
                continue
            if one.kind is Kind.CLEAR:
                break
            if one.kind is Kind.AUDIO:
                length_ns = record.samples * NS // record.sample_rate
                return one.at_ns - record.at_ns < length_ns // 2
        return False

    def _heard(self, record: Record, track: TrackState, later: Later) -> int | None:
        """Return where a frame began to be played, by what is reported within the look-ahead."""
        for one in later():
            if one.written_ns > record.written_ns + self.look_ahead_ns:
                break
            if one.track != record.track:
                continue
            if one.kind is Kind.CLEAR:
                break
            if one.kind is Kind.PLAYED and one.time_ns is not None:
                played = self.position(one.time_ns) - track.media
                if played > 0:
                    return self.position(one.at_ns) - played
        return None

    def _least_lag(
        self,
        record: Record,
        track: TrackState,
        later: Later,
        known_ns: int | None,
        enough: int,
    ) -> tuple[int, int] | None:
        """Return the least lag of a frame and those after it, while a burst goes on; and whose.

        A microphone that falls silent in the middle of it has stalled again, or has nothing to say:
        what comes then tells, too.

        Args:
            record: The frame.
            track: Its track; it would begin at its cursor.
            later: See `start`.
            known_ns: See `start`.
            enough: From here down, it does not matter how much less it is.

        Returns:
            The least lag, and how many frames behind this one it is found. None where more must be
            known.
        """
        following = 0
        least = extended = self._lag(record, track.cursor)
        since = newest = record.written_ns
        cap = since + max(self.look_ahead_ns, self.stall_ns)
        frame = int(FRAME_SECONDS * self.sample_rate)

        def horizon() -> int:
            silent = track.source == "capture" and newest - since < self.look_ahead_ns // 2
            return cap if silent else min(cap, since + self.look_ahead_ns)

        lags = self._lags(record, track.cursor, later)
        for behind, (written_ns, lag) in enumerate(lags, 1):
            if least <= enough or written_ns > horizon():
                break
            if lag < least:
                least, following = lag, behind
            if extended - lag >= frame or written_ns > since + self.look_ahead_ns:
                extended, since = lag, written_ns
            newest = written_ns
        if least > enough and known_ns is not None and known_ns < horizon():
            return None
        return least, following

    def _lags(self, record: Record, cursor: int, later: Later) -> Iterator[tuple[int, int]]:
        """Yield when each frame behind was written, and its lag, were the first to begin here."""
        plain = self.samples(record)
        for one in later():
            if one.track != record.track:
                continue
            if one.kind is Kind.CLEAR:
                return
            if one.kind is Kind.AUDIO:
                yield one.written_ns, self._lag(one, cursor + self._offset(record, one, plain))
                plain += self.samples(one)

    def _offset(self, first: Record, later: Record, plain: int) -> int:
        """Return how far a frame lies behind an earlier one; `plain` if nothing was missing."""
        if first.time_ns is None or later.time_ns is None:
            return plain
        timed = self.position(later.time_ns - first.time_ns)
        most = self.position(self.look_ahead_ns + self.stall_ns)
        return timed if plain <= timed <= plain + most else plain

    def _lag(self, record: Record, position: int) -> int:
        """Return how much later than there a frame was captured, or handed over."""
        return self.position(record.at_ns) - self.samples(record) - position
