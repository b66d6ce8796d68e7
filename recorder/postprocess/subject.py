"""The recording that is worked on: where it is, whether it is complete, and what it consists of."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from recorder.catalog import Document
from recorder.names import POSTPROCESS_RECORD, InvalidName, check_recording_id
from recorder.result import State
from uploader.manifest import MANIFEST

COMPLETE = (str(State.COMPLETED), str(State.COMPLETED_WITH_GAPS))
_DAY = re.compile(r"dt=(\d{4}-\d{2}-\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recording is.

    Attributes:
        day: Its day's folder, `YYYY-MM-DD`.
        recording_id: Its folder's name.
    """

    day: str
    recording_id: str

    @property
    def folder(self) -> str:
        """Key prefix of everything of it, ending in `/`."""
        return f"dt={self.day}/{self.recording_id}/"

    @property
    def manifest_key(self) -> str:
        """Key of its manifest."""
        return self.folder + MANIFEST

    @property
    def record_key(self) -> str:
        """Key of the record of what was done with it."""
        return self.folder + POSTPROCESS_RECORD


def place_of(folder: str) -> Place | None:
    """Return the place that a folder `dt=YYYY-MM-DD/<id>/` is, or None if it is another's."""
    day, _, name = folder.rstrip("/").partition("/")
    match = _DAY.fullmatch(day)
    if match is None:
        return None
    try:
        return Place(match[1], check_recording_id(name))
    except InvalidName:
        return None


@dataclass(frozen=True, slots=True)
class Subject:
    """A recording as its manifest tells."""

    place: Place
    manifest: Document

    @property
    def missing(self) -> str:
        """Why the recording cannot be worked on yet; empty if it is complete."""
        state = self.manifest.text("state")
        if state not in COMPLETE:
            return f"the manifest says {state!r}, not yet completed"
        for late in self.manifest.items("continuations"):
            if late.values.get("samples") is None:
                return f"late audio is being attached: {late.text('folder')}"
        return ""

    @property
    def content(self) -> str:
        """What the recording consists of, as 16 hexadecimal digits: the same as long as it is.

        Another owner, another revision of the manifest or cleaning up do not change it; audio that
        is attached later does.
        """
        manifest = self.manifest
        consists = {
            "recording_id": self.place.recording_id,
            "samples": manifest.count("samples"),
            "outputs": [
                [one.text("key"), one.count("bytes"), one.text("checksum")]
                for one in manifest.items("outputs")
            ],
            "turns": [
                [one.text("key"), one.count("bytes"), one.text("checksum")]
                for one in manifest.items("turns")
            ],
            "late": [
                [one.text("folder"), one.count("first_sample"), one.count("samples")]
                for one in manifest.items("continuations")
            ],
        }
        return hashlib.sha256(json.dumps(consists).encode()).hexdigest()[:16]

    @property
    def output_keys(self) -> set[str]:
        """Keys of the outputs that the manifest lists."""
        return {one.text("key") for one in self.manifest.items("outputs")}
