"""What a store refuses before it sends anything: the interface's own limits, one check each.

Every store calls these, so that a request out of limits fails alike everywhere, at once and
without a byte on the wire. Each raises `InvalidRequest`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from uploader.errors import InvalidRequest
from uploader.store import (
    MAX_PART_BYTES,
    MAX_PARTS,
    MAX_PUT_BYTES,
    MIN_PART_BYTES,
    Body,
    ObjectAttributes,
    Part,
)

#: Amazon S3 User Guide, "Naming Amazon S3 objects": a key is at most 1,024 bytes of UTF-8.
MAX_KEY_BYTES = 1024
#: Amazon S3 User Guide, "User-defined object metadata": names and values together.
MAX_METADATA_BYTES = 2048
#: Amazon S3 User Guide, "Categorizing your objects using tags".
MAX_TAGS = 10

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]|[\ud800-\udfff]")  # XML carries none


def refuse(op: str, key: str, message: str, *, code: str) -> InvalidRequest:
    """Return the error for a request that is not sent."""
    return InvalidRequest(f"{op} {key!r}: {message}", op=op, key=key, code=code)


def check_key(op: str, key: str, *, prefix: str = "") -> None:
    """Check an object's key: `/`-separated segments, none of them empty, `.` or `..`.

    Args:
        op: The operation, for the message.
        key: The key, relative to the store.
        prefix: What the store puts before it; counts to the length.
    """
    if len((prefix + key).encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        problem = f"the key is longer than {MAX_KEY_BYTES} bytes"
        raise refuse(op, key[:80], problem, code="KeyTooLongError")
    _check_characters(op, key)
    if any(segment in ("", ".", "..") for segment in key.split("/")):
        problem = "a key has no empty segment and none that is '.' or '..'"
        raise refuse(op, key, problem, code="InvalidKey")


def check_prefix(op: str, prefix: str, *, level: bool = False) -> None:
    """Check a prefix to list; of a `level`, it is empty or ends in `/`."""
    _check_characters(op, prefix)
    segments = prefix.split("/")
    if any(segment in ("", ".", "..") for segment in segments[:-1]):
        problem = "a prefix has no empty segment and none that is '.' or '..'"
        raise refuse(op, prefix, problem, code="InvalidPrefix")
    if level and segments[-1]:
        raise refuse(op, prefix, "the prefix of a level ends in '/'", code="InvalidPrefix")


def is_text(text: str) -> bool:
    """Whether a name can be part of a key: no control characters, and it is Unicode."""
    return _CONTROL.search(text) is None


def _check_characters(op: str, text: str) -> None:
    if not is_text(text):
        raise refuse(op, text, "control characters are not allowed", code="InvalidKey")


def check_put(op: str, key: str, body: Body, *, if_absent: bool, if_match: str | None) -> None:
    """Check a put's size, and that it has one condition at most."""
    if len(body) > MAX_PUT_BYTES:
        problem = f"{len(body)} bytes are more than the {MAX_PUT_BYTES} of one put"
        raise refuse(op, key, problem, code="EntityTooLarge")
    if if_absent and if_match is not None:
        problem = "if_absent and if_match exclude each other"
        raise refuse(op, key, problem, code="InvalidCondition")
    if if_match is not None and (not if_match or not if_match.isprintable() or "*" in if_match):
        raise refuse(op, key, f"{if_match!r} is no ETag", code="InvalidCondition")


def check_part(op: str, key: str, number: int, body: Body) -> None:
    """Check a part's number and size."""
    check_part_number(op, key, number)
    if len(body) > MAX_PART_BYTES:
        problem = f"{len(body)} bytes are more than the {MAX_PART_BYTES} of one part"
        raise refuse(op, key, problem, code="EntityTooLarge")


def check_part_number(op: str, key: str, number: int) -> None:
    """Check that a part's number is one of 1..`MAX_PARTS`."""
    if not 1 <= number <= MAX_PARTS:
        problem = f"part number {number} is not in 1..{MAX_PARTS}"
        raise refuse(op, key, problem, code="InvalidArgument")


def check_parts(op: str, key: str, parts: Sequence[Part]) -> None:
    """Check the parts of a complete: at least one, ascending, all but the last large enough."""
    if not parts:
        raise refuse(op, key, "an upload is completed with at least one part", code="NoParts")
    for part in parts:
        check_part_number(op, key, part.number)
    for before, after in itertools.pairwise(parts):
        if before.number >= after.number:
            problem = f"part {after.number} comes after part {before.number}"
            raise refuse(op, key, problem, code="InvalidPartOrder")
        if before.size < MIN_PART_BYTES:
            problem = (
                f"part {before.number} has {before.size} bytes; "
                f"every part but the last has at least {MIN_PART_BYTES}"
            )
            raise refuse(op, key, problem, code="EntityTooSmall")


def check_range(op: str, key: str, start: int, end: int | None) -> None:
    """Check that a range [start, end) is one, as far as can be told without the object."""
    if start < 0 or (end is not None and end < start):
        raise refuse(op, key, f"[{start}, {end}) is no range", code="InvalidRange")


def check_attributes(op: str, key: str, attributes: ObjectAttributes) -> None:
    """Check metadata and tags against S3's limits."""
    used = 0
    for name, value in attributes.metadata.items():
        used += len(name) + len(value)
        if not name or not (name + value).isascii() or not (name + value).isprintable():
            problem = f"metadata {name!r} is not printable ASCII"
            raise refuse(op, key, problem, code="InvalidMetadata")
        if name != name.lower():
            problem = f"metadata name {name!r} is not lower case"
            raise refuse(op, key, problem, code="InvalidMetadata")
    if used > MAX_METADATA_BYTES:
        problem = f"{used} bytes of metadata are more than {MAX_METADATA_BYTES}"
        raise refuse(op, key, problem, code="MetadataTooLarge")
    if len(attributes.tags) > MAX_TAGS:
        problem = f"{len(attributes.tags)} tags are more than {MAX_TAGS}"
        raise refuse(op, key, problem, code="InvalidTag")
