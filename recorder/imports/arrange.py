"""Puts the files of an import on one timeline: which track, and from which sample on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from recorder.imports.audio import Measured
from recorder.imports.library import Fetched
from recorder.imports.providers import Hint, Origin
from recorder.imports.request import ImportRefused, ImportRequest
from recorder.layouts import BOT
from recorder.names import check_track
from recorder.speakers import Track, check_tracks, speaking_as

SAME_CLOCK_SECONDS = 1.0
"""A raw track's name says only roughly when it began. If the times in it say the same to within
this, they count from the recording's start, and are exact; otherwise they are the file's own."""

OWN_CLOCK_SECONDS = 0.02
"""Times that begin before this begin at 0 (Opus has a delay): they are the file's own."""

OVERLAP_SECONDS = 1.0
"""Two files of one microphone that overlap by no more follow each other: their starts are rough."""

AGENT = "agent-"
"""What the identity of an agent of LiveKit Agents begins with, unless it was given another."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A file's place.

    Attributes:
        file: The file.
        measured: What is in it.
        tracks: The track of each channel; or one, for all of them mixed.
        offset: Where it begins on the recording's clock, seconds.
        participant: Whose it is.
    """

    file: Fetched
    measured: Measured
    tracks: tuple[str, ...]
    offset: Fraction
    participant: str | None = None

    @property
    def end(self) -> Fraction:
        """Where it ends, seconds."""
        return self.offset + Fraction(self.measured.samples, self.measured.sample_rate)


def arrange(
    origin: Origin, files: Sequence[tuple[Fetched, Measured]], request: ImportRequest
) -> list[Voice]:
    """Return the places of all files, by their beginning.

    Args:
        origin: Where they come from; its hints are in the order of `files`.
        files: What they are, and what is in them.
        request: How it was asked for.

    Raises:
        ImportRefused: Names or offsets do not go with the files.
        InvalidName: A track's name is not allowed, or one too many.
    """
    if request.offsets and len(request.offsets) != len(files):
        raise ImportRefused(f"{len(request.offsets)} offsets for {len(files)} files")
    own = [_offset(hint, measured) for hint, (_, measured) in zip(origin.hints, files, strict=True)]
    offsets = [Fraction(str(one)) for one in request.offsets] or own
    if min(offsets) < 0:
        raise ImportRefused("an offset is negative", hint="the first file begins at 0 or later")
    if any(hint.participant for hint in origin.hints) and not request.tracks:
        voices = _by_participant(origin, files, offsets, request)
    else:
        voices = _by_channel(origin, files, offsets, request)
    check_tracks(list(dict.fromkeys(name for voice in voices for name in voice.tracks)))
    return sorted(voices, key=lambda one: one.offset)


def speakers(voices: Sequence[Voice]) -> list[Track]:
    """Return the tracks of all voices, in the order they join."""
    found: dict[str, Track] = {}
    for voice in voices:
        for name in voice.tracks:
            speaker = speaking_as(name)
            found.setdefault(name, replace(speaker, participant=voice.participant))
    return list(found.values())


def _offset(hint: Hint, measured: Measured) -> Fraction:
    start = Fraction(measured.start_seconds).limit_denominator(1_000_000)
    same = abs(measured.start_seconds - hint.offset) <= SAME_CLOCK_SECONDS
    if hint.session_clock and same and start >= OWN_CLOCK_SECONDS:
        return start
    return Fraction(str(hint.offset))


def _by_channel(
    origin: Origin,
    files: Sequence[tuple[Fetched, Measured]],
    offsets: Sequence[Fraction],
    request: ImportRequest,
) -> list[Voice]:
    """Return a track for each channel of each file."""
    count = sum(measured.channels for _, measured in files)
    names = list(request.tracks) or _usual(origin, files)
    if len(names) != count:
        raise ImportRefused(
            f"{len(names)} track names for {count} channels in {len(files)} files",
            hint="--tracks names each channel of each file, in their order",
        )
    if len(set(names)) != len(names):
        raise ImportRefused(f"a track is named twice: {', '.join(names)}")
    voices, at = [], 0
    for (fetched, measured), offset in zip(files, offsets, strict=True):
        own = tuple(map(check_track, names[at : at + measured.channels]))
        at += measured.channels
        voices.append(Voice(fetched, measured, own, offset))
    return voices


def _usual(origin: Origin, files: Sequence[tuple[Fetched, Measured]]) -> list[str]:
    count = sum(measured.channels for _, measured in files)
    if count == 1:
        return ["mix"]
    if len(files) == 1 and count == 2:
        return ["user", BOT] if origin.provider == "twilio" else ["left", "right"]
    if len(files) == 1:
        return [f"channel-{number}" for number in range(1, count + 1)]
    return [f"track-{number}" for number in range(1, count + 1)]


def _by_participant(
    origin: Origin,
    files: Sequence[tuple[Fetched, Measured]],
    offsets: Sequence[Fraction],
    request: ImportRequest,
) -> list[Voice]:
    """Return a track for each participant's microphone, screen and so on."""
    known = {hint.participant for hint in origin.hints}
    if strangers := [one for one in request.names if one not in known]:
        raise ImportRefused(
            f"no file is of {', '.join(strangers)}",
            hint=f"there is {', '.join(sorted(str(one) for one in known))}",
        )
    placed = sorted(
        zip(origin.hints, files, offsets, strict=True), key=lambda one: (one[2], one[0].source.name)
    )
    names = _Names(request.names)
    ends: dict[str, Fraction] = {}
    voices = []
    for hint, (fetched, measured), offset in placed:
        name = names.of(hint)
        over = ends.get(name, Fraction(0)) - offset
        if over > OVERLAP_SECONDS:
            name = names.another(hint)
        elif over > 0:
            offset = ends[name]
        voice = Voice(fetched, measured, (name,), offset, hint.participant)
        ends[name] = voice.end
        voices.append(voice)
    return voices


class _Names:
    """Names tracks as they come: user, user-2, ...; what an agent says is the bot's."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._of: dict[str | None, str] = {}
        self._taken: set[str] = set(self._given.values())

    def of(self, hint: Hint) -> str:
        who = hint.participant
        if who not in self._of:
            name = self._given.get(who or "")
            if name is None:
                name = BOT if (who or "").startswith(AGENT) and BOT not in self._taken else ""
            self._of[who] = check_track(name) if name else self._free()
            self._taken.add(self._of[who])
        base = self._of[who]
        return check_track(f"{base}-{hint.media}") if hint.media else base

    def another(self, hint: Hint) -> str:
        """Return a further track, for what a participant says at the same time."""
        name = self._free()
        self._taken.add(name)
        return name

    def _free(self) -> str:
        number = 1
        while (name := "user" if number == 1 else f"user-{number}") in self._taken:
            number += 1
        return name
