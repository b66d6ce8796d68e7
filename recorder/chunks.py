"""A sealed chunk, and what a delivery needs to know of a recording's chunks, wherever they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from recorder.names import check_track
from recorder.timeline import Timeline
from uploader.checksum import decode, encode
from uploader.errors import BotRecorderError

CHUNKS = "chunks/"
"""Below a recording's folder: its chunk objects."""

OPEN_CHUNK = "open.wav"
"""Among them: the open chunk, as far as it was settled when it was last looked at."""

_FILE = re.compile(r"(\d{6,})(?:-[a-z0-9]{1,64})?\.wav")


def chunk_number(key: str) -> int | None:
    """Return which chunk an object is, by its key below the recording's folder; None for none."""
    match = _FILE.fullmatch(key.removeprefix(CHUNKS)) if key.startswith(CHUNKS) else None
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A sealed chunk.

    Attributes:
        number: From 1.
        first_sample: Its place on the recording's clock.
        samples: How many, per track.
        tracks: Names, in channel order; a chunk of none has one silent channel.
        bytes: Size of the file.
        checksum: CRC-64/NVME of the file.
        lost: Whether its audio is missing for good: outputs have silence there, and a gap says so.
        file: Its file's name, where that is not its number: of a part of a chunk.
    """

    number: int
    first_sample: int
    samples: int
    tracks: tuple[str, ...]
    bytes: int
    checksum: int
    lost: bool = False
    file: str = ""

    @property
    def name(self) -> str:
        """The name of its file, and of its object below `chunks/`."""
        return self.file or f"{self.number:06d}.wav"

    @property
    def end(self) -> int:
        """The sample behind its last."""
        return self.first_sample + self.samples

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON types, for the constructor."""
        return {name: getattr(self, name) for name in self.__slots__}

    def to_dict(self) -> dict[str, Any]:
        """Return the chunk as the manifest lists it."""
        return {
            "number": self.number,
            "first_sample": self.first_sample,
            "samples": self.samples,
            "tracks": list(self.tracks),
            "bytes": self.bytes,
            "checksum": encode(self.checksum),
            **({"lost": True} if self.lost else {}),
            **({"file": self.file} if self.file else {}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the chunk that `to_dict` wrote, whoever wrote it: every value is checked.

        Raises:
            BotRecorderError: It is not one.
        """
        try:
            numbers = [document[name] for name in ("number", "first_sample", "samples", "bytes")]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise ValueError("a number is missing or negative")
            number, first_sample, samples, size = numbers
            tracks = tuple(check_track(name) for name in document["tracks"])
            checksum, lost = decode(document["checksum"]), document.get("lost") is True
            file = document.get("file", "")
            if file and chunk_number(f"{CHUNKS}{file}") != number:
                raise ValueError(f"{file!r} is no file of chunk {number}")
        except (KeyError, TypeError, ValueError) as error:
            raise BotRecorderError(f"not a chunk: {error}") from error
        return cls(number, first_sample, samples, tracks, size, checksum, lost, file)


class Contents(Protocol):
    """What there is of a recording: its sealed chunks, and what is known of its time.

    Attributes:
        timeline: Its tracks, turns, pauses and gaps.
        sealed: Its chunks, in order; may grow, and a chunk may become a lost one.
        in_store: How many of them, from the first, are known to be in the store from the outset.
    """

    timeline: Timeline
    sealed: list[Chunk]
    in_store: int

    @property
    def sealed_samples(self) -> int:
        """The sample, on the recording's clock, behind the last chunk."""
        ...

    @property
    def finished(self) -> bool:
        """Whether all there is, is sealed."""
        ...

    def chunk_path(self, chunk: Chunk) -> Path:
        """Return the file of a chunk, which may be there or not."""
        ...
