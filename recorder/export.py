"""Exports of a finished recording: another format, a range, one layout; streamed, never held."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, get_args

from recorder import ffmpeg
from recorder.at_rest import HELD_BYTES, AtRest, NoAudio, NotFinished, open_at_rest
from recorder.catalog import NoSuchRecording
from recorder.containers.wav import WAV
from recorder.export_formats import FORMAT_NAMES, FORMATS, Format, FormatName
from recorder.export_targets import (
    FileTarget,
    ObjectTarget,
    Sink,
    StreamTarget,
    Target,
    TargetExists,
    temporary_beside,
)
from recorder.names import shown
from recorder.stored_audio import Heard, LayoutName, find_audio
from recorder.stored_chunks import UnusableChunks
from uploader.budget import ByteBudget
from uploader.checksum import encode
from uploader.errors import BotRecorderError
from uploader.probe import probe
from uploader.store import Store

__all__ = [
    "EXPORTS",
    "ExportError",
    "Exported",
    "NoAudio",
    "NoSuchRecording",
    "NotFinished",
    "StoreTarget",
    "TargetExists",
    "UnusableChunks",
    "export",
]

EXPORTS = "exports/"
"""Below a recording's folder: what was exported into the store."""

MIN_BITRATE, MAX_BITRATE = 6_000, 512_000


class ExportError(BotRecorderError, ValueError):
    """What is asked for is not to be had of this recording, or in this format."""


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """An object that an export is to become, in any open store."""

    store: Store
    key: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Attributes:
        recording_id: Of what.
        url: Where it is: `s3://...`, a path, or `-` for a stream.
        key: Key of the object, if it is in the recording's own folder; else empty.
        format: Of the file.
        layout: `mono`, `stereo`, or the tracks' names with commas.
        start: First sample on the recording's clock.
        samples: How many.
        sample_rate: Hz, of the recording; a lossy codec may have another.
        channels: Of the file.
        bytes: Size of the file.
        checksum: CRC-64/NVME of the file, base64.
        source: What it was read from: `output`, `chunks`, or the outputs it was derived from.
        lossy_source: Whether that is Opus: then not even FLAC or WAV has the samples that were
            recorded.
        held_bytes: Most bytes of audio that were held at a time.
    """

    recording_id: str
    url: str
    key: str
    format: FormatName
    layout: str
    start: int
    samples: int
    sample_rate: int
    channels: int
    bytes: int
    checksum: str
    source: str
    lossy_source: bool
    held_bytes: int

    @property
    def duration_seconds(self) -> float:
        """Length of its audio."""
        return round(self.samples / self.sample_rate, 6)


async def export(
    store: Store,
    recording_id: str,
    *,
    format: FormatName = "mp3",
    layout: LayoutName = "stereo",
    tracks: Sequence[str] = (),
    start: int = 0,
    end: int | None = None,
    output: Path | BinaryIO | StoreTarget | None = None,
    bitrate: int | None = None,
    day: date | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a finished recording, or a range of it.

    Args:
        store: Where the recording is, open.
        recording_id: Which.
        format: Of the file.
        layout: What is heard on which channel.
        tracks: For the layout `track`: one channel each, in this order.
        start: First sample.
        end: Sample behind the last; the recording's end if None.
        output: A file, a binary stream, an object; `exports/...` in the recording's folder if
            None. What is there is listed in the manifest.
        bitrate: Of lossy formats, bits per second; by the number of channels if None.
        day: Of which day, for an id that was used on several; the newest if None.
        overwrite: Replace what is there.

    Raises:
        InvalidName: The id is none.
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        ExportError: The range or layout is none of the recording's, or not for this format.
        TargetExists: The target is there already.
        NoAudio: The store does not have the audio any more, or not as it was recorded.
        UnusableChunks: The same, of its chunks.
        FfmpegError: ffmpeg is not there, or failed.
        StoreError: The store refuses, or does not answer.
    """
    form = _format(format, bitrate)
    rest = await open_at_rest(store, recording_id, day, writes=output is None)
    heard = _heard(rest, layout, tracks, form)
    end = _checked_end(rest, start, end)
    if end - start < form.min_samples:
        raise ExportError(f"{form.name} holds no fewer than {form.min_samples} samples")
    if form.codec:
        ffmpeg.find_ffmpeg()  # before anything is begun
    audio = find_audio(rest, heard)
    name = _file_name(rest, heard, start, end, form)
    target = await _target(rest, output, name, form, heard, overwrite=overwrite)
    await target.check()
    job = _Job(rest, form, heard, start, end, bitrate)
    blocks = job.whole(audio.blocks(start, end))
    async with aclosing(blocks):
        sink = await job.run(blocks, target)
    key = target.key if isinstance(target, ObjectTarget) and _is_own(rest, output) else ""
    done = Exported(
        recording_id=rest.plan.recording_id,
        url=target.url,
        key=key,
        format=form.name,
        layout=heard.name,
        start=start,
        samples=end - start,
        sample_rate=rest.plan.sample_rate,
        channels=heard.channels,
        bytes=sink.size,
        checksum=encode(sink.checksum),
        source=audio.source,
        lossy_source=audio.lossy,
        held_bytes=rest.context.budget.peak + sink.peak,
    )
    if key:
        await rest.change(lambda document: {"exports": _listed(document, done)})
    return done


