"""A store that fails on purpose: errors before or after the effect, hangs, refusals, delays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from uploader.errors import StoreError, TransientError
from uploader.store import (
    Body,
    Listing,
    ObjectAttributes,
    ObjectInfo,
    Part,
    Store,
    UploadInfo,
)

T = TypeVar("T")

Fault = Callable[[], BaseException]


def reset(op: str) -> Fault:
    """A connection that breaks."""
    return lambda: TransientError("connection reset", op=op, code="ConnectionReset")


def refusal(kind: type[StoreError], op: str) -> Fault:
    """A permanent answer."""
    return lambda: kind(f"{op} refused", op=op, code=kind.__name__, hint="ask for permission")


class FaultyStore(Store):
    """Passes everything on, but for what was asked to fail.

    Attributes:
        calls: How often each operation was called.
        log: Operations in the order they took effect, with key and part number.
        down: While true, every call fails as if the endpoint was away.
        hangs: While true, calls get no answer.
        dead: Once true, no call has an effect or gets an answer: its process is no more.
        most_parts_at_once: Most requests in flight for one part number of one upload.
        late: Requests that are still on their way, see `delay` and `repeat`.
        hook: Awaited with operation, key and whether it has had its effect, around each call that
            has one; may raise, or not return.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self.log: list[tuple[str, str, int]] = []
        self.down = False
        self.hangs = False
        self.dead = False
        self.most_parts_at_once = 0
        self.late: list[Callable[[], Awaitable[Any]]] = []
        self.hook: Callable[[str, str, bool], Awaitable[None]] | None = None
        self._before: dict[str, list[Fault]] = {}
        self._after: dict[str, list[Fault]] = {}
        self._always: dict[str, Fault] = {}
        self._delayed: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self._in_flight: Counter[tuple[str, int]] = Counter()

    def fail(self, op: str, fault: Fault, times: int = 1) -> None:
        """Fail the next calls of `op` before they have an effect."""
        self._before.setdefault(op, []).extend([fault] * times)

    def lose_answer(self, op: str, fault: Fault | None = None, times: int = 1) -> None:
        """Let the next calls of `op` take effect, and fail all the same."""
        self._after.setdefault(op, []).extend([fault or reset(op)] * times)

    def refuse(self, op: str, fault: Fault | None) -> None:
        """Fail every call of `op` from now on; None ends it."""
        if fault is None:
            self._always.pop(op, None)
        else:
            self._always[op] = fault

    def delay(self, op: str, times: int = 1) -> None:
        """Fail the next calls of `op`; their effect comes with `deliver_late`."""
        self._delayed[op] += times

    def repeat(self, op: str, times: int = 1) -> None:
        """Let the next calls of `op` take effect now, and with `deliver_late` once more."""
        self._repeated[op] += times

    async def deliver_late(self) -> None:
        """Carry out, in order, what was on its way; what it comes to is told to nobody."""
        while self.late:
            with suppress(StoreError):
                await self.late.pop(0)()

    async def _do(self, op: str, key: str, number: int, call: Callable[[], Any]) -> Any:
        self.calls[op] += 1
        await asyncio.sleep(0)
        if self.dead:
            await asyncio.Event().wait()
        while self.hangs:  # noqa: ASYNC110 - cleared from another thread, which an Event is not for
            await asyncio.sleep(0.01)
        if self.down:
            raise reset(op)()
        if op in self._always:
            raise self._always[op]()
        if self._before.get(op):
            raise self._before[op].pop(0)()
        if self._delayed[op]:
            self._delayed[op] -= 1
            self.late.append(call)
            raise reset(op)()
        if self._repeated[op]:
            self._repeated[op] -= 1
            self.late.append(call)
        if self.hook is not None:
            await self.hook(op, key, False)
        result = await call()
        self.log.append((op, key, number))
        if self.hook is not None:
            await self.hook(op, key, True)
        if self.dead:
            await asyncio.Event().wait()
        if self._after.get(op):
            raise self._after[op].pop(0)()
        return result

    def url(self, key: str) -> str:
        return self.inner.url(key)

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc, traceback)

    async def put(
        self,
        key: str,
        body: Body,
        attributes: ObjectAttributes | None = None,
        *,
        checksum: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        op = "put_manifest" if key.endswith("manifest.json") else "put"
        return await self._do(
            op,
            key,
            0,
            lambda: self.inner.put(
                key, body, attributes, checksum=checksum, if_absent=if_absent, if_match=if_match
            ),
        )

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        return await self._do("get", key, 0, lambda: self.inner.get(key, start=start, end=end))

    async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        return await self._do("read", key, 0, lambda: self.inner.read(key))

    async def head(self, key: str) -> ObjectInfo:
        return await self._do("head", key, 0, lambda: self.inner.head(key))

    async def tags(self, key: str) -> dict[str, str]:
        return await self._do("tags", key, 0, lambda: self.inner.tags(key))

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        await self._do("tag", key, 0, lambda: self.inner.tag(key, tags))

    async def list_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        async def collect() -> list[ObjectInfo]:
            return [info async for info in self.inner.list_objects(prefix)]

        for info in await self._do("list_objects", prefix, 0, collect):
            yield info

    async def list_level(self, prefix: str = "") -> Listing:
        return await self._do("list_level", prefix, 0, lambda: self.inner.list_level(prefix))

    async def delete(self, key: str) -> None:
        await self._do("delete", key, 0, lambda: self.inner.delete(key))

    async def create_multipart(self, key: str, attributes: ObjectAttributes | None = None) -> str:
        return await self._do(
            "create_multipart", key, 0, lambda: self.inner.create_multipart(key, attributes)
        )

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, checksum: int | None = None
    ) -> Part:
        self._in_flight[key, number] += 1
        self.most_parts_at_once = max(self.most_parts_at_once, self._in_flight[key, number])
        try:
            return await self._do(
                "upload_part",
                key,
                number,
                lambda: self.inner.upload_part(key, upload_id, number, body, checksum=checksum),
            )
        finally:
            self._in_flight[key, number] -= 1

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        return await self._do("list_parts", key, 0, lambda: self.inner.list_parts(key, upload_id))

    async def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
        async def collect() -> list[UploadInfo]:
            return [upload async for upload in self.inner.list_uploads(prefix)]

        for upload in await self._do("list_uploads", prefix, 0, collect):
            yield upload

    async def complete_multipart(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        checksum: int | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        return await self._do(
            "complete_multipart",
            key,
            0,
            lambda: self.inner.complete_multipart(
                key, upload_id, parts, checksum=checksum, if_absent=if_absent
            ),
        )

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        await self._do(
            "abort_multipart", key, 0, lambda: self.inner.abort_multipart(key, upload_id)
        )
