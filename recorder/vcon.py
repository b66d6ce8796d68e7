"""Makes a recording's vCon from what the store has, and keeps it beside the recording.

What stands in it, and by which document, is in `recorder.vcon_document`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from recorder.catalog import Catalog, Document
from recorder.links import Links
from recorder.names import check_recording_id
from recorder.plan import Plan
from recorder.vcon_document import (
    VCON,
    Content,
    NoVcon,
    build,
    content_hash,
    dialog_outputs,
    vcon_uuid,
)
from recorder.verification import UnreadableManifest
from recorder.verification.objects import POLICY, Objects, pieces
from recorder.verification.report import Counts
from uploader import checksum as crc
from uploader.completion import RECORDING_ID
from uploader.errors import BotRecorderError, NoSuchObject, PreconditionFailed
from uploader.retry import Retrier
from uploader.store import ObjectAttributes, Store

__all__ = [
    "VCON",
    "Content",
    "NoVcon",
    "WrittenVcon",
    "build",
    "compose",
    "content_hash",
    "dialog_outputs",
    "vcon_uuid",
    "write_vcon",
]

MEDIA_TYPE = "application/vcon"
"""Section "JSON Format vCon Mediatype"."""

_TRIES = 5


class ContentDiffers(BotRecorderError):
    """An object is not what the manifest says: its hash would vouch for something else."""


@dataclass(frozen=True, slots=True)
class WrittenVcon:
    """What `write_vcon` did.

    Attributes:
        key: The object's key.
        url: Where it is.
        document: What it holds.
        written: Whether it was written; if not, it was there already and says the same.
    """

    key: str
    url: str
    document: dict[str, Any]
    written: bool


async def compose(
    store: Store,
    manifest: Mapping[str, Any],
    *,
    links: Links | None = None,
    outputs: Sequence[str] | None = None,
    originator: str | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Return a recording's vCon. Reads each output it refers to once, in pieces, for its hash.

    Args:
        store: Open.
        manifest: The recording's, as JSON has it.
        links: Where the addresses come from; the store's own if None.
        outputs: See `recorder.vcon_document.dialog_outputs`.
        originator: See `build`.
        now: When it is made; the system's time if None.

    Raises:
        NoVcon: There is nothing to make it of; see `build`.
        NoWebAddress: The outputs have no https address.
        ContentDiffers: An output is not there, or not what the manifest says.
        StoreError: The store refuses, or does not answer.
    """
    links = links or Links(store)
    contents: dict[str, Content] = {}
    chosen = [Document(one) for one in dialog_outputs(manifest, outputs)]
    for one in chosen:  # before anything is read for nothing
        contents[one.text("key")] = Content(await links.url(one.text("key")), "")
    for key, digest in zip(contents, [await _sha512(store, one) for one in chosen], strict=True):
        contents[key] = Content(contents[key].url, content_hash(digest))
    return build(
        manifest,
        contents,
        created_at=now or datetime.now(UTC),
        domain=await links.host(),
        outputs=outputs,
        originator=originator,
    )


