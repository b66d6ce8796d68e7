"""A recording's `manifest.json` as one compare-and-swapped document with one owner.

What the document says beside its own five fields is the caller's. Those fields are:

    version    of the format
    owner      random token of the process that owns the recording
    epoch      counts changes of owner
    revision   counts writes
    state      of the recording

Every write is conditional on the one before. Losing that condition means one of two things, told
apart by reading: the write was ours and its answer was lost, or somebody else owns the recording.

The document is JSON, a line for each field and for each item of a list of objects: a person can
read it, and the encoder holds the interpreter's lock no longer than for a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from uploader.checksum import crc64nvme
from uploader.context import Context
from uploader.errors import BotRecorderError, NoSuchObject, PreconditionFailed
from uploader.store import ObjectAttributes, ObjectInfo

VERSION = 1
MANIFEST = "manifest.json"
OWN_FIELDS = ("version", "owner", "epoch", "revision")
"""What `ManifestFile` itself writes; the rest is the caller's."""

ATTRIBUTES = ObjectAttributes(content_type="application/json", content_disposition="inline")


class LostOwnership(BotRecorderError):
    """Another process has taken the recording over; this one must not write any more."""


class KeyTaken(BotRecorderError):
    """A recording with this id exists in the bucket already."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest as the store holds it.

    Attributes:
        document: Its content, checked to be a manifest by `parse`.
        etag: Of this version.
    """

    document: dict[str, Any]
    etag: str

    @property
    def version(self) -> tuple[str, int, int]:
        """Who wrote it: owner, epoch and revision, which no two writes share."""
        document = self.document
        return document["owner"], document["epoch"], document["revision"]


class ManifestFile:
    """The document in the store, written by one owner.

    Args:
        context: Store and retries.
        key: Of the document.
        owner: Token of this owner.
    """

    def __init__(self, context: Context, key: str, owner: str) -> None:
        self.key = key
        self.created = False
        self._context = context
        self._owner = owner
        self._epoch = 1
        self._revision = 0
        self._etag: str | None = None
        self._said: int | None = None

    async def create(self, content: Mapping[str, Any]) -> None:
        """Write the first version; nothing may be there.

        Raises:
            KeyTaken: Something is there, and it is not an earlier try of this very call.
            StoreError: Refused, or not to be had before the deadline.
        """
        context = self._context
        conditional = context.capabilities.conditional_writes
        if not conditional and context.capabilities.head and await self._exists():
            raise self._taken()
        said = encode(content)
        body = self._body(said, 1)
        try:
            info = await context.call(
                "put_manifest",
                lambda: context.store.put(self.key, body, ATTRIBUTES, if_absent=conditional),
            )
            self._etag = info.etag
        except PreconditionFailed as error:
            stored = await self.read()
            if stored is None or stored.version != (self._owner, 1, 1):
                raise self._taken() from error
            self._etag = stored.etag
        self._revision = 1
        self._said = crc64nvme(said)
        self.created = True

    async def take_over(self, stored: Stored, changes: Mapping[str, Any] | None = None) -> None:
        """Become the owner, by compare-and-swap, of what another owner or process has left.

        Args:
            stored: The version that is taken over; nothing may have been written since.
            changes: What to change in the content with the same write.

        Raises:
            LostOwnership: Somebody else has written it since.
            StoreError: Refused, or not to be had before the deadline.
        """
        document = stored.document
        content = {name: document[name] for name in document if name not in OWN_FIELDS}
        self._epoch = document["epoch"] + 1
        self._revision = document["revision"]
        self._etag = stored.etag
        await self.write({**content, **(changes or {})})
        self.created = True

    async def write(self, content: Mapping[str, Any], *, if_new: bool = False) -> bool:
        """Replace the document by the next version of it.

        Args:
            content: All but its own fields.
            if_new: Write nothing where that is what this owner has said last.

        Returns:
            Whether it was written.

        Raises:
            LostOwnership: Somebody else has written it since.
            StoreError: Refused, or not to be had before the deadline.
        """
        said = encode(content)
        checksum = crc64nvme(said)
        if if_new and checksum == self._said:
            return False
        self._said = None
        await self._replace(said)
        self._said = checksum
        return True

    async def _replace(self, said: bytes) -> None:
        context = self._context
        conditional = context.capabilities.conditional_writes
        while True:
            # A write given up on may still have landed: its revision is never used again.
            self._revision += 1
            body = self._body(said, self._revision)
            etag = self._etag if conditional else None
            try:
                info = await context.call("put_manifest", partial(self._put, body, etag))
            except PreconditionFailed as error:
                stored = await self.read()
                if stored is None or not self._is_ours(stored):
                    raise LostOwnership(
                        f"{self.key} was changed by another owner",
                        hint="another process has taken this recording over",
                    ) from error
                self._etag = stored.etag
                if stored.version == (self._owner, self._epoch, self._revision):
                    return
                if stored.etag == etag:
                    raise
            else:
                self._etag = info.etag
                return

    async def _put(self, body: bytes, etag: str | None) -> ObjectInfo:
        return await self._context.store.put(self.key, body, ATTRIBUTES, if_match=etag)

    def _body(self, said: bytes, revision: int) -> bytes:
        own = encode(
            {
                "version": VERSION,
                "owner": self._owner,
                "epoch": self._epoch,
                "revision": revision,
            }
        )
        return b"{\n" + own + (b",\n" + said if said else b"") + b"\n}\n"

    async def read(self) -> Stored | None:
        """Return what the store holds, or None for nothing.

        Raises:
            BotRecorderError: It is no manifest, or of a newer version than this program knows.
            StoreError: Refused, or not to be had before the deadline.
        """
        context = self._context
        try:
            body, info = await context.call("get_manifest", lambda: context.store.read(self.key))
        except NoSuchObject:
            return None
        return Stored(parse(body, self.key), info.etag)

    def _is_ours(self, stored: Stored) -> bool:
        """Return whether it was written by this owner, now or in an earlier epoch of its own."""
        owner, epoch, _ = stored.version
        return owner == self._owner and epoch <= self._epoch

    async def _exists(self) -> bool:
        context = self._context
        try:
            await context.call("head", lambda: context.store.head(self.key))
        except NoSuchObject:
            return False
        return True

    def _taken(self) -> KeyTaken:
        return KeyTaken(
            f"a recording exists already at {self._context.store.url(self.key)}",
            hint="give every recording its own id, or none to have one made",
        )


def encode(content: Mapping[str, Any]) -> bytes:
    """Return the fields of a JSON object as lines, without the braces round them."""
    fields = [f" {_json(name)}: {_value(value)}" for name, value in content.items()]
    return ",\n".join(fields).encode()


def _value(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n  " + ",\n  ".join(_json(item) for item in value) + "\n ]"
    return _json(value)


_json = json.JSONEncoder().encode


def parse(body: bytes, key: str) -> dict[str, Any]:
    """Return a manifest document.

    Raises:
        BotRecorderError: It is not one, or of a newer version than this program knows.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise BotRecorderError(f"{key} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BotRecorderError(f"{key} is not a manifest: it is no JSON object")
    missing = [name for name, kind in _KINDS.items() if not _is(document.get(name), kind)]
    if missing:
        raise BotRecorderError(f"{key} is not a manifest: it has no {', '.join(missing)}")
    if document["version"] > VERSION:
        raise BotRecorderError(
            f"{key} has version {document['version']}, this program knows up to {VERSION}",
            hint="update bot-recorder",
        )
    return document


_KINDS = {"epoch": int, "owner": str, "revision": int, "state": str, "version": int}


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
