"""What a recording came to. `completed` is said only of what was verified in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a recording, or one of its outputs, stands."""

    RECORDING = "recording"
    COMPLETED = "completed"
    COMPLETED_WITH_GAPS = "completed_with_gaps"
    PENDING = "pending"  # safe in the spool or in chunk objects, not yet the final object
    FAILED = "failed"  # needs somebody: the reason and hint say what; nothing was deleted


@dataclass(frozen=True, slots=True)
class OutputResult:
    """One output object.

    Attributes:
        name: `stereo`, `mono`, a track's name, or `turns/0001-user`.
        state: `completed`, `pending` or `failed`.
        key: Object key below the store's bucket and prefix.
        url: Where it is, or will be.
        bytes: Size of the object; 0 if it is not there.
        duration_seconds: Of its audio.
        parts: Parts of its multipart upload; 0 for a single put.
        checksum: CRC-64/NVME of the object, base64; empty if it is not there.
        verified: Whether the store confirmed size, owner and, where it keeps one, checksum.
        reason: Why it is not completed.
        hint: What can be done about it.
    """

    name: str
    state: State
    key: str
    url: str
    bytes: int = 0
    duration_seconds: float = 0.0
    parts: int = 0
    checksum: str = ""
    verified: bool = False
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that is missing: samples [start, end) of a track; `end` is None if nobody knows."""

    track: str
    start: int
    end: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """What `stop()` returns.

    Attributes:
        recording_id: The id.
        state: `completed`, `completed_with_gaps`, `pending` or `failed`: the worst of all outputs.
        url: Of the recording's folder in the store.
        duration_seconds: Of the recording.
        samples: The same in samples.
        sample_rate: Hz.
        chunks: How many chunks it was sealed into.
        outputs: Every output asked for, turn clips included, with its own state.
        gaps: Audio that is missing.
        spool: Local folder the audio is kept in, where the state is `pending` or `failed`.
        reason: Why it is not completed.
        hint: What can be done about it.
        leftovers: Keys of objects that are superfluous, and which the bucket does not let go;
            multipart uploads as `key?uploadId=...`.
        counts: Requests by operation, and `failed_attempts`, which were retried or given up.
    """

    recording_id: str
    state: State
    url: str
    duration_seconds: float
    samples: int
    sample_rate: int
    chunks: int
    outputs: tuple[OutputResult, ...] = ()
    gaps: tuple[Gap, ...] = ()
    spool: str | None = None
    reason: str = ""
    hint: str = ""
    leftovers: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def durable(self) -> bool:
        """Whether every output is verified in the store."""
        return self.state in (State.COMPLETED, State.COMPLETED_WITH_GAPS)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types."""
        return asdict(self)
