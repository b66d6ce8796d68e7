"""Names that come from outside, checked before they become a key, a path or a header.

Every check returns the accepted (and where said so, normalized) value or raises `InvalidName`
with one line: what was given, what is wrong with it, and what is allowed.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NoReturn

from uploader.errors import BotRecorderError

MAX_RECORDING_ID = 100
MAX_TRACK = 32
MAX_PARTICIPANT = 128
MAX_PREFIX_BYTES = 512  # of S3's 1,024 bytes for a key; the rest is the recording's own

#: Amazon S3 User Guide, "User-defined object metadata": names and values, in UTF-8.
MAX_METADATA_BYTES = 2048
#: What is kept back of it for the project's own metadata.
OWN_METADATA_BYTES = 512
OWN_METADATA_PREFIX = "recorder-"

#: Amazon S3 User Guide, "Categorizing your objects using tags".
MAX_TAGS = 10
MAX_TAG_KEY = 128
MAX_TAG_VALUE = 256

POSTPROCESS_RECORD = "postprocess.json"
"""Beside a recording's manifest: what post-processing has done with it."""

#: A track's output is `<track>.wav`: these would collide with a recording's other objects.
RESERVED_TRACKS = frozenset({"audio", "stereo", "mono", "manifest", "peaks", "turns", "chunks"})

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TRACK = re.compile(r"[a-z0-9][a-z0-9_-]*")
_METADATA_NAME = re.compile(r"[a-z0-9_-]+")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
# A leading dot would make hidden files of a local store's folders; 255 is a file name's limit.
_SEGMENT = re.compile(r"[A-Za-z0-9_=@+,-][A-Za-z0-9._=@+,-]{0,254}")

_ID_RULE = "allowed are 1 to 100 of A-Z a-z 0-9 . _ -, the first a letter or digit, and no '..'"
_TRACK_RULE = "allowed are 1 to 32 of a-z 0-9 _ -, the first a letter or digit"
_PREFIX_RULE = (
    "allowed are 0 to 512 bytes in segments separated by '/', each of A-Z a-z 0-9 . _ = @ + , -, "
    "not beginning with '.', and no '..'"
)
_PARTICIPANT_RULE = "allowed are 1 to 128 printable characters"
_METADATA_NAME_RULE = "allowed are a-z 0-9 - _, case aside"
_METADATA_VALUE_RULE = "allowed are printable ASCII characters, no blank at either end"
_TAG_RULE = "allowed are letters, digits, spaces and + - = . _ : / @"


class InvalidName(BotRecorderError, ValueError):
    """A name, prefix, metadata entry or tag from outside is not acceptable.

    Attributes:
        reason: What is wrong and what is allowed, without the value: for callers that name the
            value themselves.
    """

    def __init__(self, what: str, value: object, reason: str) -> None:
        super().__init__(f"{what} {shown(value)}: {reason}")
        self.reason = reason


