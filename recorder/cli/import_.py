"""`recorder import`: recordings that somebody else has made, brought under the same roof."""

from __future__ import annotations

import math
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer

from recorder.cli import options, output, runtime
from recorder.cli.progress import Display
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
        with Display.shown(console) as display:
            display.begin("reading")
            made = await import_recording(
                settings, request, on_event=display.take, on_step=partial(_show, display)
            )
        if as_json:
            output.print_json(_plain(made))
        elif made.result is not None:
            print_result(made.result)
        else:
            output.stdout().print(f"there already: {made.url}", soft_wrap=True, markup=False)
        if made.result is None or made.result.durable:
            return runtime.SUCCESS
        output.print_error(console, why(made.result, display.failure))
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


def _show(display: Display, what: str, done: float, total: float) -> None:
    """Show how far a step is."""
    far = {
        "reading": f"{output.size(int(done))} of {output.size(int(total))}",
        "checking": output.many(int(total), "file"),
        "importing": f"{output.seconds(done)} of {output.seconds(total)}",
    }[what]
    display.show(far, done=done, total=total or None, what=what)