async def write_vcon(
    store: Store,
    recording: str | Mapping[str, Any],
    *,
    day: date | None = None,
    base_url: str | None = None,
    presign_seconds: int | None = None,
    outputs: Sequence[str] | None = None,
    originator: str | None = None,
    now: datetime | None = None,
) -> WrittenVcon:
    """Write `vcon.json` into a recording's folder: a conditional put, that may be done again.

    An object that is there keeps its `uuid` and `created_at`, and is replaced only where it says
    something else; of two that write at a time, both see the other's.

    Args:
        store: Open.
        recording: Its id, or its manifest as JSON has it; it must be complete.
        day: Of which day, for an id that was used on several; the newest if None.
        base_url: Address on the web of the store's bucket and prefix, if it is not the store's.
        presign_seconds: Put addresses into it that the store has signed, for at most 7 days.
        outputs: Outputs to refer to; see `recorder.vcon_document.dialog_outputs`.
        originator: Track of who called; see `build`.
        now: The time; the system's if None.

    Raises:
        NoSuchRecording: There is none.
        UnreadableManifest: Its manifest is none.
        NoVcon: There is nothing to make it of; see `build`.
        NoWebAddress: The outputs have no https address.
        ContentDiffers: An output is not there, or not what the manifest says.
        StoreError: The store refuses, or does not answer.
    """
    now = now or datetime.now(UTC)
    manifest = await _manifest(store, recording, day) if isinstance(recording, str) else recording
    plan = Plan.from_dict(manifest)
    links = Links(store, base_url, presign_seconds)
    made = await compose(
        store, manifest, links=links, outputs=outputs, originator=originator, now=now
    )
    key = plan.folder + VCON
    attributes = ObjectAttributes(
        content_type=MEDIA_TYPE,
        content_disposition=f'inline; filename="{check_recording_id(plan.recording_id)}-{VCON}"',
        metadata={**plan.metadata, RECORDING_ID: plan.recording_id},
        tags=plan.tags,
    )
    conditional = manifest.get("conditional_writes") is not False
    retrier = Retrier(POLICY)
    for _ in range(_TRIES):
        there, etag = await _existing(store, key, retrier)
        document = _renewed(made, there)
        if there == document:
            return WrittenVcon(key, store.url(key), document, written=False)
        body = json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8")
        try:
            await retrier.call(
                "put",
                lambda body=body, etag=etag: store.put(  # type: ignore[misc]  # bound at once
                    key,
                    body,
                    attributes,
                    if_absent=conditional and etag is None,
                    if_match=etag if conditional else None,
                ),
            )
        except PreconditionFailed:  # somebody else was quicker, or it was written by a lost answer
            continue
        return WrittenVcon(key, store.url(key), document, written=True)
    raise BotRecorderError(f"{store.url(key)} is being written by somebody else all the time")


async def _manifest(store: Store, recording_id: str, day: date | None) -> Mapping[str, Any]:
    recording = (await Catalog(store).find(check_recording_id(recording_id), day)).recording
    if recording.problem:
        raise UnreadableManifest(recording.problem)
    return recording.manifest.values


async def _existing(
    store: Store, key: str, retrier: Retrier
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the vCon that is there, if it is one, and its ETag."""
    try:
        body, info = await retrier.call("read", lambda: store.read(key))
    except NoSuchObject:
        return None, None
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return (document if isinstance(document, dict) else None), info.etag


def _renewed(made: dict[str, Any], there: dict[str, Any] | None) -> dict[str, Any]:
    """Return a vCon with the identity of the one that is there; just that, if it says the same."""
    if there is None:
        return made
    old = Document(there)
    created = old.time("created_at")
    kept = {}
    try:
        kept["uuid"] = str(uuid.UUID(old.text("uuid")))
    except ValueError:
        return made
    if created is not None:
        kept["created_at"] = old.text("created_at")
    renewed = made | kept
    same = {**renewed, "updated_at": there.get("updated_at")}
    return there if same == there else renewed


async def _sha512(store: Store, output: Document) -> bytes:
    """Return an output's SHA-512, if its bytes are those that the manifest vouches for."""
    key, size = output.text("key"), output.count("bytes")
    digest, checksum, length = hashlib.sha512(), 0, 0

    def take(data: bytes, before: int) -> int:
        digest.update(data)
        return crc.crc64nvme(data, before)

    objects = Objects(store, Counts(), lambda step: None)
    info = await objects.head(key)
    async for _, data in objects.stream(pieces(key, size)):
        checksum = await asyncio.to_thread(take, data, checksum)
        length += len(data)
    told = output.text("checksum")
    there = 0 if info is None else info.size
    if there != size or length != size or (told and crc.encode(checksum) != told):
        found = f"{there} bytes with checksum {crc.encode(checksum)}" if there else "nothing there"
        raise ContentDiffers(
            f"{store.url(key)} is not what the manifest says: {found}, not {size} bytes with "
            f"{told or 'an unknown one'}",
            hint="see what `recorder verify` says of the recording",
        )
    return digest.digest()
