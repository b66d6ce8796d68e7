"""How the text of a setting becomes its value: what pydantic does not parse by itself.

Each function takes what was given, text or not, and returns what pydantic then checks the type
and range of, or raises ValueError with what is allowed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from recorder.location import parse_location
from recorder.names import InvalidName, shown

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4

OutputName = Literal["mono", "stereo", "tracks", "turns"]
OUTPUT_NAMES: tuple[OutputName, ...] = get_args(OutputName)

SpoolPolicy = Literal["stop", "drop_oldest"]
SPOOL_POLICIES: tuple[SpoolPolicy, ...] = get_args(SpoolPolicy)

OUTPUTS_RULE = f"one or more of {', '.join(OUTPUT_NAMES)}, separated by commas, each once"
PAIRS_RULE = "name=value pairs separated by commas, or a JSON object of strings"
ENDPOINT_RULE = "http:// or https:// and a host, without a user, query or fragment"

StepName = Literal["verify", "peaks", "export", "vcon", "tags", "webhook"]
STEP_NAMES: tuple[StepName, ...] = get_args(StepName)
"""Steps of post-processing, in the order in which they are done."""

STEPS_RULE = f"one or more of {', '.join(STEP_NAMES)}, separated by commas, each once"
QUEUE_RULE = "an SQS queue's URL, http:// or https://"
WEBHOOK_RULE = "an http:// or https:// URL without a user or fragment"
WEBHOOK_KEY_RULE = "whsec_ and 24 to 64 bytes in base64 (Standard Webhooks 1.0)"
WEB_URL_RULE = "https:// and a host, perhaps with a path, without a user, query or fragment"

_BYTES = re.compile(r"(\d+)\s*(?:([KMGT])(?:iB)?|B)?", re.IGNORECASE | re.ASCII)
_SCALE = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}


def bucket(value: object) -> object:
    """Return a bucket's name or URL as it was given, once it can be taken apart."""
    if isinstance(value, str):
        parse_location(value)
    return value


def byte_count(value: object) -> object:
    """Return the bytes that `8388608`, `8M` or `8MiB` means.

    `8MB` is refused: to some it is 8,000,000, to others 8,388,608.
    """
    if not isinstance(value, str) or not (match := _BYTES.fullmatch(value.strip())):
        return value
    return int(match[1]) * _SCALE[(match[2] or "").upper()]


def in_bytes(count: int) -> str:
    """Return a number of bytes as `byte_count` reads it, in the largest unit that is exact."""
    for unit, scale in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if count >= scale and count % scale == 0:
            return f"{count // scale}{unit}"
    return str(count)


def outputs(value: object) -> tuple[str, ...]:
    """Return the names of a comma list, or of a sequence, in the order of `OUTPUT_NAMES`."""
    return listed(OUTPUT_NAMES, value, "output")


def listed(names: tuple[str, ...], value: object, what: str = "step") -> tuple[str, ...]:
    """Return which of `names` a comma list, or a sequence, has, in their order."""
    rule = f"must be one or more of {', '.join(names)}, separated by commas, each once"
    given = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError(rule)
    article = "an" if what[0] in "aeiou" else "a"
    for name in given:
        if name not in names:
            raise ValueError(f"{shown(name)} is no {what}; {rule}")
    if len(set(given)) != len(given):
        raise ValueError(f"names {article} {what} twice; {rule}")
    return tuple(sorted(given, key=names.index))


def pairs(check: Callable[[Mapping[str, str]], dict[str, str]], value: object) -> dict[str, str]:
    """Return what `a=b,c=d`, a JSON object or a mapping holds, if `check` accepts it.

    A value that has a comma of its own can only be written in JSON.
    """
    if isinstance(value, str):
        value = _decoded(value) if value.lstrip().startswith("{") else _split(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"must be {PAIRS_RULE}")
    try:
        return check(value)
    except InvalidName as error:
        raise ValueError(str(error)) from None


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error}); must be {PAIRS_RULE}") from None


def _split(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{shown(item)} has no '='; must be {PAIRS_RULE}")
        if name in found:
            raise ValueError(f"{shown(name)} is given twice; must be {PAIRS_RULE}")
        found[name] = value
    return found


def either(names: tuple[str, ...]) -> str:
    """Return names as a choice: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def one_of(names: tuple[str, ...], value: object) -> object:
    """Return `value` if it is None or one of `names`."""
    if value is not None and value not in names:
        raise ValueError(f"must be one of {', '.join(names)}")
    return value


def folder(value: object) -> object:
    """Return an absolute path: a later change of the current folder must not move it."""
    if not isinstance(value, (str, Path)):
        return value
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # "~name" of a user that is not there
        raise ValueError(f"has no such home folder ({error})") from None


def endpoint(value: object) -> object:
    """Return an endpoint's URL as it was given, if a client can use it."""
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, an unclosed IPv6 address
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"must be {ENDPOINT_RULE}")
    return value


def queue_url(value: object) -> object:
    """Return a queue's URL as it was given, if it can be one."""
    if not _is_url(value):
        raise ValueError(f"must be {QUEUE_RULE}")
    return value


def webhook_url(value: object) -> object:
    """Return where webhooks go, if it can be a URL."""
    if not _is_url(value, query=True):
        raise ValueError(f"must be {WEBHOOK_RULE}")
    return value


def webhook_secret(value: object) -> object:
    """Return a secret as it was given, if `webhook_key` can read it."""
    if isinstance(value, str):
        webhook_key(value)
    return value


def webhook_key(secret: str) -> bytes:
    """Return the bytes of a secret (Standard Webhooks 1.0, "Signature scheme", symmetric).

    Raises:
        ValueError: It is none.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError(f"must be {WEBHOOK_KEY_RULE}")
    return key


def _is_url(value: object, *, query: bool = False) -> bool:
    if not isinstance(value, str):
        return True  # for pydantic to judge
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, an unclosed IPv6 address
        return False
    plain = value.isascii() and value.isprintable() and " " not in value
    return bool(usable and plain and "@" not in parts.netloc) and not (
        parts.fragment or (parts.query and not query)
    )


def web_url(value: object) -> object:
    """Return an address on the web as it was given, without a `/` at its end."""
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme == "https" and parts.hostname and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, an unclosed IPv6 address
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment or not value.isascii():
        raise ValueError(f"must be {WEB_URL_RULE}")
    return value.rstrip("/")
