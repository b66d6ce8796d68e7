"""Audio without a break, as the timeline has placed it; and the tracks it belongs to. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from recorder.drift import Drift
from recorder.grid import Grid

Source = Literal["capture", "playout"]
"""`capture`: a microphone; late frames were late, audio cannot come before it was spoken.
`playout`: what a bot sends; it may run ahead of real time, and then plays on without a break."""


@dataclass(slots=True)
class Piece:
    """A stretch of a run that lies together in the journal: some frames, as a rule many.

    Attributes:
        first: Its first input sample, counted from the run's.
        count: Input samples.
        channels: Interleaved channels.
        segment: Number of the journal segment.
        offset: Of its first sample there, bytes.
    """

    first: int
    count: int
    channels: int
    segment: int
    offset: int


@dataclass(slots=True)
class Run:
    """Audio without a break.

    Attributes:
        number: Unique in the recording, ascending.
        track: Track index.
        start: Output position of its first sample.
        media: How much of its track came before it, output samples, without what drift inserted.
        grid: Its rates, and where its blocks lie.
        count: Input samples so far.
        limit: Output position it is cut off at (not heard beyond), or None.
        closed: No more input will come.
        pieces: Where its input is, oldest first; those no longer needed are dropped.
    """

    number: int
    track: int
    start: int
    media: int
    grid: Grid
    count: int = 0
    limit: int | None = None
    closed: bool = False
    pieces: list[Piece] = field(default_factory=list)

    @property
    def sample_rate(self) -> int:
        """Of its input, Hz."""
        return self.grid.rate_in

    @property
    def length(self) -> int:
        """Output samples so far."""
        return self.grid.output(self.count)

    @property
    def end(self) -> int:
        """The output position behind its last sample so far."""
        end = self.start + self.length
        return end if self.limit is None else min(end, self.limit)

    def forget_before(self, position: int, needed: int) -> None:
        """Drop what only concerns output before `position` and input before `needed`."""
        unneeded = bisect_right(self.pieces, needed, key=_piece_end)
        del self.pieces[:unneeded]
        if position > self.start:
            self.grid.forget_before(self.grid.block_of(position - self.start))

    def add(self, samples: int, channels: int, segment: int, offset: int) -> None:
        """Go on with so many input samples that lie there in the journal."""
        first, self.count = self.count, self.count + samples
        if self.pieces:
            last = self.pieces[-1]
            end = last.offset + 2 * last.channels * last.count
            if (last.channels, last.segment, end) == (channels, segment, offset):
                last.count += samples
                return
        self.pieces.append(Piece(first, samples, channels, segment, offset))

    def copy(self) -> Self:
        """Return one of its own that is the same."""
        pieces = [replace(piece) for piece in self.pieces]
        return replace(self, grid=self.grid.copy(), pieces=pieces)

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON types; its pieces as lists, since there are many."""
        names = ("number", "track", "start", "media", "count", "limit", "closed")
        pieces = [
            [piece.first, piece.count, piece.channels, piece.segment, piece.offset]
            for piece in self.pieces
        ]
        told = {name: getattr(self, name) for name in names}
        return told | {"grid": self.grid.state(), "pieces": pieces}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the run whose `state` this is."""
        pieces = [Piece(*piece) for piece in state["pieces"]]
        return cls(**{**state, "grid": Grid(**state["grid"]), "pieces": pieces})


@dataclass(slots=True)
class TrackState:
    """One track, as far as it is decided on.

    Attributes:
        name: Of the track.
        source: Its kind of source.
        cursor: Next output position.
        run: The run that goes on.
        participant: Whose it is, where that is known.
        joined: Its first sample of audio; None before it has any.
        media: All of its audio so far, output samples, whether it was heard or not; without what
            drift inserted, as its source counts it.
        origins: Of the newest runs, how much came before each, and where it begins; moved by what
            drift inserted. Kept apart from the runs, which are dropped when they are sealed.
        heard_ns: When its newest frame was written, if a stall since then may end in a burst; None
            where it was told that it ended there.
        following: How many of the frames to come follow without a break, as is known already.
        ahead: Whether it has run ahead of real time since it was silent last: then its source does
            not pace what it sends.
        delay: How much later than it is handed over its audio is played, by what was reported.
        shift: How much of that the place of the audio placed last allows for...
        late: ... and how much it does not.
        played: How much of it was played by the newest report, output samples.
        next_ns: Media time that a frame without a break would have, by the timestamps.
        drift: Of the run's clock.
    """

    name: str
    source: Source
    cursor: int = 0
    run: Run | None = None
    participant: str | None = None
    joined: int | None = None
    media: int = 0
    origins: list[list[int]] = field(default_factory=list)
    heard_ns: int | None = None
    following: int = 0
    ahead: bool = False
    delay: int = 0
    shift: int = 0
    late: int = 0
    played: int | None = None
    next_ns: int | None = None
    drift: Drift = field(default_factory=Drift)

    def copy(self, run: Run | None) -> Self:
        """Return one of its own that is the same, but for the run that goes on."""
        origins = [origin.copy() for origin in self.origins]
        return replace(self, run=run, origins=origins, drift=self.drift.copy())

    def state(self) -> dict[str, Any]:
        """Return everything but the run, which is among all runs, as plain JSON types."""
        names = [name for name in self.__slots__ if name not in ("run", "drift")]
        return {name: getattr(self, name) for name in names} | {"drift": self.drift.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Return the track whose `state` this is, without its run."""
        return cls(**{**state, "drift": Drift(**state["drift"])})


def _piece_end(piece: Piece) -> int:
    return piece.first + piece.count
