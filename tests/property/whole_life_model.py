"""What a recording must hold, told from what was accepted: samples by track at their positions.

Everything happens on a grid of tenths of a second and at the recording's own rate, so that every
position is a whole number and every sample is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

STEPS_PER_SECOND = 10
SOURCES = {"user": "capture", "guest": "capture", "bot": "playout"}
NOISE = {
    name: np.random.default_rng(number).integers(-9000, 9000, 1 << 16, dtype=np.int16)
    for number, name in enumerate(SOURCES)
}


@dataclass
class Turn:
    """A turn; `end` is None while it goes on."""

    track: str
    start: int
    end: int | None = None


@dataclass
class Model:
    """One call.

    Attributes:
        rate: Of the recording, Hz.
        tracks: In the order in which they joined.
        began: Whether the start came through: if not, there may be an empty recording, or none.
        floor: Samples that must be there although the host was lost; None if none may be lost.
        rescued: Whether somebody without the spool may have finished it: marks may be lost.
        length: Of the whole, at least, once it has ended; None while it goes on.
        longest: Of the whole, at most: silence before a death may have been sealed, or not.
        puts_refused: Whether the store refused puts for a while: a waveform may be missing then.
    """

    rate: int
    tracks: list[str]
    began: bool = False
    paused: bool = False
    now: int = 0
    last_written: int = 0
    floor: int | None = None
    rescued: bool = False
    length: int | None = None
    longest: int = 0
    puts_refused: bool = False
    turns: list[Turn] = field(default_factory=list)
    pauses: list[list[int | None]] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    spoken: dict[str, int] = field(default_factory=dict)
    _planes: dict[str, Samples] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Samples of a tenth of a second."""
        return self.rate // STEPS_PER_SECOND

    def next_frame(self, track: str) -> Samples:
        """Return what a speaker says next."""
        start = self.spoken.get(track, 0)
        self.spoken[track] = start + self.step
        return NOISE[track].take(np.arange(start, start + self.step), mode="wrap")

    def accept(self, track: str, frame: Samples, *, burst: bool = False) -> None:
        """Place a frame that was accepted now; in a burst it cannot have been played by now."""
        if self.paused:
            return
        self._join(track)
        cursor = self.cursors.get(track)
        start = max(cursor or 0, self.now - len(frame))  # a silence, or what runs ahead goes on
        if burst and (cursor is None or start > cursor):
            start = self.now
        plane = self._planes.get(track, np.zeros(0, np.int16))
        if len(plane) < start + len(frame):
            longer = np.zeros(2 * (start + len(frame)), np.int16)
            longer[: len(plane)] = plane
            self._planes[track] = plane = longer
        plane[start : start + len(frame)] = frame
        self.cursors[track] = start + len(frame)
        self.last_written = self.now

    def interrupt(self, track: str) -> None:
        """Nobody hears what was sent ahead."""
        self._join(track)
        self.last_written = self.now
        if self.cursors.get(track, 0) > self.now:
            self._planes[track][self.now :] = 0
            self.cursors[track] = self.now

    def pause(self) -> None:
        """Frames are not accepted any more."""
        self.paused = True
        self.last_written = self.now
        self.pauses.append([self.now, None])

    def resume(self) -> None:
        """They are again."""
        self.paused = False
        self.last_written = self.now
        self.pauses[-1][1] = self.now

    def start_turn(self, track: str) -> None:
        """A turn begins."""
        self._join(track)
        self.last_written = self.now
        self.turns.append(Turn(track, self.now))

    def end_turn(self, track: str) -> None:
        """The open turn ends."""
        self._join(track)
        self.last_written = self.now
        for turn in reversed(self.turns):
            if turn.track == track and turn.end is None:
                turn.end = self.now
                return

    def stop(self, *, discard_unheard: bool = False) -> None:
        """The user has ended the call."""
        if self.length is not None:
            return
        if discard_unheard:
            for track in self.tracks:
                if SOURCES[track] == "playout":
                    self.interrupt(track)
        self.last_written = self.now
        self.length = self.longest = max([self.now, *self.cursors.values()])

    def cut_off(self) -> None:
        """The process has died: the call ends with the last that was accepted."""
        if self.length is None:
            self.length = max([self.last_written, *self.cursors.values()])
            self.longest = max(self.length, self.now)

    def planes(self, length: int) -> dict[str, Samples]:
        """Return all tracks' samples [0, length)."""
        found = {}
        for track in self.tracks:
            plane = self._planes.get(track, np.zeros(0, np.int16))[:length]
            plane = np.concatenate([plane, np.zeros(length - len(plane), np.int16)])
            for start, end in self.pauses:
                plane[start:end] = 0
            found[track] = plane
        return found

    def _join(self, track: str) -> None:
        if track not in self.tracks:
            self.tracks.append(track)


def laid_out(layout: str, planes: dict[str, Samples]) -> Samples:
    """Return an output's samples, shape (samples, channels)."""

    def total(names: list[str]) -> Any:
        summed = np.sum([planes[name].astype(int) for name in names], axis=0)
        silence = np.zeros(len(next(iter(planes.values()))), int)
        return np.clip(summed if names else silence, -32768, 32767).astype(np.int16)

    if layout == "stereo":
        right = ["bot"] if "bot" in planes else list(planes)[1:]
        left = [name for name in planes if name not in right]
        return np.stack([total(left), total(right)], axis=1)
    names = list(planes) if layout == "mono" else [layout]
    return np.asarray(total(names).reshape(-1, 1))
