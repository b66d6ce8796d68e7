"""Tries everything a recording asks of its store, on objects of its own, which are removed.

What is tried here is what `recorder.delivery`, `clean_up`, `recovery` and `catalog` do, with the
settings' own tags, storage class and key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from recorder.doctor import iam
from recorder.doctor.check import Check, Status
from recorder.doctor.refusals import check_of_refusal
from recorder.settings import Settings
from uploader.checksum import combine, crc64nvme
from uploader.errors import (
    Conflict,
    InvalidRequest,
    NoSuchObject,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    Unsupported,
)
from uploader.probe import PREFIX
from uploader.retry import Retrier
from uploader.store import MIN_PART_BYTES, ObjectAttributes, Part, Store

T = TypeVar("T")

AREA = "bucket"
_BODY = b"recorder doctor tries what this store can do; this object may be deleted\n"
_WRONG_ETAG = "00000000000000000000000000000000"
_CLEAN_UP_SECONDS = 15.0


class Wrong(Exception):
    """The store did as it was told, and not what was expected."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing that is tried.

    Attributes:
        name: What it is called.
        grant: The permission it needs.
        status: How bad it is if it does not work.
        without: What follows from that.
    """

    name: str
    grant: iam.Grant
    status: Status
    without: str


PUT = Trial("put", iam.PUT, Status.FAIL, "nothing can be recorded")
TAGGED = Trial("put with tags", iam.TAG, Status.FAIL, "nothing can be recorded with RECORDER_TAGS")
HEAD = Trial("head", iam.GET, Status.WARN, "outputs are not verified")
GET = Trial("get", iam.GET, Status.WARN, "nothing can be recovered or verified")
CONDITIONS = Trial(
    "conditional writes",
    iam.PUT,
    Status.WARN,
    "two owners of a recording cannot be told apart; lost hosts are recovered with --unfenced only",
)
CHECKSUMS = Trial("checksums", iam.GET, Status.WARN, "outputs are verified by their size alone")
LIST = Trial(
    "list", iam.LIST, Status.WARN, "`recorder ls`, `verify` and `recover --bucket` do not work"
)
CREATE = Trial("create upload", iam.PUT, Status.FAIL, "no output can be made")
UPLOADS = Trial(
    "list uploads",
    iam.LIST_UPLOADS,
    Status.WARN,
    "`recorder show` does not see uploads, and recovery leaves those nobody needs",
)
PART = Trial("upload parts", iam.PUT, Status.FAIL, "no output can be made")
PARTS = Trial("list parts", iam.LIST_PARTS, Status.WARN, "recovery sends all parts anew")
COMPLETE = Trial("complete upload", iam.PUT, Status.FAIL, "no output can be made")
ABORT = Trial(
    "abort upload", iam.ABORT, Status.WARN, "uploads that were replaced stay until a rule ends them"
)
DELETE = Trial("delete", iam.DELETE, Status.WARN, "chunks stay beside the outputs, and are billed")


class Trials:
    """Of one store.

    Args:
        store: Open.
        settings: Whose tags and storage class are used.
        retrier: Of all requests.
        token: Makes the keys this run's own.

    Attributes:
        checks: What was found so far.
        left: Keys of objects that could not be removed.
        refusal: Why nothing could be written, if nothing could.
    """

    def __init__(self, store: Store, settings: Settings, retrier: Retrier, token: str) -> None:
        self.checks: list[Check] = []
        self.left: list[str] = []
        self.refusal: StoreError | None = None
        self._store = store
        self._settings = settings
        self._retrier = retrier
        folder = f"{PREFIX}doctor-{token}/"
        self._object, self._tagged = f"{folder}object", f"{folder}tagged"
        self._output = f"{folder}output"
        self._keys: list[str] = []
        self._uploads: list[str] = []
        self._deletes = True
        self._plain = ObjectAttributes(content_type="text/plain", metadata={"recorder-probe": "1"})

    async def run(self) -> None:
        """Try everything; what is found is in `checks`. Objects are removed whatever happens."""
        try:
            if await self._try(PUT, self._put()):
                if self._settings.tags:
                    await self._try(TAGGED, self._put_tagged())
                await self._try(HEAD, self._head())
                await self._try(GET, self._get())
                await self._try(CONDITIONS, self._conditions())
                await self._try(CHECKSUMS, self._checksums())
                await self._try(LIST, self._list())
                await self._try(DELETE, self._delete())
                await self._multipart()
        finally:
            await asyncio.shield(asyncio.ensure_future(self._clean_up()))

    async def _try(self, trial: Trial, work: Awaitable[str]) -> bool:
        try:
            found = await work
        except Wrong as wrong:
            self._note(trial, trial.status, f"{wrong}: {trial.without}")
            return False
        except StoreError as error:
            self.refusal = error if trial is PUT else self.refusal
            self.checks.append(
                check_of_refusal(AREA, trial.name, trial.status, error, trial.grant, trial.without)
            )
            return False
        self._note(trial, Status.OK, found)
        return True

    def _note(self, trial: Trial, status: Status, found: str, fix: str = "") -> None:
        self.checks.append(Check(AREA, trial.name, status, found, fix))

    async def _call(self, fn: Callable[[], Awaitable[T]]) -> T:
        return await self._retrier.call("doctor", fn)

    # -- objects -------------------------------------------------------------------------------

    async def _put(self) -> str:
        self._keys.append(self._object)
        await self._call(lambda: self._store.put(self._object, _BODY, self._plain))
        return self._store.url(self._object).removesuffix("/object")

    async def _put_tagged(self) -> str:
        attributes = replace(self._plain, tags=self._settings.tags)
        self._keys.append(self._tagged)
        await self._call(lambda: self._store.put(self._tagged, _BODY, attributes))
        return ", ".join(f"{name}={value}" for name, value in self._settings.tags.items())

    async def _head(self) -> str:
        info = await self._call(lambda: self._store.head(self._object))
        if info.size != len(_BODY) or info.metadata != self._plain.metadata:
            raise Wrong(f"it tells {info.size} bytes and metadata {dict(info.metadata)}")
        return "size and metadata are told"

    async def _get(self) -> str:
        if await self._call(lambda: self._store.get(self._object, start=9)) != _BODY[9:]:
            raise Wrong("other bytes came back than were sent")
        return "whole objects, and ranges"

    async def _conditions(self) -> str:
        for if_absent, if_match, text in (
            (True, None, "over what is there (If-None-Match)"),
            (False, _WRONG_ETAG, "over another version (If-Match)"),
        ):
            put = partial(
                self._store.put,
                self._object,
                _BODY,
                self._plain,
                if_absent=if_absent,
                if_match=if_match,
            )
            try:
                await self._call(put)
            except (Conflict, PreconditionFailed):
                continue
            except (InvalidRequest, Unsupported) as error:
                raise Wrong(f"the server takes none ({error.code})") from error
            raise Wrong(f"a write that must not go {text} was not refused")
        return "refused where they must be (If-None-Match, If-Match)"

    async def _checksums(self) -> str:
        info = await self._call(lambda: self._store.head(self._object))
        if info.checksum != crc64nvme(_BODY):
            raise Wrong("the server keeps no CRC-64/NVME")
        return "CRC-64/NVME is kept and told"

    async def _list(self) -> str:
        folder = self._object.removesuffix("object")

        async def collect() -> set[str]:
            return {info.key async for info in self._store.list_objects(folder)}

        if self._object not in await self._call(collect):
            raise Wrong("an object that is there is not listed")
        return "objects that were just written are listed"

    async def _delete(self) -> str:
        self._deletes = False
        refused = await self._call(lambda: self._store.delete_many(self._keys))
        for error in refused.values():
            raise error
        self._deletes = True
        try:
            await self._call(lambda: self._store.head(self._object))
        except NoSuchObject:
            self._keys.clear()
            return "objects go, many by one request"
        except StoreError:
            return "objects go, as far as may be looked at"
        raise Wrong("an object that was deleted is still there")

    # -- uploads -------------------------------------------------------------------------------

    async def _multipart(self) -> None:
        if not await self._try(CREATE, self._create()):
            return
        await self._try(UPLOADS, self._list_uploads())
        parts: list[Part] = []
        if await self._try(PART, self._upload_parts(parts)):
            await self._try(PARTS, self._list_parts(parts))
            await self._try(COMPLETE, self._complete(parts))
        await self._try(ABORT, self._abort())

    async def _create(self) -> str:
        attributes = replace(
            self._plain, tags=self._settings.tags, storage_class=self._settings.storage_class
        )
        for _ in range(2):  # one to be completed, one to be aborted
            made = await self._call(lambda: self._store.create_multipart(self._output, attributes))
            self._uploads.append(made)
        kind = self._settings.storage_class or "the bucket's own"
        return f"storage class {kind}"

    async def _list_uploads(self) -> str:
        async def collect() -> set[str]:
            return {info.upload_id async for info in self._store.list_uploads(self._output)}

        if not set(self._uploads) <= await self._call(collect):
            raise Wrong("an upload in progress is not listed")
        return "uploads in progress are listed"

    async def _upload_parts(self, parts: list[Part]) -> str:
        """Send a part of the least size and a tail; a single small one if nothing may be deleted.

        What cannot be removed should not be large.
        """
        bodies = [_BODY] if not self._deletes else [bytes(MIN_PART_BYTES), _BODY]
        began = time.monotonic()
        for number, body in enumerate(bodies, 1):
            part = await self._call(self._part(number, body))
            parts.append(replace(part, checksum=crc64nvme(body)))
        took, size = time.monotonic() - began, sum(map(len, bodies))
        if size < MIN_PART_BYTES:
            return "one small part, since it will stay"
        return f"{size / 2**20:.1f} MiB in {took:.1f} s, {8e-6 * size / took:.0f} Mbit/s"

    def _part(self, number: int, body: bytes) -> Callable[[], Awaitable[Part]]:
        return lambda: self._store.upload_part(self._output, self._uploads[0], number, body)

    async def _list_parts(self, parts: list[Part]) -> str:
        listed = await self._call(lambda: self._store.list_parts(self._output, self._uploads[0]))
        if [(one.number, one.etag) for one in listed] != [(one.number, one.etag) for one in parts]:
            raise Wrong("the parts that were sent are not those that are listed")
        return "acknowledged parts are listed"

    async def _complete(self, parts: list[Part]) -> str:
        whole = combine((part.checksum or 0, part.size) for part in parts)
        self._keys.append(self._output)
        await self._call(
            lambda: self._store.complete_multipart(
                self._output, self._uploads[0], parts, checksum=whole
            )
        )
        self._uploads.pop(0)
        with suppress(StoreError):  # what may be looked at was found before
            info = await self._call(lambda: self._store.head(self._output))
            if info.size != sum(part.size for part in parts) or info.checksum not in (None, whole):
                raise Wrong("another object came of it than was sent")
        return "what was sent is one object"

    async def _abort(self) -> str:
        upload = self._uploads[-1]
        await self._call(lambda: self._store.abort_multipart(self._output, upload))
        self._uploads.remove(upload)
        with suppress(NoSuchUpload, StoreError):
            if await self._call(lambda: self._store.list_parts(self._output, upload)):
                raise Wrong("an upload that was aborted is still there")
        return "an upload that is not needed goes"

    # -- the end -------------------------------------------------------------------------------

    async def _clean_up(self) -> None:
        """Remove what there is; once, and not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                for upload in self._uploads:
                    with suppress(StoreError):
                        await self._store.abort_multipart(self._output, upload)
                for key in list(self._keys):
                    with suppress(StoreError):
                        await self._store.delete(key)
                        self._keys.remove(key)
        self.left = [self._store.url(key) for key in self._keys]
