"""`recorder export`: a finished recording, or a range of it, in another format."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, BinaryIO, get_args
from urllib.parse import unquote

import typer

from recorder.at_rest import open_at_rest
from recorder.cli import options, output, runtime
from recorder.export import Exported, ExportError, StoreTarget
from recorder.export import export as export_recording
from recorder.export_formats import FORMAT_NAMES, FormatName
from recorder.names import shown
from recorder.settings import Settings
from recorder.stored_audio import LayoutName
from recorder.stores import make_store
from uploader.store import Store

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", re.ASCII)
_SAMPLE = re.compile(r"@(\d+)", re.ASCII)
_BITRATE = re.compile(r"(\d+)(k?)", re.ASCII)
_TIME_RULE = "must be seconds (12.5), minutes and seconds (1:02.5) or a sample's number (@48000)"


def export(
    recording_id: options.RecordingId,
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help=f"One of {', '.join(FORMAT_NAMES)}.")
    ] = "mp3",
    begin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="Where to begin: 12.5, 1:02.5, or a sample: @48000."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Where to end, likewise.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="mono, stereo, or track with one or more --track."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A track, as a channel of its own; repeatable."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="FILE|s3://...|-",
            help="A file, an object or standard output; exports/ beside audio.wav by default.",
        ),
    ] = None,
    bitrate: Annotated[
        str | None, typer.Option(metavar="N", help="Of a lossy format, e.g. 64k.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    bucket: options.Bucket = None,
    day: options.Day = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Export a finished recording, or a range of it, as a file or an object."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        name, chosen = options.one_recording(recording_id, day)
        form, heard = _format(format), _layout(layout, track or [])
        span = _Span(_time("--from", begin), _time("--to", until))
        rate = _bitrate(bitrate)
        settings = options.make_settings(bucket=bucket)
        async with make_store(settings) as store, _target(target, settings, store) as output_to:
            start, end = 0, None
            if span.given:
                rest = await open_at_rest(store, name, chosen, writes=False)
                start, end = span.samples(rest.plan.sample_rate)
            done = await export_recording(
                store,
                name,
                format=form,
                layout=heard,
                tracks=track or [],
                start=start,
                end=end,
                output=output_to,
                bitrate=rate,
                day=chosen,
                overwrite=overwrite,
            )
        to = output.stderr() if target == "-" else output.stdout()
        if as_json and target != "-":
            output.print_json({**asdict(done), "duration_seconds": done.duration_seconds})
        else:
            to.print(output.clean(_line(done)), soft_wrap=True)
        return runtime.SUCCESS

    runtime.run(work, console, verbose)


def _line(done: Exported) -> str:
    channels = output.many(done.channels, "channel")
    length = output.seconds(done.duration_seconds)
    line = f"{done.url}  {length}  {done.layout}, {channels}  {output.size(done.bytes)}"
    return f"{line}  from Opus, which is lossy" if done.lossy_source else line


def _format(name: str) -> FormatName:
    for known in FORMAT_NAMES:
        if name == known:
            return known
    raise options.UsageError(f"--format {shown(name)}: must be one of {', '.join(FORMAT_NAMES)}")


def _layout(name: str | None, tracks: list[str]) -> LayoutName:
    if name is None:
        return "track" if tracks else "stereo"
    if name not in get_args(LayoutName):
        raise options.UsageError(f"--layout {shown(name)}: must be mono, stereo or track")
    if (name == "track") != bool(tracks):
        raise options.UsageError(f"--layout {name}: --track NAME goes with the layout track")
    return "mono" if name == "mono" else "stereo" if name == "stereo" else "track"


@dataclass(frozen=True, slots=True)
class _Span:
    """A range as it was written: seconds, or samples; None for an end of the recording's."""

    begin: Fraction | int | None
    until: Fraction | int | None

    @property
    def given(self) -> bool:
        return self.begin is not None or self.until is not None

    def samples(self, rate: int) -> tuple[int, int | None]:
        """Return the range in samples; of a time between two samples, the nearer one."""
        begin = _samples(self.begin, rate)
        return 0 if begin is None else begin, _samples(self.until, rate)


def _samples(at: Fraction | int | None, rate: int) -> int | None:
    return round(at * rate) if isinstance(at, Fraction) else at


def _time(option: str, text: str | None) -> Fraction | int | None:
    if text is None:
        return None
    if match := _SAMPLE.fullmatch(text):
        return int(match[1])
    if match := _TIME.fullmatch(text):
        hours, minutes, seconds = (Fraction(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    raise options.UsageError(f"{option} {shown(text)}: {_TIME_RULE}")


def _bitrate(text: str | None) -> int | None:
    if text is None:
        return None
    if match := _BITRATE.fullmatch(text):
        return int(match[1]) * (1000 if match[2] else 1)
    raise options.UsageError(f"--bitrate {shown(text)}: must be bits per second, as 64000 or 64k")


@asynccontextmanager
async def _target(
    text: str | None, settings: Settings, store: Store
) -> AsyncIterator[Path | BinaryIO | StoreTarget | None]:
    """Open what an option names as the place for the export."""
    if text is None:
        yield None
    elif text == "-":
        if sys.stdout.isatty():
            raise options.UsageError("--output -: standard output is a terminal")
        yield sys.stdout.buffer
    elif text.startswith("file://"):
        yield Path(unquote(text.removeprefix("file://")))
    elif text.startswith("s3://"):
        root = store.url("")
        if text.startswith(root):  # where the recordings are
            yield StoreTarget(store, _key(text, text.removeprefix(root)))
            return
        folder, _, name = text.rpartition("/")
        if folder.count("/") < 2:
            raise options.UsageError(f"--output {shown(text)}: must be s3://bucket/key")
        async with make_store(settings.replace(bucket=folder, prefix="")) as other:
            yield StoreTarget(other, _key(text, name))
    elif "://" in text:
        raise options.UsageError(f"--output {shown(text)}: must be a file, s3://bucket/key or -")
    else:
        yield Path(text)


def _key(text: str, key: str) -> str:
    if not key or key.endswith("/"):
        raise options.UsageError(f"--output {shown(text)}: names a folder, not an object")
    return key


__all__ = ["ExportError", "export"]
