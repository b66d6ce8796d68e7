"""What a store can do is found out by trying."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from uploader.errors import (
    AccessDenied,
    Conflict,
    InvalidRequest,
    NoSuchBucket,
    StoreError,
    TransientError,
    Unsupported,
    WrongRegion,
)
from uploader.local import LocalStore
from uploader.probe import PREFIX, Capabilities, probe
from uploader.retry import Retrier, RetryPolicy
from uploader.store import Body, ObjectAttributes, ObjectInfo

EVERYTHING = Capabilities(conditional_writes=True, checksums=True, deletes=True, head=True)
KEY = f"{PREFIX}probe-token"

Refusal = Callable[[dict[str, Any]], StoreError | None]


class LesserStore(LocalStore):
    """A store that lacks abilities.

    Attributes:
        refuse: By operation: what its arguments are refused with.
        ignores: Conditions of a put that are ignored.
        tells: What is said of an object, from what it is.
    """

    refuse: dict[str, Refusal]
    ignores: frozenset[str]
    tells: Callable[[ObjectInfo], ObjectInfo]

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.refuse = {}
        self.ignores = frozenset()
        self.tells = lambda info: info
        self.calls: Counter[str] = Counter()

    def _check(self, op: str, **arguments: Any) -> None:
        self.calls[op] += 1
        error = self.refuse.get(op, lambda _: None)(arguments)
        if error is not None:
            raise error

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
        self._check("put", if_absent=if_absent, if_match=if_match)
        return await super().put(
            key,
            body,
            attributes,
            checksum=checksum,
            if_absent=if_absent and "if_absent" not in self.ignores,
            if_match=None if "if_match" in self.ignores else if_match,
        )

    async def head(self, key: str) -> ObjectInfo:
        self._check("head")
        return self.tells(await super().head(key))

    async def delete(self, key: str) -> None:
        self._check("delete")
        await super().delete(key)

    async def left(self) -> list[str]:
        return [info.key async for info in self.list_objects()]


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[LesserStore]:
    async with LesserStore(tmp_path / "store") as opened:
        yield opened


def always(kind: type[StoreError]) -> Refusal:
    return lambda _: kind("refused", op="test", code=kind.__name__)


def conditional(kind: type[StoreError]) -> Refusal:
    def refuse(arguments: dict[str, Any]) -> StoreError | None:
        if arguments["if_absent"] or arguments["if_match"] is not None:
            return kind("refused", op="put", code=kind.__name__)
        return None

    return refuse


async def test_a_store_that_can_do_everything(store: LesserStore) -> None:
    assert await probe(store, None, "token") == EVERYTHING
    assert await store.left() == []
    assert store.calls == {"put": 3, "head": 1, "delete": 1}


async def test_it_asks_through_the_retry_layer(store: LesserStore) -> None:
    failures = Counter[str]()

    def once(op: str) -> Refusal:
        def refuse(_: dict[str, Any]) -> StoreError | None:
            failures[op] += 1
            return TransientError("busy", op=op) if failures[op] == 1 else None

        return refuse

    for op in ("put", "head", "delete"):
        store.refuse[op] = once(op)
    retrier = Retrier(RetryPolicy(base_seconds=0.0))
    assert await probe(store, retrier, "token") == EVERYTHING
    assert retrier.counts["probe"].retries == 3


@pytest.mark.parametrize("ignored", [{"if_absent"}, {"if_match"}, {"if_absent", "if_match"}])
async def test_conditions_that_are_ignored(store: LesserStore, ignored: set[str]) -> None:
    store.ignores = frozenset(ignored)
    assert await probe(store, None, "token") == replace(EVERYTHING, conditional_writes=False)
    assert await store.left() == []


@pytest.mark.parametrize("kind", [Unsupported, InvalidRequest])
async def test_conditions_that_are_refused(store: LesserStore, kind: type[StoreError]) -> None:
    store.refuse["put"] = conditional(kind)
    assert await probe(store, None, "token") == replace(EVERYTHING, conditional_writes=False)
    assert await store.left() == []


async def test_if_match_that_is_refused(store: LesserStore) -> None:
    def refuse(arguments: dict[str, Any]) -> StoreError | None:
        return None if arguments["if_match"] is None else Unsupported("no", op="put")

    store.refuse["put"] = refuse
    assert await probe(store, None, "token") == replace(EVERYTHING, conditional_writes=False)


async def test_a_conflict_is_a_refusal_to_overwrite(store: LesserStore) -> None:
    def refuse(arguments: dict[str, Any]) -> StoreError | None:
        return None if arguments["if_match"] is None else Conflict("busy", op="put")

    store.refuse["put"] = refuse
    assert await probe(store, None, "token") == EVERYTHING


async def test_an_object_that_is_there_already(store: LesserStore) -> None:
    """Of this very probe: its first request took effect, and the answer was lost."""
    real = store.put
    seen = []

    async def put(*args: Any, **options: Any) -> ObjectInfo:
        info = await real(*args, **options)
        seen.append(info)
        if len(seen) == 1:
            raise TransientError("reset", op="put")
        return info

    store.put = put  # type: ignore[method-assign]  # a fault on its way back
    assert await probe(store, Retrier(RetryPolicy(base_seconds=0.0)), "token") == EVERYTHING
    assert await store.left() == []


async def test_without_permission_to_delete(store: LesserStore) -> None:
    store.refuse["delete"] = always(AccessDenied)
    assert await probe(store, None, "token") == replace(EVERYTHING, deletes=False)
    assert await store.left() == [KEY]


@pytest.mark.parametrize("kind", [AccessDenied, Unsupported, InvalidRequest])
async def test_without_head(store: LesserStore, kind: type[StoreError]) -> None:
    store.refuse["head"] = always(kind)
    expected = replace(EVERYTHING, head=False, checksums=False)
    assert await probe(store, None, "token") == expected
    assert await store.left() == []


async def test_without_checksums(store: LesserStore) -> None:
    for wrong in (None, 12345):
        store.tells = lambda info, wrong=wrong: replace(info, checksum=wrong)
        assert await probe(store, None, "token") == replace(EVERYTHING, checksums=False)


async def test_a_head_that_tells_too_little_is_none(store: LesserStore) -> None:
    expected = replace(EVERYTHING, head=False, checksums=False)
    store.tells = lambda info: replace(info, metadata={})
    assert await probe(store, None, "token") == expected
    store.tells = lambda info: replace(info, size=0)
    assert await probe(store, None, "token") == expected


@pytest.mark.parametrize("kind", [AccessDenied, NoSuchBucket, WrongRegion, TransientError])
async def test_a_store_that_cannot_be_written(store: LesserStore, kind: type[StoreError]) -> None:
    store.refuse["put"] = always(kind)
    with pytest.raises(kind):
        await probe(store, None, "token")


@pytest.mark.parametrize("op", ["put", "head"])
async def test_an_error_in_the_middle_leaves_nothing_behind(store: LesserStore, op: str) -> None:
    store.refuse[op] = lambda arguments: (
        None if arguments.get("if_absent") else TransientError("busy", op=op)
    )
    before = asyncio.all_tasks()
    with pytest.raises(TransientError):
        await probe(store, None, "token")
    assert asyncio.all_tasks() == before
    assert await store.left() == []


async def test_a_cancel_leaves_nothing_behind(store: LesserStore) -> None:
    asked = asyncio.Event()

    async def hang(key: str) -> ObjectInfo:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    store.head = hang  # type: ignore[method-assign]  # a server that never answers
    before = asyncio.all_tasks()
    task = asyncio.create_task(probe(store, None, "token"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    assert await store.left() == []


async def test_probes_do_not_meet(store: LesserStore) -> None:
    found = await asyncio.gather(*(probe(store, None, f"t{number}") for number in range(5)))
    assert set(found) == {EVERYTHING}
