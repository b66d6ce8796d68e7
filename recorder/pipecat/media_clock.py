"""Presentation timestamps of a microphone's frames, in seconds: where they can be understood.

Pipecat says nothing of their unit. SmallWebRTC hands on what the decoder counted in: 48,000 a
second for Opus, 8,000 for G.711, 16,000 for G.722, whatever rate its audio was resampled to; others
count nanoseconds. The unit is found by comparing, and timestamps that do not go along with the
audio are not believed.
"""

from __future__ import annotations

from collections import deque

UNITS = (
    *(1_000_000_000, 1_000_000, 1_000),
    *(48_000, 90_000, 44_100, 32_000, 24_000, 16_000, 12_000, 8_000),
)
"""Ticks a second: fractions of a second, and what media clocks count in."""

FRAMES = 10
"""So many steps, most of which agree, tell the unit."""

AGREEING = 0.8
TOLERANCE = 0.03
"""Of a step: neighbouring units differ by 8 % and more."""

MAX_AHEAD_SECONDS = 5.0
"""Timestamps that are further ahead of the host's clock than at the begin cannot be right."""

MAX_DRIFT = 0.001
"""What two clocks may differ by, beside that."""

MAX_BEHIND_SECONDS = 1.0
MAX_BEHIND_AUDIO_SECONDS = 2.0
"""Timestamps that stay behind for so much audio have stood still, or the audio was muted."""

MAX_HELD_SECONDS = 0.2
"""One timestamp may be that of several frames, if they are short."""


class MediaClock:
    """One microphone's timestamps.

    Once they have gone wrong they are ignored for good: frames are then placed by their arrival.

    Attributes:
        useless: Whether they have gone wrong.
    """

    def __init__(self) -> None:
        self.useless = False
        self._unit: int | None = None
        self._steps: deque[float] = deque(maxlen=FRAMES)
        self._pts: int | None = None
        self._held = 0.0
        self._begin = (0.0, 0.0)
        self._least = 0.0
        self._behind = 0.0

    def seconds(self, pts: object, length: float, at: float) -> float | None:
        """Return when a frame's first sample was, on its source's clock; None if nobody knows.

        Args:
            pts: The frame's.
            length: Of the frame, seconds.
            at: When it arrived, seconds.
        """
        if self.useless or length <= 0:
            return None
        if type(pts) is not int:
            self._pts = None
            return None
        told = self._told(pts, length, at)
        if told is not None and not self._agrees(told, length, at):
            self.useless = True
            return None
        return told

    def _told(self, pts: int, length: float, at: float) -> float | None:
        before = self._step(pts, length)
        if before is None:
            self.useless = True
            return None
        if self._unit is None:
            self._unit = self._found()
            if self._unit is None:
                return None
            self._begin = pts / self._unit + before, at
        return pts / self._unit + before

    def _step(self, pts: int, length: float) -> float | None:
        """Take a timestamp.

        Returns:
            How many seconds of frames had the same before this one; None if it cannot be right.
        """
        if pts == self._pts:
            before = self._held
            self._held += length
            return before if self._held <= MAX_HELD_SECONDS else None
        if self._pts is not None:
            if pts < self._pts:
                return None
            self._steps.append((pts - self._pts) / self._held)
        self._pts, self._held = pts, length
        return 0.0

    def _found(self) -> int | None:
        if len(self._steps) < FRAMES:
            return None
        for unit in UNITS:
            agreeing = sum(abs(step / unit - 1) <= TOLERANCE for step in self._steps)
            if agreeing >= AGREEING * FRAMES:
                return unit
        return None

    def _agrees(self, told: float, length: float, at: float) -> bool:
        """Return whether the timestamps still go along with the host's clock."""
        begin, began_at = self._begin
        behind = (at - began_at) - (told - begin)
        if -behind > MAX_AHEAD_SECONDS + MAX_DRIFT * (at - began_at):
            return False
        # The least is what the way takes; a source whose clock is slow comes ever later.
        self._least = min(behind, self._least + MAX_DRIFT * length)
        late = behind - self._least > MAX_BEHIND_SECONDS
        self._behind = self._behind + length if late else 0.0
        return self._behind <= MAX_BEHIND_AUDIO_SECONDS
