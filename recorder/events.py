"""What a recording reports while it goes on; handed to `on_event`, on the starter's event loop."""

from __future__ import annotations

from dataclasses import dataclass

from recorder.chunks import Chunk
from recorder.result import RecordingResult


@dataclass(frozen=True, slots=True)
class ChunkUploaded:
    """A sealed chunk is durable in the store."""

    chunk: Chunk
    key: str
    url: str


@dataclass(frozen=True, slots=True)
class PartUploaded:
    """A part of an output's multipart upload was acknowledged."""

    output: str
    key: str
    number: int
    bytes: int


@dataclass(frozen=True, slots=True)
class OutputCompleted:
    """An output object is in the store, verified."""

    output: str
    key: str
    url: str
    bytes: int


@dataclass(frozen=True, slots=True)
class UploadFailed:
    """An upload is not getting through: refused, or failing repeatedly. Capture goes on.

    Attributes:
        op: The store operation.
        error: What went wrong.
        retrying: Whether it is being tried again right now; if not, with the next chunk.
    """

    op: str
    error: Exception
    retrying: bool


@dataclass(frozen=True, slots=True)
class CaptureFailed:
    """Frames cannot be accepted (spool full); they will be listed as a gap."""

    track: str
    error: Exception


@dataclass(frozen=True, slots=True)
class ChunkDropped:
    """A sealed chunk was given up to make room for newer audio; it is listed as a gap.

    Only by RECORDER_SPOOL_FULL=drop_oldest, and only what is not in the store.
    """

    chunk: Chunk
    error: Exception


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """The recording is over; told once after `stop`, and again if what was pending completes."""

    result: RecordingResult


Event = (
    ChunkUploaded
    | PartUploaded
    | OutputCompleted
    | UploadFailed
    | CaptureFailed
    | ChunkDropped
    | RecordingEnded
)
