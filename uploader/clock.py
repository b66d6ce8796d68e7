"""Time, as something that can be handed in: positions in a recording never read the system."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a recording's time comes from."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back and has no set zero."""
        ...

    def utc(self) -> datetime:
        """The wall clock's time, timezone-aware, for people and for names; never for positions."""
        ...


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)  # itself: it is asked with each frame

    def utc(self) -> datetime:
        """Return the system's UTC time."""
        return datetime.now(UTC)


class VirtualClock:
    """A clock that stands still until it is moved: for tests, and for files faster than real time.

    Args:
        start: First value of `monotonic()`, seconds.
        utc: Wall clock time at `start`; the system's now by default.
    """

    def __init__(self, start: float = 0.0, utc: datetime | None = None) -> None:
        self._start = start
        self._now = start
        self._utc = utc or datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the virtual now, seconds."""
        return self._now

    def utc(self) -> datetime:
        """Return the virtual wall clock: it moves with `monotonic()`."""
        return self._utc + timedelta(seconds=self._now - self._start)

    def advance(self, seconds: float) -> None:
        """Move forward.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: advance({seconds})")
        self._now += seconds

    def advance_to(self, now: float) -> None:
        """Move forward to `now`; a time already past changes nothing."""
        self._now = max(self._now, now)
