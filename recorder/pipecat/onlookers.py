"""Which of a pipeline's observers are to be told of a frame that only passes by.

A pipeline hands everything that processors do to each of its observers through a queue and a task,
also to those that do nothing with it: hardly any observer asks what is processed, and most want to
know of a frame once. Whom it would reach is found out before, where that can be known.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Container, Iterable
from typing import Any

from pipecat.observers.base_observer import BaseObserver

try:
    from pipecat.pipeline.worker_observer import WorkerObserver
except ImportError:  # no part of what Pipecat promises: another version may not have it
    WorkerObserver = None  # type: ignore[assignment, misc]

_METHODS = ("__init__", "on_process_frame", "on_push_frame", "_send_to_proxy", "add_observer")
_KNOWN = frozenset({"5b779a0519cfa047"})
"""Digests of their source, where an observer gets what is said here: that of pipecat-ai 1.14."""


def digest_of(functions: Callable[[], Iterable[Any]]) -> str:
    """Return a digest of functions' source; empty if there is none, or not all functions are."""
    try:
        source = "\n".join(inspect.getsource(function) for function in functions())
    except (KeyError, OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def source_digest() -> str:
    """Return a digest of how Pipecat hands on what is observed."""
    return digest_of(
        lambda: [
            *(vars(WorkerObserver)[name] for name in _METHODS),
            vars(BaseObserver)["on_process_frame"],
        ]
    )


_is_known = source_digest() in _KNOWN


class Onlookers:
    """The observers behind a pipeline's; those of another kind of observer want everything.

    Attributes:
        all: The observers there are.
        known: Those that were there when it was last asked what they want.
        of_processing: Whether any wants to know what is processed.
        of_every_push: Whether any wants to know of more than a frame's first push.
        pushed: Ids of the frames in flight that were pushed before.
    """

    def __init__(self, observer: BaseObserver) -> None:
        self.all: list[BaseObserver] = []
        self.known: list[BaseObserver] = []
        self.pushed: Container[int] = ()
        self.of_processing = self.of_every_push = True
        # Private: its class is looked at, and nothing is left out if it is not the known one.
        if _is_known and type(observer) is WorkerObserver:
            self.all = observer._observers
            self.pushed = observer._frames_pushed
            self.look()

    def look(self) -> None:
        """Find out what they want; to be called when `all` is not `known`."""
        self.known = list(self.all)
        self.of_processing = any(map(_hears_of_processing, self.known))
        self.of_every_push = any(one.observe_every_push for one in self.known)


def _hears_of_processing(observer: BaseObserver) -> bool:
    function = getattr(observer.on_process_frame, "__func__", None)
    return function is not BaseObserver.on_process_frame
