"""A processor that takes frames of audio and hands them on, without what Pipecat does for nobody.

For a frame of audio a `FrameProcessor` does nothing of its own: it tells the observer, calls the
handlers of its events, of which there are hardly ever any, and queues the frame at the next
processor. A hundred times a second and call, finding out that there is nothing to do is most of
what a light processor costs.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from loguru import logger
from pipecat.frames.frames import CancelFrame, Frame, StartFrame
from pipecat.observers.base_observer import BaseObserver, FrameProcessed, FramePushed
from pipecat.processors.frame_processor import (
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
)
from pipecat.utils.errors import ErrorCategory

from recorder.pipecat.onlookers import Onlookers, digest_of

if TYPE_CHECKING:
    from pipecat.processors.frame_processor import FrameCallback

Take = Callable[[Any], None]
"""Takes a frame that flows down; raises nothing."""

FRAME_EVENTS = frozenset(
    f"on_{when}_{what}_frame" for when in ("before", "after") for what in ("process", "push")
)

_METHODS = ("queue_frame", "process_frame", "push_frame")
_INNER = ("_FrameProcessor__process_frame", "_FrameProcessor__internal_push_frame")
"""What is gone past, beside `_METHODS`: private, hence only looked at."""

_KNOWN = frozenset({"98d44b906517c738"})
"""Digests of their source, where `ShortcutProcessor` does the same: that of pipecat-ai 1.14."""

_DOWN = FrameDirection.DOWNSTREAM

TRACE = 5
"""Loguru's number of that level."""


class _Everything:
    min_level = 0


# Private: what it has not got is asked with each frame, which is what takes the time.
_log: Any = getattr(logger, "_core", _Everything)
if not hasattr(_log, "min_level"):
    _log = _Everything


def source_digest() -> str:
    """Return a digest of what Pipecat does with a frame; empty if its source is not there."""
    return digest_of(lambda: [vars(FrameProcessor)[name] for name in (*_METHODS, *_INNER)])


_originals = tuple(vars(FrameProcessor).get(name) for name in _METHODS)
_is_known = source_digest() in _KNOWN


class ShortcutProcessor(FrameProcessor):
    """Passes every frame on; those of classes in `_shortcuts` on a shorter way, if it is the same.

    It is the same as long as Pipecat is as it is known here, nobody handles the events of frames,
    and no subclass has a `push_frame` of its own; until the pipeline is cancelled, after which
    Pipecat drops frames. Otherwise, and for all other frames, everything is left to Pipecat.

    Args:
        **kwargs: For `FrameProcessor`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shortcuts: dict[type[Frame], Take] = {}
        self._is_short = self.__is_direct = False
        self.__has_queue = not kwargs.get("enable_direct_mode", False)
        self.__frames_are_handled = False
        self.__cancelled = False
        self.__observer: BaseObserver | None = None
        self.__onlookers: Onlookers | None = None
        self.__pipeline_time: Callable[[], int] = int

    @property
    def is_short(self) -> bool:
        """Whether the shorter way is taken."""
        return self._is_short

    def _take(self, frame: Frame, direction: FrameDirection) -> None:
        """Take any frame on the longer way; must raise nothing."""

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as FrameProcessor has it
        """Take note of who observes."""
        await super().setup(setup)
        self.__observer = observer = setup.observer
        self.__onlookers = None if observer is None else Onlookers(observer)
        self.__pipeline_time = setup.clock.get_time
        self._find_way()

    def add_event_handler(self, event_name: str, handler: Callable[..., Any]) -> None:
        """Add a handler."""
        super().add_event_handler(event_name, handler)
        if event_name in FRAME_EVENTS:
            self.__frames_are_handled = True
            self._find_way()

    def _find_way(self) -> None:
        self._is_short = (
            _is_known
            and _originals == tuple(vars(FrameProcessor).get(name) for name in _METHODS)
            and type(self).push_frame is FrameProcessor.push_frame
            and "push_frame" not in vars(self)
            and not self.__frames_are_handled
            and not self.__cancelled
        )
        self.__is_direct = (
            self._is_short
            and not self.__has_queue
            and type(self).process_frame is ShortcutProcessor.process_frame
        )

    def queue_frame(
        self,
        frame: Frame,
        direction: FrameDirection = _DOWN,
        callback: FrameCallback | None = None,
        **more: Any,
    ) -> Coroutine[Any, Any, None]:
        """Take a frame from the processor before; `more` is what a newer Pipecat has."""
        if self.__is_direct and direction is _DOWN and callback is None and not more:
            take = self._shortcuts.get(type(frame))
            if take is not None:
                return self.__take_and_push(frame, take, queued=True)
        return super().queue_frame(frame, direction, callback, **more)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take a frame, and pass it on."""
        take = self._shortcuts.get(type(frame))
        if take is not None and direction is _DOWN and self._is_short:
            await self.__take_and_push(frame, take, queued=False)
            return
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame | CancelFrame):
            self.__cancelled = self.__cancelled or isinstance(frame, CancelFrame)
            self._find_way()
        self._take(frame, direction)
        await self.push_frame(frame, direction)

    async def __take_and_push(self, frame: Frame, take: Take, *, queued: bool) -> None:
        """Take a frame that flows down, and push it: one step for all that is three in Pipecat."""
        observer, onlookers = self.__observer, self.__onlookers
        if onlookers is not None and observer is not None:
            if onlookers.all != onlookers.known:
                onlookers.look()
            if onlookers.of_processing:
                processed = FrameProcessed(self, frame, _DOWN, self.__pipeline_time())
                try:
                    await observer.on_process_frame(processed)
                except Exception as error:
                    if not queued:
                        raise
                    await self._push_failure(f"Error processing frame: {error}", error)
                    return
        take(frame)
        following = self._next  # as Pipecat's own `push_frame` has it
        if following is None:
            return
        if _log.min_level <= TRACE:
            # Formatted only where somebody wants to see it.
            logger.trace("Pushing {} downstream from {} to {}", frame, self, following)
        try:
            if (
                onlookers is not None
                and observer is not None
                and (onlookers.of_every_push or frame.id not in onlookers.pushed)
            ):
                pushed = FramePushed(self, following, frame, _DOWN, self.__pipeline_time())
                await observer.on_push_frame(pushed)
            await following.queue_frame(frame, _DOWN)
        except Exception as error:
            await self._push_failure(f"Uncaught exception: {error}", error)

    async def _push_failure(self, message: str, error: Exception) -> None:
        """Tell of what another processor or an observer has raised, as Pipecat does."""
        await self.push_error(message, exception=error, category=ErrorCategory.UNKNOWN)