def shown(value: object, limit: int = 60) -> str:
    """Return `value` as a message shows it: on one line, escaped, at most about `limit` long."""
    if isinstance(value, str):
        # Cut before escaping: a message about a megabyte of text must not cost a megabyte.
        return repr(value) if len(value) <= limit else f"{value[:limit]!r}... ({len(value)} long)"
    text = " ".join(ascii(value).split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def _refuse(what: str, value: object, problem: str, rule: str) -> NoReturn:
    raise InvalidName(what, value, f"{problem}; {rule}")


def _check_text(what: str, value: object, rule: str) -> str:
    if not isinstance(value, str):
        _refuse(what, value, f"is {type(value).__name__}, not text", rule)
    return value


def check_recording_id(text: str) -> str:
    """Return `text` if it can be a recording's id: a folder's name in the bucket and on disk.

    Raises:
        InvalidName: Not 1 to 100 of `[A-Za-z0-9._-]` beginning with a letter or digit, or has `..`.
    """
    what = "recording id"
    _check_text(what, text, _ID_RULE)
    if not text:
        _refuse(what, text, "is empty", _ID_RULE)
    if len(text) > MAX_RECORDING_ID:
        _refuse(what, text, f"is {len(text)} characters long", _ID_RULE)
    if ".." in text:
        _refuse(what, text, "has '..'", _ID_RULE)
    if not _ID.fullmatch(text):
        _refuse(what, text, "has a character that is not allowed there", _ID_RULE)
    return text


def check_track(text: str) -> str:
    """Return `text` if it can be a track's name.

    Raises:
        InvalidName: Not 1 to 32 of `[a-z0-9_-]` beginning with a letter or digit, or reserved.
    """
    what = "track"
    _check_text(what, text, _TRACK_RULE)
    if not text:
        _refuse(what, text, "is empty", _TRACK_RULE)
    if len(text) > MAX_TRACK:
        _refuse(what, text, f"is {len(text)} characters long", _TRACK_RULE)
    if not _TRACK.fullmatch(text):
        _refuse(what, text, "has a character that is not allowed there", _TRACK_RULE)
    if text in RESERVED_TRACKS:
        names = ", ".join(sorted(RESERVED_TRACKS))
        _refuse(what, text, "is the name of another object of a recording", f"taken are {names}")
    return text


def check_prefix(text: str) -> str:
    """Return a key prefix without slashes at its ends; empty for none.

    Raises:
        InvalidName: More than 512 bytes, or a segment that is empty, begins with a dot, or has
            other characters than `[A-Za-z0-9._=@+,-]`, or has `..`.
    """
    what = "key prefix"
    prefix = _check_text(what, text, _PREFIX_RULE).strip("/")
    if not prefix:
        return ""
    if len(prefix.encode("utf-8", "surrogatepass")) > MAX_PREFIX_BYTES:
        _refuse(what, text, "is too long", _PREFIX_RULE)
    if ".." in prefix:
        _refuse(what, text, "has '..'", _PREFIX_RULE)
    for segment in prefix.split("/"):
        if not segment:
            _refuse(what, text, "has an empty segment ('//')", _PREFIX_RULE)
        if not _SEGMENT.fullmatch(segment):
            problem = f"has a segment {shown(segment)} that is not allowed"
            _refuse(what, text, problem, _PREFIX_RULE)
    return prefix


def check_metadata(
    metadata: Mapping[str, str], *, reserved: int = OWN_METADATA_BYTES
) -> dict[str, str]:
    """Return user metadata with lower-case names, as S3 keeps them, if all of it is acceptable.

    Args:
        metadata: Names of `[a-z0-9-_]` in any case, not beginning with `recorder-`; values of
            printable ASCII without blanks at their ends (a header loses them).
        reserved: Bytes of S3's 2,048 that are kept for the project's own metadata.

    Raises:
        InvalidName: A name or value is not acceptable, a name is given twice, or all of it
            together is too long.
    """
    checked: dict[str, str] = {}
    for given, value in metadata.items():
        what = "metadata name"
        name = _check_text(what, given, _METADATA_NAME_RULE)
        # Only ASCII is lowered: str.lower() would turn a Kelvin sign into an allowed "k".
        if not name.isascii() or not _METADATA_NAME.fullmatch(name := name.lower()):
            problem = "is empty" if not name else "has a character that is not allowed"
            _refuse(what, given, problem, _METADATA_NAME_RULE)
        if name.startswith(OWN_METADATA_PREFIX):
            rule = f"names beginning {OWN_METADATA_PREFIX!r} are the recorder's own"
            _refuse(what, given, "is reserved", rule)
        if name in checked:
            _refuse(what, given, "is given twice", "names differ in more than case")
        what = f"value of metadata {shown(name)}"
        _check_text(what, value, _METADATA_VALUE_RULE)
        if not _PRINTABLE.fullmatch(value):
            _refuse(what, value, "has a character that is not allowed", _METADATA_VALUE_RULE)
        if value != value.strip():
            _refuse(what, value, "begins or ends with a blank", _METADATA_VALUE_RULE)
        checked[name] = value
    size = sum(len(name) + len(value) for name, value in checked.items())
    if size > (limit := MAX_METADATA_BYTES - reserved):
        rule = f"allowed are {limit} (S3's {MAX_METADATA_BYTES} less {reserved} of the recorder's)"
        _refuse("metadata", ", ".join(checked), f"has {size} bytes of names and values", rule)
    return checked


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return object tags, if S3 takes all of them.

    Raises:
        InvalidName: More than 10, a key of more than 128 or a value of more than 256 characters,
            a key that is empty or begins with `aws:`, or a character S3 does not allow.
    """
    if len(tags) > MAX_TAGS:
        _refuse("tags", ", ".join(map(str, tags)), f"are {len(tags)}", f"allowed are {MAX_TAGS}")
    for key, value in tags.items():
        _check_tag_text("tag", key, MAX_TAG_KEY)
        if not key:
            _refuse("tag", key, "is empty", _TAG_RULE)
        if key.casefold().startswith("aws:"):
            _refuse("tag", key, "is reserved", "keys beginning 'aws:' are Amazon's own")
        _check_tag_text(f"value of tag {shown(key)}", value, MAX_TAG_VALUE)
    return dict(tags)


def _check_tag_text(what: str, text: str, limit: int) -> None:
    _check_text(what, text, _TAG_RULE)
    if len(text) > limit:
        _refuse(what, text, f"is {len(text)} characters long", f"allowed are {limit}")
    for character in text:
        if character not in " +-=._:/@" and unicodedata.category(character)[0] not in "LN":
            _refuse(what, text, f"has {character!r}", _TAG_RULE)


def check_participant(text: str) -> str:
    """Return `text` if it can say in a manifest who speaks on a track.

    Raises:
        InvalidName: Not 1 to 128 characters, all of them printable.
    """
    what = "participant"
    _check_text(what, text, _PARTICIPANT_RULE)
    if not text:
        _refuse(what, text, "is empty", _PARTICIPANT_RULE)
    if len(text) > MAX_PARTICIPANT:
        _refuse(what, text, f"is {len(text)} characters long", _PARTICIPANT_RULE)
    if not text.isprintable():
        _refuse(what, text, "has a character that is not printable", _PARTICIPANT_RULE)
    return text


def as_participant(text: str) -> str | None:
    """Return text from strangers as it may stand in a manifest; None if there is nothing in it.

    Cut to 128 characters; what cannot be printed (line breaks, escapes, marks that turn the
    direction of text, halves of characters) is replaced.
    """
    shown = "".join(one if one.isprintable() else "\ufffd" for one in text[:MAX_PARTICIPANT])
    return shown or None


def new_recording_id(now: datetime, token: str | None = None) -> str:
    """Return a recording id that sorts by time, e.g. `20261123T130447Z-1f9c2a7b30d4`.

    Args:
        now: Timezone-aware; the id names it in UTC.
        token: What follows the time; 12 random hexadecimal digits (48 bits) by default.

    Raises:
        ValueError: `now` has no timezone.
        InvalidName: `token` makes no recording id.
    """
    if now.utcoffset() is None:
        raise ValueError(f"a recording id needs a time with a timezone, not {now!r}")
    if token is None:
        token = secrets.token_hex(6)
    return check_recording_id(f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{token}")
