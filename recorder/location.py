"""Where recordings are kept: the forms in which a user writes it, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from recorder.names import InvalidName, check_prefix

LOCATION_RULE = "a bucket's name, s3://name, s3://name/prefix or file:///folder"

#: Amazon S3 User Guide, "General purpose bucket naming rules".
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IP_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Location:
    """Where recordings are kept.

    Attributes:
        kind: `s3`, or `file` for a local folder.
        bucket: The bucket's name; empty for a local folder.
        path: The local folder, absolute; None for S3.
        prefix: What every key begins with, without slashes at its ends; empty for none.
    """

    kind: Literal["s3", "file"]
    bucket: str
    path: Path | None
    prefix: str

    def __str__(self) -> str:
        root = f"s3://{self.bucket}" if self.path is None else self.path.as_uri()
        return f"{root}/{self.prefix}" if self.prefix else root


def parse_location(bucket: str, prefix: str = "") -> Location:
    """Return what a bucket setting names.

    Args:
        bucket: `name`, `s3://name/prefix` or `file:///folder` (percent-encoded, as URLs are).
        prefix: Added after the URL's own prefix.

    Raises:
        InvalidName: Not one of the forms, not a bucket's name, or not a key prefix.
    """
    scheme, separator, rest = bucket.partition("://")
    if separator and scheme.lower() == "file":
        host, slash, folder = rest.partition("/")
        path = Path("/" + unquote(folder))
        if host not in ("", "localhost") or not slash:
            raise InvalidName("bucket", bucket, "has no absolute folder: write file:///folder")
        if "\0" in str(path) or path == Path("/"):
            raise InvalidName("bucket", bucket, "names no folder: write file:///folder")
        return Location("file", "", path, check_prefix(prefix))
    if separator and scheme.lower() != "s3":
        raise InvalidName("bucket", bucket, f"must be {LOCATION_RULE}")
    name, slash, own_prefix = (rest if separator else bucket).partition("/")
    if slash and not separator:
        reason = f"is a bucket's name with something after it: write s3://{name}/..."
        raise InvalidName("bucket", bucket, reason)
    if not _BUCKET_NAME.fullmatch(name) or ".." in name or _IP_ADDRESS.fullmatch(name):
        reason = (
            f"must be {LOCATION_RULE}; a bucket's name has 3 to 63 of a-z 0-9 . -, a letter or "
            "digit at both ends, no '..', and is no IP address"
        )
        raise InvalidName("bucket", bucket, reason)
    joined = "/".join(part for part in (check_prefix(own_prefix), check_prefix(prefix)) if part)
    return Location("s3", name, None, check_prefix(joined))
