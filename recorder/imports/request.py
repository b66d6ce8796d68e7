"""What is to be imported, and how: as it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from uploader.errors import BotRecorderError

Provider = Literal["daily", "livekit", "twilio", "file"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)


class ImportRefused(BotRecorderError, ValueError):
    """What was asked for cannot be imported: it is not there, contradictory, or in the way."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is to be imported.

    Attributes:
        sources: Files, folders and objects: a path, `file:///...`, `s3://bucket/key`, or
            `s3://bucket/prefix*` for all that begins so.
        provider: Who made them; found out by their names if None.
        tracks: Names of the tracks, in the order of the files and of their channels; the
            provider's own if empty.
        names: Track names by participant, for files that are one participant's each.
        offsets: Where each file begins on the recording's clock, seconds, in the order of the
            files; as the provider tells, or 0, if empty.
        started_at: When the recording began; as the provider or the file tells, if None.
        recording_id: Its id; made of the files' content if None.
        outputs: Which outputs, instead of the settings'.
        sample_rate: Of the recording, Hz; the files' own, the highest of them, if None.
        metadata: User metadata of all objects, beside the settings' own.
        tags: Object tags, beside the settings' own.
    """

    sources: tuple[str, ...]
    provider: Provider | None = None
    tracks: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    offsets: tuple[float, ...] = ()
    started_at: datetime | None = None
    recording_id: str | None = None
    outputs: tuple[str, ...] | None = None
    sample_rate: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
