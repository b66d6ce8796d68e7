"""What an S3 server's answers say, read with the care that servers other than AWS need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from uploader import checksum as crc
from uploader.errors import ChecksumError, TransientError
from uploader.store import ObjectInfo, Part


def written_etag(op: str, key: str, answer: Mapping[str, Any]) -> str:
    """Return the ETag of what was written."""
    etag = answer.get("ETag", "")
    if not etag:
        message = f"{op} {key!r}: the answer has no ETag, so it is not from an S3 server"
        raise TransientError(message, op=op, key=key, code="NoETag")
    return unquoted(etag)


def unquoted(etag: str) -> str:
    """Return an ETag without its quotes."""
    return etag.removeprefix("W/").strip('"')


def whole_checksum(answer: Mapping[str, Any]) -> int | None:
    """Return the CRC-64/NVME an answer carries, if it does and it is of the whole."""
    try:
        return crc.decode(answer.get("ChecksumCRC64NVME", ""))
    except ValueError:
        return None


def confirmed(op: str, key: str, sent: int | None, answer: Mapping[str, Any]) -> int | None:
    """Return the checksum the server keeps, if any, after comparing it with the one sent."""
    kept = whole_checksum(answer)
    if sent is not None and kept is not None and kept != sent:
        message = f"{op} {key!r}: the server has the checksum {kept:016x}, not {sent:016x}"
        raise ChecksumError(message, op=op, key=key, code="BadDigest")
    return kept


def info_of(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    """Return what the answer to a HEAD or a GET of the whole object tells of it."""
    return ObjectInfo(
        key=key,
        size=answer["ContentLength"],
        etag=unquoted(answer["ETag"]),
        checksum=whole_checksum(answer),
        content_type=answer.get("ContentType", ""),
        metadata={name.lower(): value for name, value in answer.get("Metadata", {}).items()},
        modified=answer.get("LastModified"),
    )


def newest_parts(listed: Iterable[Mapping[str, Any]]) -> list[Part]:
    """Return each part once, by number: the newest, or none where that cannot be told."""
    newest: dict[int, list[Mapping[str, Any]]] = {}
    for one in listed:
        known = newest.setdefault(one["PartNumber"], [])
        if known and one["LastModified"] > known[0]["LastModified"]:
            known.clear()
        if not known or one["LastModified"] == known[0]["LastModified"]:
            known.append(one)
    return [
        Part(number, found[0]["Size"], unquoted(found[0]["ETag"]), whole_checksum(found[0]))
        for number, found in sorted(newest.items())
        if len({one["ETag"] for one in found}) == 1
    ]
