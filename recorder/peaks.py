"""The waveform of a finished recording, `peaks.json`: what players draw without the audio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np

from recorder.at_rest import AtRest, NoAudio, NotFinished, open_at_rest
from recorder.catalog import NoSuchRecording
from recorder.plan import Plan
from recorder.stored_audio import Heard, find_audio
from recorder.stored_chunks import UnusableChunks
from recorder.tally import described, shape_of
from recorder.waveform import (
    DEFAULT_SAMPLES_PER_PIXEL,
    MAX_SAMPLES_PER_PIXEL,
    MIN_SAMPLES_PER_PIXEL,
    InvalidWaveform,
    Parsed,
    Waveform,
)
from uploader.checksum import crc64nvme, encode
from uploader.errors import BotRecorderError, NoSuchObject
from uploader.store import Store

__all__ = [
    "NoAudio",
    "NoSuchRecording",
    "NotFinished",
    "Peaks",
    "PeaksError",
    "UnusableChunks",
    "write_peaks",
]


class PeaksError(BotRecorderError, ValueError):
    """What is asked for is not allowed, or not what is there."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """A recording's `peaks.json` in the store.

    Attributes:
        recording_id: Whose.
        key: Of the object.
        url: Where it is.
        written: Whether this call has written it; if not, it was there and is what it should be.
        source: What it was computed of: `output`, `chunks`, or the outputs that the mixed one
            follows from; empty if it was there.
        lossy_source: Whether that is Opus: then it shows what Opus has left of the audio.
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
    lossy_source: bool
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

    Where there is one already that is what the manifest says, it is left alone, unless
    `overwrite`. The manifest tells of it afterwards, by compare-and-swap.

    Args:
        store: Open.
        recording: Its id, or its manifest's content.
        day: Of which day, for an id that was used on several; the newest if None.
        samples_per_pixel: What each pair stands for; as the recording was made with, if None.
        overwrite: Replace what is there.

    Raises:
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        PeaksError: There is one of other `samples_per_pixel`; or those are not allowed.
        NoAudio: Its audio is not there any more, or is not what was recorded.
        UnusableChunks: The same, of its chunks.
        StoreError: The store refuses, or does not answer.
    """
    asked = samples_per_pixel
    if asked is not None and not MIN_SAMPLES_PER_PIXEL <= asked <= MAX_SAMPLES_PER_PIXEL:
        rule = f"must be from {MIN_SAMPLES_PER_PIXEL} to {MAX_SAMPLES_PER_PIXEL}"
        raise PeaksError(f"{asked} samples per pixel: {rule}")
    rest = await open_at_rest(store, recording, day)
    if not overwrite and (there := await _there(rest)) is not None:
        if asked not in (None, there.samples_per_pixel):
            raise PeaksError(
                f"{there.url} has {there.samples_per_pixel} samples per pixel, not {asked}",
                hint="--overwrite replaces it",
            )
        return there
    per_pixel = asked or rest.plan.peaks_samples_per_pixel or DEFAULT_SAMPLES_PER_PIXEL
    return await _write(rest, replace(rest.plan, peaks_samples_per_pixel=per_pixel))


async def _there(rest: AtRest) -> Peaks | None:
    """Return what is in the store, if the manifest tells of it and it is that."""
    key, told = rest.plan.peaks_key, rest.document.get("peaks")
    if not isinstance(told, dict) or told.get("key") != key or key not in rest.objects:
        return None
    try:
        body = await rest.context.call("get_peaks", lambda: rest.store.get(key))
        found = Parsed.from_json(body)
    except (NoSuchObject, InvalidWaveform):
        return None
    if encode(crc64nvme(body)) != told.get("checksum"):
        return None
    return Peaks(
        recording_id=rest.plan.recording_id,
        key=key,
        url=rest.store.url(key),
        written=False,
        source="",
        lossy_source=False,
        samples_per_pixel=found.samples_per_pixel,
        channels=found.channels,
        length=found.length,
        bytes=len(body),
        checksum=str(told["checksum"]),
    )


async def _write(rest: AtRest, plan: Plan) -> Peaks:
    spec = plan.peaks_spec
    audio = find_audio(rest, Heard(spec.layout, (), plan.tracks))
    waveform, position = Waveform(shape_of(plan, rest.samples)), 0
    async with aclosing(audio.blocks(0, rest.samples)) as blocks:
        async for block in blocks:
            frames = np.frombuffer(block, "<i2").reshape(-1, spec.channels)
            await asyncio.to_thread(waveform.add, frames, position)
            position += len(frames)
    if position != rest.samples:
        raise NoAudio(f"{rest.samples - position} samples of audio are missing at the end")
    body = await asyncio.to_thread(waveform.to_json)
    checksum = crc64nvme(body)
    attributes = plan.peaks_attributes(spec.channels)
    await rest.context.call(
        "put_peaks",
        lambda: rest.store.put(plan.peaks_key, body, attributes, checksum=checksum),
    )
    told = described(plan, waveform.shape, body)
    await rest.change(lambda document: {"peaks": told})
    return Peaks(
        recording_id=plan.recording_id,
        key=plan.peaks_key,
        url=rest.store.url(plan.peaks_key),
        written=True,
        source=audio.source,
        lossy_source=audio.lossy,
        samples_per_pixel=waveform.shape.samples_per_pixel,
        channels=waveform.shape.channels,
        length=waveform.shape.pixels,
        bytes=len(body),
        checksum=encode(checksum),
    )
