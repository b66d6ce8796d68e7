"""`recorder import`: recordings that somebody else has made, brought under the same roof."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from recorder import events
from recorder.cli import options, output, runtime
from recorder.cli.record import print_result, why
from recorder.imports import Imported, ImportRequest, import_recording
from recorder.imports.request import PROVIDERS, Provider
from recorder.names import check_metadata, check_tags, shown


def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, s3://bucket/key, or s3://bucket/prefix* for all that begins so; "
            "of one recording.",
        ),
    ],
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Who made it: {', '.join(PROVIDERS)}; told by names if not set.",
        ),
    ] = None,
    tracks: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Track names of all channels, in order; with commas."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="PARTICIPANT=TRACK", help="A participant's track; repeatable."),
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Where each file begins, in seconds; with commas."),
    ] = None,
    started_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it began, as 2026-11-23T15:44:02Z."),
    ] = None,
    recording_id: Annotated[
        str | None, typer.Option("--id", help="Its id; made of the files' content if not set.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Of mono, stereo, tracks, turns; with commas."),
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(metavar="HZ", help="Of the recording; the files' own if not set.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="User metadata of all objects; repeatable."),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="Tag of all objects; repeatable."),
    ] = None,
    bucket: options.Bucket = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Import a recording of Daily, Twilio or LiveKit, or any sound file, from a file or a bucket.

    It becomes a recording like any: chunks, outputs, manifest, verified. The same files are the
    same recording: a second import says that it is there.
    """
    console = output.stderr()

    async def work(interrupts: runtime.Interrupts) -> int:
        settings = options.make_settings(bucket=bucket, outputs=outputs)
        request = ImportRequest(
            sources=tuple(sources),
            provider=_provider(provider),
            tracks=tuple(_items(tracks)),
            names=options.pairs("--name", name),
            offsets=tuple(_offset(one) for one in _items(offsets)),
            started_at=_time(started_at),
            recording_id=recording_id,
            outputs=settings.outputs if outputs else None,
            sample_rate=sample_rate,
            metadata=check_metadata(options.pairs("--metadata", metadata)),
            tags=check_tags(options.pairs("--tag", tags)),
        )
        with _Steps.shown(console) as steps:
            made = await import_recording(
                settings, request, on_event=steps.take, on_step=steps.step
            )
        if as_json:
            output.print_json(_plain(made))
        elif made.result is not None:
            print_result(made.result)
        else:
            output.stdout().print(f"there already: {made.url}", soft_wrap=True, markup=False)
        if made.result is None or made.result.durable:
            return runtime.SUCCESS
        output.print_error(console, why(made.result, steps.failure))
        return runtime.FAILURE

    runtime.run(work, console, verbose)


def _plain(made: Imported) -> dict[str, Any]:
    return {
        "recording_id": made.recording_id,
        "url": made.url,
        "created": made.created,
        "imported": made.imported,
        "result": None if made.result is None else made.result.to_dict(),
    }


def _provider(text: str | None) -> Provider | None:
    if text is not None and text not in PROVIDERS:
        raise options.UsageError(f"--provider {shown(text)}: must be one of {', '.join(PROVIDERS)}")
    return next((one for one in PROVIDERS if one == text), None)


def _items(text: str | None) -> list[str]:
    return [one.strip() for one in text.split(",")] if text else []


def _offset(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise options.UsageError(f"--offsets {shown(text)}: must be seconds, 0 or more")
    return seconds


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        if found.utcoffset() is None:
            raise ValueError
    except ValueError:
        raise options.UsageError(
            f"--started-at {shown(text)}: must be a time with a timezone, as 2026-11-23T15:44:02Z"
        ) from None
    return found


class _Steps:
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
    def shown(cls, console: Console) -> Iterator[_Steps]:
        """Show it inside the block."""
        steps = cls(console)
        if not console.is_terminal:
            yield steps
            return
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}")
        with Progress(*columns, console=console, transient=True) as progress:
            steps._progress = progress
            steps._task = progress.add_task("reading", total=None, far="")
            yield steps

    def step(self, what: str, done: float, total: float) -> None:
        """Show how far it is."""
        if self._progress is not None:
            far = {
                "reading": f"{output.size(int(done))} of {output.size(int(total))}",
                "checking": output.many(int(total), "file"),
                "importing": f"{output.seconds(done)} of {output.seconds(total)}",
            }[what]
            self._progress.update(
                self._task, description=what, completed=done, total=total or None, far=far
            )

    def take(self, event: events.Event) -> None:
        """Tell, once each, of what is not getting through."""
        self.failure = str(event.error) if isinstance(event, events.UploadFailed) else ""
        if self.failure and self.failure not in self._told:
            self._told.add(self.failure)
            output.print_note(self._console, f"not getting through: {self.failure}")
