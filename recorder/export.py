"""Exports of a finished recording: another format, a range, one layout; streamed, never held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import BinaryIO, Literal

from uploader.store import Store

Format = Literal["mp3", "m4a", "opus", "flac", "wav"]
LayoutName = Literal["mono", "stereo", "track"]


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
        url: Where it is: `s3://...`, `file:///...`, or `-` for a stream.
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
        held_bytes: Most bytes of audio that were held at a time.
    """

    recording_id: str
    url: str
    key: str
    format: Format
    layout: str
    start: int
    samples: int
    sample_rate: int
    channels: int
    bytes: int
    checksum: str
    source: str
    held_bytes: int


async def export(
    store: Store,
    recording_id: str,
    *,
    format: Format = "mp3",
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
            None.
        bitrate: Of lossy formats, bits per second; by the number of channels if None.
        day: Of which day, for an id that was used on several; the newest if None.
        overwrite: Replace what is there.

    Raises:
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        ExportError: The range or layout is none of the recording's, ffmpeg is not there or
            failed, or the target exists.
        BotRecorderError: Its audio is not there any more, or is not what was recorded.
        StoreError: The store refuses, or does not answer.
    """
    raise NotImplementedError
