"""What is recorded and where it goes: fixed when a recording starts, kept in its spool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recorder.containers import Container, container
from recorder.outputs import OutputSpec
from recorder.sealer import Chunk
from uploader.manifest import MANIFEST
from uploader.store import ObjectAttributes
from uploader.upload import RECORDING_ID


@dataclass(frozen=True, slots=True)
class Plan:
    """One recording's fixed properties.

    Attributes:
        recording_id: Validated.
        sample_rate: Hz.
        chunk_samples: Length of every chunk but the last.
        outputs: Names as in the settings: `stereo`, `mono`, `tracks`, `turns`.
        format: Container of the outputs.
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
    started_monotonic: float = 0.0

    @property
    def folder(self) -> str:
        """Key prefix of everything of this recording, ending in `/`."""
        return f"dt={self.day}/{self.recording_id}/"

    @property
    def manifest_key(self) -> str:
        """Key of the manifest."""
        return self.folder + MANIFEST

    @property
    def container(self) -> Container:
        """Container of the outputs."""
        return container(self.format)

    def chunk_key(self, number: int) -> str:
        """Return the key of chunk `number`."""
        return f"{self.folder}chunks/{number:06d}.wav"

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
                "recorder-first-sample": str(chunk.first_sample),
                "recorder-samples": str(chunk.samples),
                "recorder-channels": str(len(chunk.tracks)),
                "recorder-duration-seconds": f"{self.seconds(chunk.samples):g}",
            },
        )

    def output_attributes(self, spec: OutputSpec) -> ObjectAttributes:
        """Return what a person sees beside an output object."""
        file = spec.file.replace("/", "-")
        return self._attributes(
            f"{self.recording_id}-{file}",
            self.container.media_type,
            {
                "recorder-layout": spec.track or spec.layout,
                "recorder-channels": str(spec.channels),
                "recorder-first-sample": str(spec.first_sample),
            },
            self.storage_class,
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
            "part_bytes": self.part_bytes,
            "pre_roll_seconds": self.pre_roll_seconds,
            "keep_chunks": self.keep_chunks,
            "storage_class": self.storage_class,
            "metadata": dict(self.metadata),
            "tags": dict(self.tags),
            "location": self.location,
        }
