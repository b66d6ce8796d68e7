"""What a processor of a pipeline was asked for, checked against the settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

from recorder.names import MAX_RECORDING_ID, check_recording_id
from recorder.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Options:
    """What to record, and how to hand it on.

    Attributes:
        sample_rate: Hz.
        channels: Of merged audio: 1 or 2.
        block_samples: Length of a block of audio; 0 for one, at the end.
        turn_audio: Whether speech is handed on.
        hold_back_seconds: Of the settings.
        metadata: User metadata.
        tags: Object tags.
        outputs: Instead of the settings', or None.
        tracks: There from the beginning.
    """

    sample_rate: int
    channels: int
    block_samples: int
    turn_audio: bool
    hold_back_seconds: float
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    outputs: Sequence[str] | None
    tracks: Sequence[str]


def checked_settings(
    settings: Settings | None, sample_rate: int | None, outputs: Sequence[str] | None
) -> Settings:
    """Return the settings, the environment's if None, if they go with what is different from them.

    Raises:
        SettingsError: They do not, or are not right themselves.
    """
    settings = settings or Settings()
    changes: dict[str, Any] = {}
    if sample_rate is not None:
        changes["sample_rate"] = sample_rate
    if outputs is not None:
        changes["outputs"] = tuple(outputs)
    if changes:
        settings.replace(**changes)
    return settings


def recording_rate(settings: Settings, pipeline_rate: int) -> int:
    """Return the rate to record at, Hz: the settings' where one was set, else the pipeline's."""
    rate = settings.sample_rate
    if "sample_rate" in settings.model_fields_set or rate == pipeline_rate:
        return rate
    try:
        settings.replace(sample_rate=pipeline_rate)
    except SettingsError as error:
        logger.warning("recording at {} Hz, not at the pipeline's rate: {}", rate, error)
        return rate
    return pipeline_rate


def recording_ids(first: str | None) -> Iterator[str | None]:
    """Return the ids of one recording after the other: `call`, `call-2`, `call-3`; or all None.

    Raises:
        InvalidName: The first is not allowed.
    """
    if first is None:
        return itertools.repeat(None)
    check_recording_id(first)
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return (first[: MAX_RECORDING_ID - len(suffix)] + suffix for suffix in suffixes)
