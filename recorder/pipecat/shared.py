"""One open `Recorder` for all processors of a process that have the same settings."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future

from recorder.service import Recorder
from recorder.settings import Settings

_lock = threading.Lock()
_shared: list[_Shared] = []
_opening: set[asyncio.Task[Recorder]] = set()


class _Shared:
    """A recorder and how many leases there are on it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.recorder = Recorder(settings, require_store=False)
        self.leases = 0
        self.opened: Future[None] | None = None


class Lease:
    """A claim on a recorder; it is open from the first lease's `opened` to the last `release`.

    Args:
        settings: What the recorder is opened with; equal settings share a recorder.
        recorder: The user's own recorder, instead: used as it is, and never closed.
    """

    def __init__(self, settings: Settings, recorder: Recorder | None = None) -> None:
        self._own = recorder
        self._entry: _Shared | None = None
        if recorder is None:
            with _lock:
                self._entry = _entry(settings)
                self._entry.leases += 1

    def begin(self) -> None:
        """Have the recorder opened in the background, if it is not."""
        entry = self._entry
        if entry is None:
            return
        with _lock:
            opened = entry.opened
            if opened is not None and not (opened.done() and opened.exception()):
                return
            entry.opened = opened = Future()
        task = asyncio.get_running_loop().create_task(entry.recorder.__aenter__())
        _opening.add(task)
        task.add_done_callback(lambda done: _settle(done, opened))

    async def opened(self) -> Recorder:
        """Return the recorder, open.

        Raises:
            BotRecorderError: It could not be opened; the next call tries again.
            RuntimeError: The lease was released.
        """
        if self._own is not None:
            return self._own
        self.begin()
        if self._entry is None or self._entry.opened is None:
            raise RuntimeError("the recorder was given back already")
        await asyncio.shield(asyncio.wrap_future(self._entry.opened))
        return self._entry.recorder

    async def release(self, wait_seconds: float) -> None:
        """Give the claim back; the last one closes the recorder. Idempotent.

        Args:
            wait_seconds: How long closing waits for uploads that are not through yet.
        """
        with _lock:
            entry, self._entry = self._entry, None
            if entry is None:
                return
            entry.leases -= 1
            if entry.leases:
                return
            _shared.remove(entry)
        if entry.opened is not None:
            with contextlib.suppress(Exception):  # told to whoever waited for it
                await asyncio.shield(asyncio.wrap_future(entry.opened))
        await entry.recorder.close(wait_seconds=wait_seconds)


def _entry(settings: Settings) -> _Shared:
    for entry in _shared:
        if entry.settings == settings:
            return entry
    entry = _Shared(settings)
    _shared.append(entry)
    return entry


def _settle(task: asyncio.Task[Recorder], opened: Future[None]) -> None:
    """Tell all who wait, on whatever event loop, how opening went."""
    _opening.discard(task)
    if task.cancelled():
        opened.set_exception(RuntimeError("the event loop ended while the recorder was opened"))
    elif (error := task.exception()) is not None:
        opened.set_exception(error)
    else:
        opened.set_result(None)
