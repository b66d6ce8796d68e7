"""What lies in a recording's folder and should not: unknown objects, uploads nobody finished."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recorder.catalog import Details
from recorder.verification.claims import Claims
from recorder.verification.report import Ledger
from uploader.store import ObjectInfo

#: What may be there while a recording is not final, before its manifest tells of it.
_UNTOLD = re.compile(r"chunks/(\d{6,}|open)\.wav|turns/[^/]+|peaks\.json")


def look_for_others(
    everything: Sequence[Claims], objects: Mapping[str, ObjectInfo], ledger: Ledger
) -> None:
    """Enter the objects that the manifests do not name, or say to be deleted.

    Args:
        everything: What the recording's manifest claims, and those of its continuations.
        objects: All objects in the recording's folder.
        ledger: Where findings go.
    """
    root = everything[0]
    leftovers = {key for claims in everything for key in claims.leftovers} & objects.keys()
    if leftovers:
        noted = f"{len(leftovers)} superfluous objects, listed as leftovers, are still there"
        ledger.notes.append(noted)
    read = {claims.folder for claims in everything}
    unread = tuple(one.folder for one in root.continuations if one.folder not in read)
    listed = {claims.folder: _chunks(claims) for claims in everything}
    for key, info in objects.items():
        if key in leftovers or key.startswith(unread):
            continue
        claims = _owner(everything, key)
        found = f"an object of {info.size} bytes"
        if key in claims.named:
            continue
        lost = listed[claims.folder].get(key)
        if lost is None:
            untold = not claims.final and _UNTOLD.fullmatch(key.removeprefix(claims.folder))
            ledger.holds(bool(untold), key, "object", "none, as no manifest names it", found)
        elif lost:
            ledger.notes.append(f"{key} is there, although its chunk is listed as lost")
        else:
            ledger.holds(claims.kept, key, "object", "none, as chunks are not kept", found)


def look_for_uploads(everything: Sequence[Claims], details: Details, ledger: Ledger) -> None:
    """Enter the multipart uploads in progress where all is said to be complete."""
    uploads = details.recording.uploads
    if uploads is None:
        ledger.notes.append("no permission to list uploads in progress: there may be some")
        return
    for upload, parts in zip(uploads, details.parts, strict=True):
        if parts is not None and _owner(everything, upload.key).final:
            size = sum(part.size for part in parts)
            found = f"{upload.upload_id} with {len(parts)} parts of {size} bytes"
            ledger.holds(False, upload.key, "upload in progress", "none", found)


def _chunks(claims: Claims) -> dict[str, bool]:
    """Return whether each chunk's audio is lost, by key."""
    return {chunk.wanted.key: chunk.lost for chunk in claims.chunks}


def _owner(everything: Sequence[Claims], key: str) -> Claims:
    """Return the recording or continuation in whose folder something lies."""
    return next((late for late in everything[1:] if key.startswith(late.folder)), everything[0])
