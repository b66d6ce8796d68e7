"""A recording's start, as its caller sees it: awaited, or the head of an `async with`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from recorder.engine import Engine
from recorder.events import Event
from recorder.session import Session

T = TypeVar("T")

Emit = Callable[[Event], None]
OnEvent = Callable[[Event], None]


class Starting:
    """What `Recorder.start` returns: awaitable, and an async context manager.

    Args:
        engine: Returns the recorder's engine, once that is open.
        begin: Makes the session, on the engine.
        on_event: Called with each event, on the loop of who starts.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        begin: Callable[[Emit], Coroutine[Any, Any, Session]],
        on_event: OnEvent | None,
    ) -> None:
        self._engine = engine
        self._make = begin
        self._on_event = on_event
        self._session: Session | None = None

    def __await__(self) -> Generator[Any, None, Session]:
        return self._begin().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._begin()
        return self._session

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.stop()

    async def _begin(self) -> Session:
        emit = handing_over(self._on_event)
        begun: list[Session] = []
        abandoned = threading.Event()

        async def begin() -> Session:
            session = await self._make(emit)
            begun.append(session)
            if abandoned.is_set():
                session.end()
            return session

        engine = self._engine()
        try:
            session = await engine.run(begin())
        except asyncio.CancelledError:
            # Nobody will ever write to it or stop it.
            abandoned.set()
            for session in begun:
                session.end()
            raise
        session.handed_over()
        return session


def handing_over(callback: Callable[[T], None] | None) -> Callable[[T], None]:
    """Return what has a callback called on this event loop; a loop that is gone gets nothing."""
    loop = asyncio.get_running_loop()

    def hand_over(item: T) -> None:
        if callback is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(callback, item)

    return hand_over
