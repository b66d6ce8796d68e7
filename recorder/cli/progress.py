"""What is seen while work goes on: how far it is, and what does not get through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from recorder import events
from recorder.cli import output


class Display:
    """What is seen while it goes on: a line that moves, if there is a terminal.

    Attributes:
        failure: What last went wrong with the store, and has not been seen to work since.
    """

    def __init__(self, console: Console) -> None:
        self.failure = ""
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._told: set[str] = set()

    @classmethod
    @contextmanager
    def shown(cls, console: Console) -> Iterator[Self]:
        """Show it inside the block."""
        display = cls(console)
        if not console.is_terminal:
            yield display
            return
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}")
        with Progress(*columns, console=console, transient=True) as display._progress:
            yield display

    def begin(self, what: str, total: float | None = None) -> None:
        """Show the line."""
        if self._progress is not None:
            self._task = self._progress.add_task(what, total=total, far="")

    def show(
        self,
        far: str,
        *,
        done: float | None = None,
        total: float | None = None,
        what: str | None = None,
    ) -> None:
        """Show how far it is; what is None stays as it was."""
        if self._progress is not None:
            self._progress.update(
                self._task, description=what, completed=done, total=total, far=far
            )

    def say(self, text: str) -> None:
        """Print a remark above the line."""
        output.print_note(self._console, text)

    def take(self, event: events.Event) -> None:
        """Tell, once each, of what is not getting through."""
        self.failure = ""
        if isinstance(event, events.UploadFailed):
            self.failure = str(event.error)
            if self.failure not in self._told and (remark := self._remark(event)):
                self._told.add(self.failure)
                self.say(remark)

    def _remark(self, failed: events.UploadFailed) -> str:
        """Return what to say of it; nothing where there is nothing to say."""
        return f"not getting through: {failed.error}"


class Sending(Display):
    """The same of a call that is recorded, with how much of it was sent."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._played = ""
        self._chunks = self._parts = self._bytes = 0

    def played(self, seconds: float) -> None:
        """Show how much has been played."""
        self._played = output.seconds(seconds)
        self.show(self._far(), done=seconds)

    def finishing(self) -> None:
        """Show that what is left is being sent."""
        self.show(self._far(), what="finishing")

    def take(self, event: events.Event) -> None:
        """Count what was sent, too."""
        super().take(event)
        match event:
            case events.ChunkUploaded():
                self._chunks += 1
                self._bytes += event.chunk.bytes
            case events.PartUploaded():
                self._parts += 1
                self._bytes += event.bytes
        self.show(self._far())

    def _remark(self, failed: events.UploadFailed) -> str:
        return f"{failed.op} is being retried: {failed.error}" if failed.retrying else ""

    def _far(self) -> str:
        chunks, parts = output.many(self._chunks, "chunk"), output.many(self._parts, "part")
        return f"{self._played}  {chunks}, {parts}, {output.size(self._bytes)} sent"
