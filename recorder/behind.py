"""What goes on behind a session, as the session sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from recorder.records import Record
from recorder.result import RecordingResult

if TYPE_CHECKING:
    from recorder.chunk_reader import Planes


class Backstage(Protocol):
    """What goes on behind a session, off the frame path; see `recorder.backstage`."""

    def end(self, rest: list[tuple[Record, object]]) -> None:
        """Finish in the background; `rest` is what the journal had no room for."""

    def result(self) -> RecordingResult:
        """Return the result so far."""
        ...

    async def finish(self, wait_seconds: float | None) -> RecordingResult:
        """Wait for the result."""
        ...

    async def flush(self) -> None:
        """Seal what is due and wait for its delivery."""

    async def sealed(self) -> int:
        """Wait until all is sealed."""
        ...

    async def settled(self) -> int:
        """Return up to which sample nothing changes."""
        ...

    async def read(self, start: int, end: int) -> Planes:
        """Return samples."""
        ...

    def hold(self, holder: object, position: int) -> None:
        """Keep samples."""

    def release(self, holder: object) -> None:
        """Let them go."""
