"""What is recorded and where it goes: fixed when a recording starts, kept in its spool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Self

from recorder.chunks import CHUNKS, OPEN_CHUNK, Chunk
from recorder.containers import Codec, Container, format_names, output_format
from recorder.containers.opus import DEFAULT_BITRATE
from recorder.names import check_metadata, check_recording_id, check_tags, check_track
from recorder.outputs import OutputSpec, mixed_layout
from recorder.waveform import MAX_SAMPLES_PER_PIXEL, MIN_SAMPLES_PER_PIXEL
from uploader.completion import RECORDING_ID
from uploader.errors import BotRecorderError
from uploader.manifest import MANIFEST
from uploader.store import MIN_PART_BYTES, ObjectAttributes

PEAKS = "peaks.json"
"""Below a recording's folder: its waveform."""

FIRST_SAMPLE = "recorder-first-sample"
TRACKS = "recorder-tracks"
CHANNELS = "recorder-channels"
"""How many tracks a chunk has, or channels an output."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One recording's fixed properties.

    Attributes:
        recording_id: Validated.
        sample_rate: Hz.
        chunk_samples: Length of every chunk but the last.
        outputs: Names as in the settings: `stereo`, `mono`, `tracks`, `turns`.
        format: Of the outputs.
        part_bytes: Part size of the outputs' uploads.
        pre_roll_seconds: Audio before a turn's start that its clip begins with.
        keep_chunks: Whether chunk objects stay after completion.
        storage_class: Of the outputs; chunks and manifest, which live shortly, have the bucket's.
        metadata: The user's, validated.
        tags: The user's, validated.
        day: UTC day in its keys, `YYYY-MM-DD`.
        started_at: When the recording's sample 0 was, UTC.
        started_monotonic: The same on the recording process's monotonic clock, seconds.
        location: Where it goes, as a URL, for people and for recovery.
        hold_back_seconds: What its timeline decides by; see `recorder.timeline`.
        stall_seconds: The same.
        tracks: The tracks known from the beginning.
        token: Random, and the same in the manifest and in the spool: says that they are of one
            recording. It is the owner's token for whoever holds the spool.
        continuation: Name of the folder, below the recording's own, of late audio that was
            attached to a recording which another host had finished; empty for the recording.
        first_sample: Where, on the recording's clock, its audio begins: 0 but for continuations.
        opus_bitrate: Bits per second of each channel, where the format is `opus`.
        peaks_samples_per_pixel: Of the waveform that is made of it; 0 for none.
        imported: Where it comes from, if it was not recorded here: plain JSON types, for the
            manifest; empty if it was.
        vcon: Whether a vCon is written beside it when it is complete.
        web_url: What the store's bucket and prefix are called on the web, for the vCon's links;
            empty for the store's own address.
    """

    recording_id: str
    sample_rate: int
    chunk_samples: int
    outputs: tuple[str, ...]
    format: str
    part_bytes: int
    pre_roll_seconds: float
    keep_chunks: bool
    storage_class: str | None
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    location: str
    day: str
    started_at: datetime
    hold_back_seconds: float
    tracks: tuple[str, ...]
    token: str
    stall_seconds: float = 0.0
    started_monotonic: float = 0.0
    continuation: str = ""
    first_sample: int = 0
    opus_bitrate: int = DEFAULT_BITRATE
    peaks_samples_per_pixel: int = 0
    imported: Mapping[str, Any] = field(default_factory=dict)
    vcon: bool = False
    web_url: str = ""

    @property
    def folder(self) -> str:
        """Key prefix of everything of this recording, ending in `/`."""
        below = f"{self.continuation}/" if self.continuation else ""
        return f"dt={self.day}/{self.recording_id}/{below}"

    @property
    def manifest_key(self) -> str:
        """Key of the manifest."""
        return self.folder + MANIFEST

    @property
    def output_format(self) -> Container | Codec:
        """Format of the outputs."""
        return output_format(self.format)

    def chunk_key(self, chunk: Chunk) -> str:
        """Return the key of a chunk's object."""
        return f"{self.folder}{CHUNKS}{chunk.name}"

    @property
    def open_chunk_key(self) -> str:
        """Key of the open chunk's object."""
        return f"{self.folder}{CHUNKS}{OPEN_CHUNK}"

    @property
    def peaks_key(self) -> str:
        """Key of the waveform."""
        return self.folder + PEAKS

    @property
    def peaks_spec(self) -> OutputSpec:
        """What the waveform shows: the mixed output that has the name `audio`, or would have it."""
        layout = mixed_layout(self.outputs)
        return OutputSpec(layout, "", layout, "", self.first_sample, self.tracks)

    def seconds(self, samples: int) -> float:
        """Return a length in seconds, to the microsecond."""
        return round(samples / self.sample_rate, 6)

    def chunk_attributes(self, chunk: Chunk) -> ObjectAttributes:
        """Return what a person sees beside a chunk object."""
        return self._attributes(
            f"{self.recording_id}-{chunk.number:06d}.wav",
            "audio/wav",
            {
                "recorder-sequence": str(chunk.number),
                FIRST_SAMPLE: str(chunk.first_sample),
                "recorder-samples": str(chunk.samples),
                CHANNELS: str(len(chunk.tracks)),
                **_track_names(chunk.tracks),
                "recorder-duration-seconds": f"{self.seconds(chunk.samples):g}",
            },
        )

    def output_attributes(self, spec: OutputSpec) -> ObjectAttributes:
        """Return what a person sees beside an output object."""
        file = spec.file.replace("/", "-")
        return self._attributes(
            f"{self.recording_id}-{file}",
            self.output_format.media_type,
            {
                "recorder-layout": spec.track or spec.layout,
                CHANNELS: str(spec.channels),
                FIRST_SAMPLE: str(spec.first_sample),
            },
            self.storage_class,
        )

    def peaks_attributes(self, channels: int) -> ObjectAttributes:
        """Return what a person sees beside the waveform."""
        return self._attributes(
            f"{self.recording_id}-{PEAKS}",
            "application/json",
            {CHANNELS: str(channels), FIRST_SAMPLE: str(self.first_sample)},
            self.storage_class,
        )

    def export_attributes(
        self, file: str, media_type: str, metadata: Mapping[str, str]
    ) -> ObjectAttributes:
        """Return what a person sees beside an exported file."""
        return self._attributes(
            f"{self.recording_id}-{file}", media_type, metadata, self.storage_class
        )

    def _attributes(
        self,
        file_name: str,
        media_type: str,
        metadata: Mapping[str, str],
        storage_class: str | None = None,
    ) -> ObjectAttributes:
        return ObjectAttributes(
            content_type=media_type,
            content_disposition=f'inline; filename="{file_name}"',
            metadata={
                **self.metadata,
                RECORDING_ID: self.recording_id,
                "recorder-sample-rate": str(self.sample_rate),
                "recorder-chunk-seconds": f"{self.seconds(self.chunk_samples):g}",
                "recorder-started-at": self.started_at.isoformat(timespec="microseconds"),
                "recorder-started-monotonic": f"{self.started_monotonic:.6f}",
                **metadata,
            },
            tags=self.tags,
            storage_class=storage_class,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types: part of the manifest, and kept in the spool."""
        return {
            "recording_id": self.recording_id,
            "day": self.day,
            "started_at": self.started_at.isoformat(timespec="microseconds"),
            "started_monotonic": self.started_monotonic,
            "sample_rate": self.sample_rate,
            "chunk_samples": self.chunk_samples,
            "chunk_seconds": self.seconds(self.chunk_samples),
            "outputs_asked": list(self.outputs),
            "format": self.format,
            "opus_bitrate": self.opus_bitrate,
            "part_bytes": self.part_bytes,
            "pre_roll_seconds": self.pre_roll_seconds,
            "keep_chunks": self.keep_chunks,
            "storage_class": self.storage_class,
            "metadata": dict(self.metadata),
            "tags": dict(self.tags),
            "location": self.location,
            "hold_back_seconds": self.hold_back_seconds,
            "stall_seconds": self.stall_seconds,
            "tracks_declared": list(self.tracks),
            "token": self.token,
            "continuation": self.continuation,
            "first_sample": self.first_sample,
            "peaks_samples_per_pixel": self.peaks_samples_per_pixel,
            **({"imported": dict(self.imported)} if self.imported else {}),
            **({"vcon": True, "web_url": self.web_url} if self.vcon else {}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the plan that `to_dict` wrote, whoever wrote it: every value is checked.

        Raises:
            BotRecorderError: It is not one.
        """
        try:
            return cls(
                recording_id=check_recording_id(_text(document, "recording_id")),
                sample_rate=_whole(document, "sample_rate", 1),
                chunk_samples=_whole(document, "chunk_samples", 1),
                outputs=tuple(_known(name, _OUTPUTS) for name in document["outputs_asked"]),
                format=_known(document["format"], format_names()),
                part_bytes=_whole(document, "part_bytes", MIN_PART_BYTES),
                pre_roll_seconds=max(0.0, float(document["pre_roll_seconds"])),
                keep_chunks=document["keep_chunks"] is True,
                storage_class=_optional(document["storage_class"]),
                metadata=check_metadata(document["metadata"]),
                tags=check_tags(document["tags"]),
                day=date.fromisoformat(_text(document, "day")).isoformat(),
                started_at=_time(document, "started_at"),
                location=_text(document, "location"),
                hold_back_seconds=float(document["hold_back_seconds"]),
                stall_seconds=float(document.get("stall_seconds", 0.0)),  # before there was one
                tracks=tuple(check_track(name) for name in document["tracks_declared"]),
                token=_text(document, "token"),
                started_monotonic=float(document["started_monotonic"]),
                continuation=_folder_name(_text(document, "continuation")),
                first_sample=_whole(document, "first_sample", 0),
                # Before there was one, outputs were WAV.
                opus_bitrate=_whole(
                    {"opus_bitrate": DEFAULT_BITRATE, **document}, "opus_bitrate", 1
                ),
                peaks_samples_per_pixel=_peaks(document),
                imported=dict(document.get("imported") or {}),
                vcon=document.get("vcon") is True,
                web_url=_web_url(document.get("web_url", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BotRecorderError(f"not a recording's plan: {error}") from error


MAX_NAMES_BYTES = 120
"""Track names are told beside a chunk while they fit into `names.OWN_METADATA_BYTES`."""

_OUTPUTS = ("stereo", "mono", "tracks", "turns")
_CONTINUATION = re.compile(r"(continuation-[a-z0-9]{1,64}-\d{1,6})?")


def _track_names(tracks: Sequence[str]) -> dict[str, str]:
    names = ",".join(tracks)
    return {TRACKS: names} if len(names) <= MAX_NAMES_BYTES else {}


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _whole(document: Mapping[str, Any], name: str, least: int) -> int:
    value = document[name]
    if type(value) is not int or value < least:
        raise ValueError(f"{name} is no whole number from {least}")
    return value


def _peaks(document: Mapping[str, Any]) -> int:
    if "peaks_samples_per_pixel" not in document:  # before there was one
        return 0
    value = _whole(document, "peaks_samples_per_pixel", 0)
    if value and not MIN_SAMPLES_PER_PIXEL <= value <= MAX_SAMPLES_PER_PIXEL:
        raise ValueError("peaks_samples_per_pixel is out of range")
    return value


def _web_url(value: object) -> str:
    """Return an address that links may begin with: a manifest from outside chooses no scheme."""
    if not isinstance(value, str) or (value and not value.startswith("https://")):
        raise ValueError("web_url is no https address")
    return value


def _known(value: object, names: Sequence[str]) -> str:
    if value not in names or not isinstance(value, str):
        raise ValueError(f"{value!r} is none of {', '.join(names)}")
    return value


def _optional(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("storage_class is no text")
    return value


def _time(document: Mapping[str, Any], name: str) -> datetime:
    time = datetime.fromisoformat(_text(document, name))
    if time.utcoffset() is None:
        raise ValueError(f"{name} has no timezone")
    return time


def _folder_name(name: str) -> str:
    if not _CONTINUATION.fullmatch(name):
        raise ValueError(f"continuation {name!r} is no folder's name")
    return name
