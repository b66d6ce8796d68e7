"""Which track a participant of a call is recorded on, and what the manifest says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loguru import logger

from recorder.layouts import BOT
from recorder.names import MAX_TRACK, InvalidName, as_participant, check_track, shown

TrackNames = Mapping[str, str] | Callable[[str], str | None]
"""Track names by `user_id`; None, or a `user_id` that is missing, is numbered like all others."""

MAX_USERS = 16
"""Participants with a track of their own; further ones share one."""

USER = "user"
OTHERS = "others"


class Voice(NamedTuple):
    """One participant's microphone.

    Attributes:
        track: Name of its track.
        participant: Who it is, as a manifest may say it; None where that is not known.
        shared: Whether it has to share the track, for there are too many.
    """

    track: str
    participant: str | None
    shared: bool = False


class Participants:
    """Gives every microphone a track: two that are heard at once cannot share one.

    Args:
        names: Names asked for.
        tell: Whether the participants' ids are handed on, for the manifest.

    Raises:
        InvalidName: A name in a mapping is not allowed, or there twice.
    """

    def __init__(self, names: TrackNames | None = None, *, tell: bool = True) -> None:
        self._names = names
        self._tell = tell
        self._promised: dict[str, str] = {}
        if isinstance(names, Mapping):
            self._promised = {user_id: _check_name(name) for user_id, name in names.items()}
            for name, count in Counter(self._promised.values()).items():
                if count > 1:
                    raise InvalidName("track", name, f"is given to {count} participants")
        self._voices: dict[tuple[str | None, str | None], Voice] = {}
        self._full = False

    def voice(self, user_id: str | None, source: str | None = None) -> Voice:
        """Return a participant's voice: the same each time, also after leaving and re-joining.

        Args:
            user_id: As the transport says it; None or empty where it says none.
            source: Which of a participant's sources it is, as the transport says it.
        """
        user_id = user_id or None
        found = self._voices.get((user_id, source))
        if found is None:
            found = self._join(user_id, source)
        return found

    def forget(self) -> None:
        """Begin anew, for another recording."""
        self._voices.clear()
        self._full = False

    def _join(self, user_id: str | None, source: str | None) -> Voice:
        if len(self._voices) >= MAX_USERS:
            # Not remembered: there is no end to ids that strangers can make up.
            if not self._full:
                self._full = True
                logger.warning(
                    "more than {} participants: further ones share the track {}", MAX_USERS, OTHERS
                )
            return Voice(OTHERS, None, shared=True)
        track = self._free(self._wanted(user_id) or USER, user_id)
        participant = as_participant(user_id) if user_id and self._tell else None
        self._voices[user_id, source] = voice = Voice(track, participant)
        return voice

    def _wanted(self, user_id: str | None) -> str | None:
        """Return the name that was asked for, if it can be had."""
        if user_id is None or self._names is None:
            return None
        if isinstance(self._names, Mapping):
            return self._promised.get(user_id)
        try:
            name = self._names(user_id)
            return None if name is None else _check_name(name)
        except Exception as error:  # the bot's own code: it must not cost the audio
            logger.error("no name for the track of participant {}: {}", shown(user_id), error)
            return None

    def _free(self, name: str, user_id: str | None) -> str:
        """Return a name, or the next free one behind it: `ann-2`, `ann-3`."""
        taken = {voice.track for voice in self._voices.values()} | {BOT, OTHERS}
        taken |= {track for other, track in self._promised.items() if other != user_id}
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name[: MAX_TRACK - len(f'-{number}')]}-{number}"
        if free != name and name != USER:
            logger.warning("track {} is taken: the next is recorded as {}", name, free)
        return free


def _check_name(name: str) -> str:
    check_track(name)
    if name in (BOT, OTHERS):
        raise InvalidName("track", name, "is not for participants")
    return name
