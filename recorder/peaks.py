"""The waveform of a finished recording, `peaks.json`: what players draw without the audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from uploader.store import Store


@dataclass(frozen=True, slots=True)
class Peaks:
    """A recording's `peaks.json` in the store.

    Attributes:
        recording_id: Whose.
        key: Of the object.
        url: Where it is.
        written: Whether this call has written it; if not, it was there and is what it should be.
        source: What it was computed of: `output`, `chunks`; empty if it was there.
        samples_per_pixel: Samples that each pair of a minimum and a maximum stands for.
        channels: As of the recording's mixed output.
        length: Pairs of each channel.
        bytes: Size of the object.
        checksum: CRC-64/NVME of the object, base64.
    """

    recording_id: str
    key: str
    url: str
    written: bool
    source: str
    samples_per_pixel: int
    channels: int
    length: int
    bytes: int
    checksum: str


async def write_peaks(
    store: Store,
    recording: str | Mapping[str, Any],
    *,
    day: date | None = None,
    samples_per_pixel: int | None = None,
    overwrite: bool = False,
) -> Peaks:
    """Write a finished recording's `peaks.json`, computed from its stored audio.

    Where there is one already it is left alone, unless `overwrite`.

    Args:
        store: Open.
        recording: Its id, or its manifest's content.
        day: Of which day, for an id that was used on several; the newest if None.
        samples_per_pixel: What each pair stands for; as the recording was made with, if None.
        overwrite: Replace what is there.

    Raises:
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        BotRecorderError: Its audio is not there any more, or is not what was recorded.
        StoreError: The store refuses, or does not answer.
    """
    raise NotImplementedError