class _Job:
    """One export on its way."""

    def __init__(
        self, rest: AtRest, form: Format, heard: Heard, start: int, end: int, bitrate: int | None
    ) -> None:
        self._rest = rest
        self._form = form
        self._heard = heard
        self._bytes = 2 * heard.channels * (end - start)
        self._samples = end - start
        self._bitrate = bitrate

    async def whole(
        self, blocks: AsyncGenerator[memoryview, None]
    ) -> AsyncGenerator[memoryview, None]:
        """Yield the blocks; their end is an error if it comes too soon."""
        left = self._bytes
        async with aclosing(blocks):
            async for block in blocks:
                left -= len(block)
                yield block
        if left:
            raise NoAudio(f"{left} bytes of audio are missing at the end")

    async def run(self, blocks: AsyncGenerator[memoryview, None], target: Target) -> Sink:
        """Encode the blocks into the target."""
        if not self._form.codec:
            return await self._wav(blocks, target)
        if self._form.seekable:
            return await self._by_file(blocks, target)
        async with target.open(None) as sink:
            await ffmpeg.run(self._arguments("pipe:1"), blocks, sink.write)
        return sink

    async def _wav(self, blocks: AsyncGenerator[memoryview, None], target: Target) -> Sink:
        rate, channels = self._rest.plan.sample_rate, self._heard.channels
        async with target.open(WAV.header_bytes + self._bytes) as sink:
            await sink.write(WAV.header(self._samples, rate, channels))
            async for block in blocks:
                await sink.write(block)
        return sink

    async def _by_file(self, blocks: AsyncGenerator[memoryview, None], target: Target) -> Sink:
        async with _scratch(target) as path:
            await ffmpeg.run(self._arguments(path), blocks)
            if isinstance(target, FileTarget):
                return await target.take(path)
            size = path.stat().st_size
            async with target.open(size) as sink:
                with path.open("rb") as file:
                    while block := await asyncio.to_thread(file.read, ffmpeg.PIPE_BYTES * 4):
                        await sink.write(block)
        return sink

    def _arguments(self, output: str | Path) -> list[str]:
        plan, channels = self._rest.plan, self._heard.channels
        return [
            *("-f", "s16le", "-ar", str(plan.sample_rate), "-ac", str(channels), "-i", "pipe:0"),
            *self._form.encoder(channels, self._bitrate),
            *("-metadata", f"title={plan.recording_id}"),
            *("-metadata", f"date={plan.day}"),
            *("-y", str(output)),
        ]


@asynccontextmanager
async def _scratch(target: Target) -> AsyncIterator[Path]:
    """Make room on disk for a file that is written to in more than one place."""
    if isinstance(target, FileTarget):
        path = temporary_beside(target.path)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="recorder-export-") as folder:
        yield Path(folder) / "export"


# -- what is asked for -------------------------------------------------------------------------


def _format(name: str, bitrate: int | None) -> Format:
    if name not in FORMAT_NAMES:
        raise ExportError(f"format {shown(name)}: must be one of {', '.join(FORMAT_NAMES)}")
    form = FORMATS[name]
    if bitrate is not None and not form.lossy:
        raise ExportError(f"{name} has no bit rate to choose: it keeps every sample")
    if bitrate is not None and not MIN_BITRATE <= bitrate <= MAX_BITRATE:
        raise ExportError(f"bit rate {bitrate}: must be from {MIN_BITRATE} to {MAX_BITRATE}")
    return form


