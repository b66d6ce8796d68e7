"""Rebuilds outputs of a finished recording from the chunk objects that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from recorder.result import OutputResult
from recorder.settings_values import OutputName
from uploader.store import Store


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was rebuilt.

    Attributes:
        recording_id: Of what.
        outputs: The objects, each verified; as `Session.stop` tells them.
    """

    recording_id: str
    outputs: tuple[OutputResult, ...]


async def assemble(
    store: Store,
    recording_id: str,
    layouts: Sequence[OutputName] = (),
    *,
    day: date | None = None,
    overwrite: bool = False,
) -> Assembled:
    """Rebuild outputs of a finished recording from its chunk objects.

    Args:
        store: Open.
        recording_id: Which.
        layouts: Which outputs; those it was made with, if none are named.
        day: Of which day, for an id that was used on several; the newest if None.
        overwrite: Replace objects that are there.

    Raises:
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        AssembleError: An object is in the way, or a chunk is missing, damaged or another's;
            nothing was replaced.
        StoreError: The store refuses, or does not answer.
    """
    raise NotImplementedError
