"""What is seen while files are recorded: how far it is, and what does not get through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
        self._chunks = self._parts = self._bytes = 0
        self._told: set[str] = set()

    @classmethod
    @contextmanager
    def shown(cls, console: Console) -> Iterator[Display]:
        """Show it inside the block."""
        display = cls(console)
        if not console.is_terminal:
            yield display
            return
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[seconds]}  {task.fields[sent]}"),
            console=console,
            transient=True,
        )
        with progress:
            display._progress = progress
            yield display

    def begin(self, total: float) -> None:
        """Show a line for a recording of so many seconds."""
        if self._progress is not None:
            self._task = self._progress.add_task("recording", total=total, seconds="", sent="")

    def played(self, seconds: float) -> None:
        """Show how much has been played."""
        if self._progress is not None:
            text = output.seconds(seconds)
            self._progress.update(self._task, completed=seconds, seconds=text, sent=self._sent())

    def finishing(self) -> None:
        """Show that what is left is being sent."""
        if self._progress is not None:
            self._progress.update(self._task, description="finishing", sent=self._sent())

    def say(self, text: str) -> None:
        """Print a remark above the line."""
        output.print_note(self._console, text)

    def take(self, event: events.Event) -> None:
        """Count what was sent; tell, once each, of what is not getting through."""
        self.failure = str(event.error) if isinstance(event, events.UploadFailed) else ""
        match event:
            case events.ChunkUploaded():
                self._chunks += 1
                self._bytes += event.chunk.bytes
            case events.PartUploaded():
                self._parts += 1
                self._bytes += event.bytes
            case events.UploadFailed(retrying=True) if str(event.error) not in self._told:
                self._told.add(str(event.error))
                self.say(f"{event.op} is being retried: {event.error}")
        if self._progress is not None:
            self._progress.update(self._task, sent=self._sent())

    def _sent(self) -> str:
        chunks, parts = output.many(self._chunks, "chunk"), output.many(self._parts, "part")
        return f"{chunks}, {parts}, {output.size(self._bytes)} sent"
