"""How things are printed: safe text, numbers for people, tables, JSON, errors.

What comes from a bucket is printed as it is, never as markup, and without the control characters
that would move a terminal's cursor.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loguru import logger
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from loguru import Message

_WIDE = 1000  # lines that go into a file or a pipe are not folded
_LEVELS = ("WARNING", "INFO", "DEBUG")


def stdout() -> Console:
    """Return a console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return a console for errors, logs and progress."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _WIDE,
        markup=False,
        emoji=False,
        highlight=False,
    )


@contextmanager
def logging(console: Console, verbose: int) -> Iterator[None]:
    """Send the log of this process to a console, inside the block.

    Args:
        console: Where lines appear above what else it shows.
        verbose: 0 for warnings, 1 for what is going on, 2 for everything. Without, single failed
            attempts are not told, nor what Pipecat has to say.
    """
    level = _LEVELS[min(verbose, len(_LEVELS) - 1)]
    levels: dict[str | None, str | int | bool] = {"": level}
    if verbose == 0:
        levels |= {"uploader.retry": "ERROR", "pipecat": "ERROR"}

    def sink(message: Message) -> None:
        record = message.record
        name = record["level"].name
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(name, "dim")
        line = Text(f"{name.lower()}: " if verbose == 0 else "", style)
        line.append(clean(message.rstrip("\n"), lines=True), "" if verbose == 0 else style)
        console.print(line, soft_wrap=True)

    text = "{message}" if verbose == 0 else "{time:HH:mm:ss.SSS} {level: <7} {name}: {message}"
    logger.remove()
    handler = logger.add(sink, level=0, filter=levels, format=text)
    try:
        yield
    finally:
        logger.remove(handler)


def clean(text: str, *, lines: bool = False) -> str:
    """Return text with everything that does not print written as an escape.

    Args:
        text: From wherever.
        lines: Whether line breaks may stay.
    """
    if text.isprintable():
        return text
    return "".join(
        one
        if one.isprintable() or (lines and one == "\n")
        else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def print_json(document: Any) -> None:
    """Print a document as JSON that every parser takes."""
    print(json.dumps(_finite(document), indent=2, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    """Return JSON types without the numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def print_error(console: Console, message: str) -> None:
    """Print an error, a line each if it has several."""
    for line in message.splitlines():
        console.print(Text.assemble(("Error: ", "bold red"), clean(line)), soft_wrap=True)


def print_note(console: Console, message: str) -> None:
    """Print a remark on one line."""
    console.print(Text(clean(message), "yellow"), soft_wrap=True)


def table(*columns: str, gap: int = 2) -> Table:
    """Return an empty table, with `gap` blanks between columns.

    A column whose name ends in `>` is aligned to the right, one whose name ends in `!` never
    folded where the terminal is narrow.
    """
    made = Table(
        box=None,
        pad_edge=False,
        padding=(0, gap, 0, 0),
        header_style="bold",
    )
    for column in columns:
        made.add_column(
            column.rstrip(">!"),
            justify="right" if column.endswith(">") else "left",
            no_wrap=column.endswith("!"),
            overflow="fold",
        )
    return made


def add_row(made: Table, cells: Iterable[object]) -> None:
    """Add a row; text is cleaned."""
    made.add_row(*(cell if isinstance(cell, Text) else Text(clean(str(cell))) for cell in cells))


def state_text(state: str, note: str = "") -> Text:
    """Return a state in its colour, and a remark behind it."""
    styles = {
        "completed": "green",
        "completed_with_gaps": "yellow",
        "recording": "cyan",
        "pending": "yellow",
        "failed": "red",
    }
    return Text.assemble((clean(state), styles.get(state, "red")), clean(note))


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1024:
        return f"{count} B"
    amount, units = count / 1024, iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while amount >= 1023.95 and unit != "PiB":
        amount, unit = amount / 1024, next(units)
    return f"{amount:.1f} {unit}"


def many(count: int, what: str) -> str:
    """Return a number of things, e.g. `1 chunk`, `2 chunks`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def seconds(amount: float) -> str:
    """Return a length of time for people: `9.50 s`, `1:02:03.5`."""
    if amount < 60:
        return f"{amount:.2f} s"
    tenths = round(amount * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def moment(at: datetime | None, *, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time in UTC."""
    return f"{at.astimezone(UTC):{form}}" if at is not None else "?"


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago something was, roughly; empty if that is not known."""
    if at is None:
        return ""
    passed = max(0, int((now - at).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if passed >= 2 * length:
            return f"{passed // length} {unit} ago"
    return f"{passed} s ago"
