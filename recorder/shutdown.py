"""The end of a process whose recorder was not closed: SIGTERM, and the interpreter's own exit.

What is open then is drained, within its `drain_seconds`, and the process goes on ending as it
would have. Handlers of the program's own are left alone: it decides when it closes.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its exit hook must be there before this one's
import os
import signal
import threading
from types import FrameType
from typing import Protocol

from loguru import logger


class Drainable(Protocol):
    """A recorder that is open."""

    def drain(self) -> None:
        """End what goes on, and close."""


_open: list[Drainable] = []
_draining: threading.Thread | None = None
_drained = threading.Event()


def watch(recorder: Drainable) -> None:
    """Drain a recorder if the process ends before it is closed."""
    _open.append(recorder)
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)


def forget(recorder: Drainable) -> None:
    """A recorder is being closed."""
    if recorder in _open:
        _open.remove(recorder)
    idle = not _open and _draining is None
    if idle and _in_main_thread() and signal.getsignal(signal.SIGTERM) is _terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _terminated(number: int, frame: FrameType | None) -> None:
    """Drain, and then end as SIGTERM ends a process.

    On a thread: the one that was interrupted may hold any lock, even the log's.
    """
    global _draining
    if _drained.is_set():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _draining is None:
        _draining = threading.Thread(target=_drain_and_end, args=(number,), name="recorder-drain")
        _draining.start()


def _drain_and_end(number: int) -> None:
    _drain_all()
    _drained.set()
    os.kill(os.getpid(), number)


def _exiting() -> None:
    if _draining is not None:
        _draining.join()
    _drain_all()


def _drain_all() -> None:
    for recorder in list(_open):
        logger.info("the process ends: finishing its recordings")
        try:
            recorder.drain()
        except Exception as error:  # the others, and the process's end, must not wait for it
            logger.error("not all could be finished: {}", error)


# Not `atexit`, which comes too late: the worker threads of `concurrent.futures` are stopped before
# it, by this very hook, which calls first what was registered last.
threading._register_atexit(_exiting)  # type: ignore[attr-defined]