def _heard(rest: AtRest, layout: str, tracks: Sequence[str], form: Format) -> Heard:
    known = ", ".join(rest.tracks) or "none"
    if layout not in get_args(LayoutName):
        raise ExportError(f"layout {shown(layout)}: must be one of mono, stereo, track")
    if layout != "track":
        if tracks:
            raise ExportError(f"layout {layout} has all tracks: name none")
        return Heard("mono" if layout == "mono" else "stereo", (), rest.plan.tracks)
    if not tracks:
        raise ExportError(f"which track? The recording has {known}")
    for name in tracks:
        if name not in rest.tracks:
            raise ExportError(f"no track is called {shown(name)}: the recording has {known}")
        if list(tracks).count(name) > 1:
            raise ExportError(f"track {shown(name)} is named twice")
    if len(tracks) > form.max_channels:
        raise ExportError(
            f"{len(tracks)} tracks, and {form.name} has up to {form.max_channels} channels",
            hint=", ".join(f"{one.name}: {one.max_channels}" for one in FORMATS.values()),
        )
    return Heard("track", tuple(tracks))


def _checked_end(rest: AtRest, start: int, end: int | None) -> int:
    samples, rate = rest.samples, rest.plan.sample_rate
    end = samples if end is None else end
    if not 0 <= start < end <= samples:
        asked = f"{start / rate:.3f} s to {end / rate:.3f} s (samples {start} to {end})"
        raise ExportError(
            f"range {asked} is not within the recording, which has {samples / rate:.3f} s "
            f"({samples} samples)"
        )
    return end


def _file_name(rest: AtRest, heard: Heard, start: int, end: int, form: Format) -> str:
    stem = "+".join(heard.tracks) if heard.layout == "track" else heard.layout
    whole = (start, end) == (0, rest.samples)
    return f"{stem}{'' if whole else f'-{start}-{end}'}.{form.name}"


async def _target(
    rest: AtRest,
    output: Path | BinaryIO | StoreTarget | None,
    name: str,
    form: Format,
    heard: Heard,
    *,
    overwrite: bool,
) -> Target:
    if isinstance(output, Path):
        return FileTarget(output, overwrite=overwrite)
    if output is not None and not isinstance(output, StoreTarget):
        return StreamTarget(output)
    folder = rest.plan.folder
    key = f"{folder}{EXPORTS}{name}" if output is None else output.key
    # A budget of its own: what is read must not keep what is sent from getting through.
    context = replace(rest.context, budget=ByteBudget(HELD_BYTES))
    if output is not None:
        if _is_own(rest, output) and not key.startswith(folder + EXPORTS):
            raise ExportError(
                f"{rest.store.url(key)} is a place of the recording's own objects",
                hint=f"in its folder, exports go below {EXPORTS}",
            )
        able = await probe(output.store, context.retrier, secrets.token_hex(8))
        context = replace(context, store=output.store, capabilities=able)
    metadata = {"recorder-layout": heard.name, "recorder-channels": str(heard.channels)}
    attributes = rest.plan.export_attributes(name, form.media_type, metadata)
    return ObjectTarget(context, key, attributes, overwrite=overwrite)


def _is_own(rest: AtRest, output: object) -> bool:
    """Return whether a target lies in the recording's own folder."""
    if output is None:
        return True
    if not isinstance(output, StoreTarget):
        return False
    return output.store.url(output.key).startswith(rest.store.url(rest.plan.folder))


def _listed(document: Mapping[str, Any], done: Exported) -> list[Any]:
    """Return a manifest's list of exports with one more, or in place of one of the same key."""
    before = document.get("exports")
    others = [
        one
        for one in (before if isinstance(before, list) else [])
        if isinstance(one, dict) and one.get("key") != done.key
    ]
    told = {
        "key": done.key,
        "format": done.format,
        "layout": done.layout,
        "channels": done.channels,
        "first_sample": done.start,
        "samples": done.samples,
        "duration_seconds": done.duration_seconds,
        "bytes": done.bytes,
        "checksum": done.checksum,
        "lossy_source": done.lossy_source,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return [*others, told]
