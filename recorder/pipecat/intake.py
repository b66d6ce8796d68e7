"""Frames on their way into a session, also before there is one: a start can wait for the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from recorder.quota import SpoolFull

if TYPE_CHECKING:
    from recorder.session import Session
    from recorder.speakers import Track

MAX_WAITING_BYTES = 8 << 20
"""Audio that waits for its session: a minute and a half of two tracks at 16 and 24 kHz."""


class Write(Protocol):
    """`Session.write`, as far as it is used here."""

    def __call__(
        self,
        track: str,
        pcm: bytes,
        sample_rate: int,
        num_channels: int,
        at: float,
        /,
        *,
        pts: float | None = None,
    ) -> None:
        """Take a frame that arrived at `at`, seconds on the recorder's clock."""


class Intake:
    """Hands frames and marks to a session; keeps them in memory, in order, until it is there.

    Args:
        failed: Told of a track's frame that could not be accepted.

    Attributes:
        session: Where frames go; None until `attach`.
        write: Takes a frame, as `Session.write` does.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self.session: Session | None = None
        self.write: Write = self._keep
        self._failed = failed
        self._waiting: deque[tuple[str, tuple[Any, ...], dict[str, Any]]] = deque()
        self._waiting_bytes = 0
        self._end: dict[str, Any] | None = None
        self._given_up = False

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._end is not None

    def _keep(
        self,
        track: str,
        pcm: bytes,
        sample_rate: int,
        num_channels: int,
        at: float,
        /,
        *,
        pts: float | None = None,
    ) -> None:
        if self._given_up or self.ended:
            return
        if self._waiting_bytes + len(pcm) > MAX_WAITING_BYTES:
            raise SpoolFull(
                f"{self._waiting_bytes} bytes of audio wait for the recording to be started: "
                "there is no room for more"
            )
        self._waiting_bytes += len(pcm)
        kept = bytes(pcm)  # the sender may use a buffer again
        known: dict[str, Any] = {} if pts is None else {"pts": pts}
        self._waiting.append(("write", (track, kept, sample_rate, num_channels, at), known))

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
        self.write = session.write  # from here on, nothing is in between
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
