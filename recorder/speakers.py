"""Who is recorded: a track for each speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recorder.names import InvalidName, check_participant, check_track
from recorder.runs import Source

MAX_TRACKS = 64


@dataclass(frozen=True, slots=True)
class Track:
    """A speaker.

    Attributes:
        name: 1 to 32 of a-z 0-9 _ -; becomes the name of an object.
        source: `capture` for a microphone, `playout` for what a bot plays: see
            `recorder.timeline`.
        participant: Whose it is: 1 to 128 printable characters, for the manifest alone. It is
            personal data where it names a person, and kept as long as the manifest.
    """

    name: str
    source: Source = "capture"
    participant: str | None = None


def speaking_as(name: str) -> Track:
    """Return the track a bare name means: `bot` plays out, everybody else is a microphone."""
    return Track(name, "playout" if name == "bot" else "capture")


def check_tracks(tracks: Sequence[Track | str]) -> list[Track]:
    """Return the tracks a recording begins with.

    Raises:
        InvalidName: A name is not allowed, there twice, or one too many.
    """
    speakers: dict[str, Track] = {}
    for track in tracks:
        speaker = track if isinstance(track, Track) else speaking_as(track)
        check_track(speaker.name)
        if speaker.participant is not None:
            check_participant(speaker.participant)
        if speaker.name in speakers:
            raise InvalidName("track", speaker.name, "is named twice")
        if len(speakers) >= MAX_TRACKS:
            raise InvalidName("track", speaker.name, f"is one too many: at most {MAX_TRACKS}")
        speakers[speaker.name] = speaker
    return list(speakers.values())
