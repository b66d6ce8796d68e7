"""The manifest: one owner, compare-and-swap, and answers that were lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faulty_store import FaultyStore, reset
from loguru import logger

from uploader.budget import ByteBudget
from uploader.context import Context
from uploader.errors import BotRecorderError, TransientError
from uploader.local import LocalStore
from uploader.manifest import KeyTaken, LostOwnership, ManifestFile, parse
from uploader.probe import Capabilities
from uploader.retry import Deadline, Retrier, RetryPolicy

KEY = "dt=2026-11-23/call/manifest.json"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FaultyStore]:
    async with FaultyStore(LocalStore(tmp_path / "store")) as faulty:
        yield faulty


def make(store: FaultyStore, owner: str, *, attempts: int | None = None) -> ManifestFile:
    async def at_once(seconds: float) -> None:
        pass

    context = Context(
        store=store,
        retrier=Retrier(RetryPolicy(attempts=attempts), sleep=at_once),
        budget=ByteBudget(1),
        capabilities=Capabilities(conditional_writes=True, checksums=True, deletes=True, head=True),
        deadline=Deadline(None),
        recording_id="call",
        log=logger,
        on_failure=lambda failed: None,
    )
    return ManifestFile(context, KEY, owner)


async def stored(store: FaultyStore) -> dict[str, object]:
    return parse(await store.inner.get(KEY), KEY)


async def test_what_was_said_last_is_not_said_again(store: FaultyStore) -> None:
    manifest = make(store, "me", attempts=1)
    await manifest.create({"state": "recording"})
    assert not await manifest.write({"state": "recording"}, if_new=True)
    assert await manifest.write({"state": "recording", "chunks": 1}, if_new=True)
    store.fail("put_manifest", reset("put_manifest"))
    with pytest.raises(TransientError):
        await manifest.write({"state": "recording", "chunks": 2}, if_new=True)
    assert await manifest.write({"state": "recording", "chunks": 1}, if_new=True)  # maybe not there
    assert not await manifest.write({"state": "recording", "chunks": 1}, if_new=True)
    assert await manifest.write({"state": "recording", "chunks": 1})  # a sign of life


async def test_a_person_can_read_it(store: FaultyStore) -> None:
    manifest = make(store, "me")
    chunks = [{"number": 1, "tracks": ["user", "bot"]}, {"number": 2, "tracks": []}]
    content = {"state": "recording", "chunks": chunks, "turns": [], "pauses": [[1, 2]]}
    await manifest.create(content)
    lines = (await store.inner.get(KEY)).decode().splitlines()
    assert ' "state": "recording",' in lines
    assert '  {"number": 1, "tracks": ["user", "bot"]},' in lines
    assert {name: (await stored(store))[name] for name in content} == content


async def test_each_write_is_one_revision_more(store: FaultyStore) -> None:
    manifest = make(store, "me")
    await manifest.create({"state": "recording"})
    await manifest.write({"state": "recording", "chunks": 1})
    await manifest.write({"state": "completed"})
    document = await stored(store)
    assert (document["owner"], document["revision"], document["state"]) == ("me", 3, "completed")


async def test_a_key_that_is_taken_is_not_overwritten(store: FaultyStore) -> None:
    await make(store, "first").create({"state": "recording"})
    with pytest.raises(KeyTaken):
        await make(store, "second").create({"state": "recording"})
    assert (await stored(store))["owner"] == "first"


async def test_who_lost_ownership_stops_and_changes_nothing(store: FaultyStore) -> None:
    manifest = make(store, "first")
    await manifest.create({"state": "recording"})
    taken = {**await stored(store), "owner": "second", "epoch": 2, "revision": 9}
    await store.inner.put(KEY, json.dumps(taken).encode())
    with pytest.raises(LostOwnership):
        await manifest.write({"state": "completed"})
    assert (await stored(store))["owner"] == "second"


async def test_lost_answers_of_our_own_writes_are_recognised(store: FaultyStore) -> None:
    manifest = make(store, "me")
    store.lose_answer("put_manifest")
    await manifest.create({"state": "recording"})
    store.lose_answer("put_manifest", times=1)
    await manifest.write({"state": "recording", "chunks": 7})
    await manifest.write({"state": "completed"})
    assert (await stored(store))["state"] == "completed"


async def test_a_write_given_up_on_that_landed_all_the_same_does_not_pass_for_the_next(
    store: FaultyStore,
) -> None:
    manifest = make(store, "me", attempts=1)
    await manifest.create({"state": "recording"})
    store.lose_answer("put_manifest", reset("put_manifest"))
    with pytest.raises(TransientError):
        await manifest.write({"state": "recording", "chunks": 1})
    await manifest.write({"state": "recording", "chunks": 2})
    assert (await stored(store))["chunks"] == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b'{"state": "completed"}', "has no epoch, owner, revision, version"),
        (
            b'{"version": 99, "owner": "x", "epoch": 1, "revision": 1, "state": "x"}',
            "version 99, this program knows up to 1",
        ),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(body: bytes, message: str) -> None:
    with pytest.raises(BotRecorderError, match=message):
        parse(body, KEY)


async def test_one_of_many_takes_over_and_the_owner_before_has_lost(store: FaultyStore) -> None:
    first = make(store, "first")
    await first.create({"state": "recording", "chunks": 3})
    found = await first.read()
    assert found is not None
    others = [make(store, f"other-{index}") for index in range(4)]
    results = await asyncio.gather(
        *(other.take_over(found, {"recovered": 1}) for other in others), return_exceptions=True
    )
    assert [type(result) for result in results if result is not None] == [LostOwnership] * 3
    document = await stored(store)
    assert document["owner"] == f"other-{results.index(None)}"
    assert (document["epoch"], document["chunks"], document["recovered"]) == (2, 3, 1)
    with pytest.raises(LostOwnership):
        await first.write({"state": "completed"})
    await others[results.index(None)].write({"state": "completed"})


async def test_an_owner_takes_its_own_back_though_a_late_write_of_before_arrives(
    store: FaultyStore,
) -> None:
    before = make(store, "spool")
    await before.create({"state": "recording"})
    found = await before.read()
    assert found is not None
    await before.write({"state": "recording", "chunks": 1})  # sent before the death, landed after
    again = make(store, "spool")
    await again.take_over(found)
    document = await stored(store)
    assert (document["epoch"], document["owner"]) == (2, "spool")
    assert document["revision"] > 2
    await again.write({"state": "completed"})


async def test_a_lost_answer_to_a_takeover_is_no_loss(store: FaultyStore) -> None:
    await make(store, "first").create({"state": "recording"})
    other = make(store, "other")
    found = await other.read()
    assert found is not None
    store.lose_answer("put_manifest")
    await other.take_over(found)
    await other.write({"state": "completed"})
    assert (await stored(store))["state"] == "completed"
