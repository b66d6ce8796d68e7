"""Arguments and options that several commands share, and what they make: settings, a store."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

import typer

from recorder.names import check_recording_id, shown
from recorder.settings import Settings
from recorder.stores import make_store
from uploader.errors import BotRecorderError
from uploader.store import Store

RecordingId = Annotated[str, typer.Argument(metavar="ID", help="The recording's id.")]

Bucket = Annotated[
    str | None,
    typer.Option(
        metavar="LOCATION",
        help="Instead of RECORDER_BUCKET: a bucket's name, s3://bucket/prefix or file:///folder.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, help="Log more; twice for everything."),
]
Day = Annotated[
    str | None, typer.Option(metavar="YYYY-MM-DD", help="Only recordings of this UTC day.")
]
Steps = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="Instead of RECORDER_POSTPROCESS_STEPS."),
]
Concurrency = Annotated[
    int | None,
    typer.Option(metavar="N", help="Instead of RECORDER_POSTPROCESS_CONCURRENCY."),
]


_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class UsageError(BotRecorderError, ValueError):
    """An option's value is not right."""


def make_settings(**options: Any) -> Settings:
    """Return the settings, with the options that were given before the environment.

    Raises:
        SettingsError: Something is missing or wrong.
    """
    return Settings(**{name: value for name, value in options.items() if value is not None})


def open_store(bucket: str | None) -> Store:
    """Return the store that the option or the environment names, not yet opened.

    Raises:
        SettingsError: Something is missing or wrong.
    """
    return make_store(make_settings(bucket=bucket))


def one_recording(recording_id: str, day: str | None) -> tuple[str, date | None]:
    """Return the id and the day of the one recording that a command is about.

    Raises:
        InvalidName: The id is not allowed.
        UsageError: The day is none.
    """
    return check_recording_id(recording_id), parse_day(day)


def pairs(option: str, items: list[str] | None) -> dict[str, str]:
    """Return what `name=value` options hold.

    Raises:
        UsageError: One has no `=`, or a name is given twice.
    """
    found: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {shown(item)}: must be NAME=VALUE")
        if name in found:
            raise UsageError(f"{option} {shown(item)}: {shown(name)} is given twice")
        found[name] = value
    return found


def parse_day(text: str | None) -> date | None:
    """Return the day an option names.

    Raises:
        UsageError: It is none.
    """
    if text is None:
        return None
    try:
        if not _DAY.fullmatch(text):  # the standard library reads other forms, too
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--day {shown(text)}: must be a day as YYYY-MM-DD") from None
