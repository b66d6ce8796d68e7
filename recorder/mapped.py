"""The journal segments that a process has mapped: one mapping for who captures and who seals.

To map a segment and touch each of its pages costs more than to copy what it holds. So both use the
same mapping, and it stays with a file that becomes another segment.
"""

from __future__ import annotations

import threading
from pathlib import Path

from recorder.segments import Segment


class Mapped:
    """One recording's. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._written: set[int] = set()
        self._spares: dict[Path, Segment] = {}
        self._closed = False

    def get(self, number: int) -> Segment | None:
        """Return a segment that is mapped, if it is."""
        return self._segments.get(number)

    def add(self, number: int, segment: Segment, *, written: bool = False) -> None:
        """Keep a segment; while it is `written` to, it is not unmapped."""
        with self._lock:
            self._segments[number] = segment
            if written:
                self._written.add(number)

    def left(self, number: int) -> None:
        """Take note that a segment is not written to any more."""
        with self._lock:
            self._written.discard(number)
            segment = self._segments.pop(number, None) if self._closed else None
        if segment is not None:
            segment.close()

    def drop(self, number: int) -> None:
        """Unmap a segment: its file is not needed any more."""
        with self._lock:
            self._written.discard(number)
            segment = self._segments.pop(number, None)
        if segment is not None:
            segment.close()

    def spare(self, number: int, path: Path) -> None:
        """Keep a segment's mapping for the one its file becomes; `path` is its name meanwhile."""
        with self._lock:
            segment = self._segments.pop(number, None)
            if segment is not None and segment.writable and not self._closed:
                self._spares[path] = segment
                return
        if segment is not None:
            segment.close()

    def take_spare(self, path: Path) -> Segment | None:
        """Hand over the mapping of a spare file, if there is one."""
        with self._lock:
            return self._spares.pop(path, None)

    def close(self) -> None:
        """Unmap all but what is written to, which is when it has been left. Idempotent."""
        with self._lock:
            self._closed = True
            numbers = self._segments.keys() - self._written
            segments = [self._segments.pop(number) for number in numbers]
            segments += self._spares.values()
            self._spares.clear()
        for segment in segments:
            segment.close()
