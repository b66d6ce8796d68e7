"""Frames on their way into a session, also before there is one: a start can wait for the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recorder.quota import SpoolFull

if TYPE_CHECKING:
    from recorder.session import Session
    from recorder.speakers import Track

MAX_WAITING_BYTES = 8 << 20
"""Audio that waits for its session: a minute and a half of two tracks at 16 and 24 kHz."""


class Intake:
    """Hands frames and marks to a session; keeps them in memory, in order, until it is there.

    Args:
        failed: Told of a track's frame that could not be accepted.

    Attributes:
        session: Where frames go; None until `attach`.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self.session: Session | None = None
        self._failed = failed
        self._waiting: deque[tuple[str, tuple[Any, ...], dict[str, Any]]] = deque()
        self._waiting_bytes = 0
        self._end: dict[str, Any] | None = None
        self._given_up = False

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._end is not None

    def write(
        self,
        track: str,
        pcm: bytes,
        sample_rate: int,
        channels: int,
        at: float,
        pts: float | None = None,
    ) -> None:
        """Take a frame that arrived at `at`.

        Args:
            track: Its track.
            pcm: 16-bit samples.
            sample_rate: Hz.
            channels: Interleaved channels.
            at: When its last sample arrived, seconds on the recorder's clock.
            pts: When its first sample was, seconds on its source's clock, where that is known.

        Raises:
            InvalidFrame: See `Session.write`; not while it waits.
            InvalidName: The same.
        """
        known: dict[str, Any] = {} if pts is None else {"pts": pts}
        if self.session is not None:
            self.session.write(track, pcm, sample_rate, channels, at, **known)
        elif self._given_up or self.ended:
            return
        elif self._waiting_bytes + len(pcm) <= MAX_WAITING_BYTES:
            self._waiting_bytes += len(pcm)
            kept = bytes(pcm)  # the sender may use a buffer again
            self._waiting.append(("write", (track, kept, sample_rate, channels, at), known))
        else:
            raise SpoolFull(
                f"{self._waiting_bytes} bytes of audio wait for the recording to be started: "
                "there is no room for more"
            )

    def add_track(self, track: Track) -> None:
        """Say whose a track is."""
        if self.session is not None:
            self.session.add_track(track)
        elif not (self._given_up or self.ended):
            self._waiting.append(("add_track", (track,), {}))

    def mark(self, method: str, track: str, at: float, **arguments: Any) -> None:
        """Call `interrupt`, `start_turn` or `end_turn` of the session."""
        if self.session is not None:
            getattr(self.session, method)(track, at, **arguments)
        elif not (self._given_up or self.ended):
            self._waiting.append((method, (track, at), arguments))

    def attach(self, session: Session) -> None:
        """Hand over what has waited; from now on the session gets all at once."""
        for method, arguments, keywords in self._waiting:
            try:
                getattr(session, method)(*arguments, **keywords)
            except Exception as error:
                first = arguments[0]
                self._failed(first if isinstance(first, str) else first.name, error)
        self.session = session
        self._forget()
        if self._end is not None:
            session.end(**self._end)

    def end(self, at: float, *, discard_unheard: bool) -> None:
        """End the session, now or as soon as it is there. Idempotent."""
        if self._end is None:
            self._end = {"discard_unheard": discard_unheard, "at": at}
            if self.session is not None:
                self.session.end(**self._end)

    def give_up(self) -> int:
        """Drop what waits and what comes; return how many bytes of audio had waited."""
        self._given_up = True
        lost = self._waiting_bytes
        self._forget()
        return lost

    def _forget(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
