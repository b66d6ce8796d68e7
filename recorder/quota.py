"""How much disk the spools of one process may take, all recordings together."""

from __future__ import annotations

import threading

from uploader.errors import BotRecorderError


class SpoolFull(BotRecorderError):
    """There is no room in the spool: the disk is full, or its configured size is used up."""


class SpoolQuota:
    """Counts bytes allocated in the spool against a limit. Thread-safe.

    Args:
        limit: Bytes.
        used: Bytes that are there already, e.g. left by an earlier process.
    """

    def __init__(self, limit: int, used: int = 0) -> None:
        self.limit = limit
        self._used = used
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes allocated now."""
        return self._used

    def take(self, count: int) -> None:
        """Allocate `count` bytes.

        Raises:
            SpoolFull: They do not fit under the limit; nothing was allocated.
        """
        with self._lock:
            if self._used + count > self.limit:
                raise SpoolFull(
                    f"the spool holds {self._used} of at most {self.limit} bytes",
                    hint="the store is not taking uploads fast enough, or set "
                    "RECORDER_SPOOL_MAX_BYTES higher",
                )
            self._used += count

    def give(self, count: int) -> None:
        """Return `count` bytes."""
        with self._lock:
            self._used = max(0, self._used - count)
