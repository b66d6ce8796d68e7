"""What recordings there are, read from a store that others write to as well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from recorder.catalog import Catalog, Document, NoSuchRecording, id_time
from uploader.errors import AccessDenied, TransientError
from uploader.local import LocalStore
from uploader.retry import RetryPolicy
from uploader.store import MIN_PART_BYTES, ObjectInfo, UploadInfo

QUICK = RetryPolicy(attempts=2, base_seconds=0.001)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    async with LocalStore(tmp_path / "bucket") as opened:
        yield opened


def document(started_at: str = "", **changes: Any) -> dict[str, Any]:
    own = {"version": 1, "owner": "x", "epoch": 1, "revision": 1, "state": "completed"}
    return {**own, "started_at": started_at, **changes}


async def put(store: LocalStore, day: str, name: str, content: object = None) -> None:
    body = document() if content is None else content
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    await store.put(f"dt={day}/{name}/manifest.json", raw)


def ids(page: Any) -> list[str]:
    return [recording.recording_id for recording in page.recordings]


async def test_newest_first_over_days_and_within_one(store: LocalStore) -> None:
    await put(store, "2026-11-22", "zulu", document("2026-11-22T23:59:59+00:00"))
    await put(store, "2026-11-23", "alpha", document("2026-11-23T10:00:00+00:00"))
    await put(store, "2026-11-23", "20261123T110000Z-aa", document("2026-11-23T11:00:00+00:00"))
    await put(store, "2026-11-23", "bravo", document("2026-11-23T12:00:00+00:00"))
    page = await Catalog(store).newest(10)
    assert ids(page) == ["bravo", "20261123T110000Z-aa", "alpha", "zulu"]
    assert not page.more


@pytest.mark.parametrize(("limit", "more"), [(1, True), (3, True), (4, False), (5, False)])
async def test_the_limit_counts_over_days(store: LocalStore, limit: int, more: bool) -> None:
    expected = []
    for day in (23, 22):
        for hour in (11, 10):
            name = f"202611{day}T{hour}0000Z-aa"
            await put(store, f"2026-11-{day}", name)
            expected.append(name)
    page = await Catalog(store).newest(limit)
    assert ids(page) == expected[:limit]
    assert page.more is more


async def test_of_timed_ids_only_those_shown_are_read(store: LocalStore) -> None:
    read = []

    class Counting(LocalStore):
        async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
            read.append(key)
            return await super().read(key)

    for minute in range(30):
        await put(store, "2026-11-23", f"20261123T10{minute:02d}00Z-aa")
    page = await Catalog(Counting(store.root)).newest(3)
    assert ids(page) == [f"20261123T10{minute}00Z-aa" for minute in (29, 28, 27)]
    assert len(read) == 3


async def test_one_day(store: LocalStore) -> None:
    await put(store, "2026-11-22", "a")
    await put(store, "2026-11-23", "b")
    assert ids(await Catalog(store).newest(10, date(2026, 11, 22))) == ["a"]
    assert ids(await Catalog(store).newest(10, date(2026, 1, 1))) == []


async def test_what_is_no_recording_is_not_listed(store: LocalStore) -> None:
    await store.put("notes/readme.txt", b"x")
    await store.put("dt=yesterday/a/manifest.json", b"x")
    await put(store, "2026-11-23", "a")
    assert ids(await Catalog(store).newest(10)) == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        {"state": "completed"},
        document(version=99),
        document(version="1"),
        document(version=None),
    ],
    ids=lambda content: repr(content)[:30],
)
async def test_a_manifest_that_cannot_be_read_does_not_hide_the_others(
    store: LocalStore, content: object
) -> None:
    await put(store, "2026-11-23", "bad", content)
    await put(store, "2026-11-23", "good", document("2026-11-23T10:00:00+00:00"))
    page = await Catalog(store).newest(10)
    assert ids(page) == ["good", "bad"]
    assert page.recordings[1].state == "unreadable"
    assert page.recordings[1].problem


async def test_a_folder_without_a_manifest_is_listed_as_such(store: LocalStore) -> None:
    await store.put("dt=2026-11-23/lost/chunks/000001.wav", b"x")
    (recording,) = (await Catalog(store).newest(10)).recordings
    assert (recording.state, recording.problem) == ("unreadable", "there is no manifest.json")


async def test_values_of_the_wrong_kind_count_as_not_said() -> None:
    found = Document(
        {
            "text": 5,
            "number": "5",
            "flag": 1,
            "true": True,
            "items": [1, {"a": 1}, None],
            "no items": {"a": 1},
            "inf": float("inf"),
            "pairs": ["a"],
            "time": "2026-11-23T10:00:00",
            "first day": "0001-01-01T00:00:00+23:00",
        }
    )
    assert found.text("text") == found.text("none") == ""
    assert found.number("number") == found.number("inf") == found.number("true") == 0
    assert not found.flag("flag")
    assert found.flag("true")
    assert [item.values for item in found.items("items")] == [{"a": 1}]
    assert found.items("no items") == found.items("none") == []
    assert found.pairs("pairs") == {}
    assert found.time("time") is None
    assert found.time("first day") is None


async def test_uploads_in_progress_are_counted_by_recording(store: LocalStore) -> None:
    for name in ("a", "b"):
        await put(store, "2026-11-23", name)
    await store.create_multipart("dt=2026-11-23/a/audio.wav")
    await store.create_multipart("dt=2026-11-23/a/user.wav")
    await store.create_multipart("dt=2026-11-23/other/user.wav")
    page = await Catalog(store).newest(10)
    counted = {one.recording_id: len(one.uploads or []) for one in page.recordings}
    assert counted == {"a": 2, "b": 0}


class NoListUploads(LocalStore):
    async def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
        raise AccessDenied("no", op="list_uploads")
        yield


async def test_uploads_that_may_not_be_listed_are_not_known(store: LocalStore) -> None:
    await put(store, "2026-11-23", "a")
    catalog = Catalog(NoListUploads(store.root))
    (recording,) = (await catalog.newest(10)).recordings
    assert recording.uploads is None
    details = await catalog.find("a")
    assert (details.recording.uploads, details.parts) == (None, [])


async def test_everything_of_one_recording(store: LocalStore) -> None:
    await put(store, "2026-11-23", "a", document(samples=7))
    await put(store, "2026-11-23", "ab")
    await store.put("dt=2026-11-23/a/chunks/000001.wav", b"123")
    upload = await store.create_multipart("dt=2026-11-23/a/audio.wav")
    for number in (2, 1):
        await store.upload_part("dt=2026-11-23/a/audio.wav", upload, number, bytes(MIN_PART_BYTES))
    details = await Catalog(store).find("a")
    assert details.recording.manifest.count("samples") == 7
    assert [key.removeprefix("dt=2026-11-23/a/") for key in details.objects] == [
        "chunks/000001.wav",
        "manifest.json",
    ]
    ((first, second),) = [parts or [] for parts in details.parts]
    assert (first.number, second.number, first.size) == (1, 2, MIN_PART_BYTES)
    assert details.other_days == []


async def test_an_upload_that_ends_meanwhile(store: LocalStore) -> None:
    class Ending(LocalStore):
        async def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
            async for upload in super().list_uploads(prefix):
                await store.abort_multipart(upload.key, upload.upload_id)
                yield upload

    await put(store, "2026-11-23", "a")
    await store.create_multipart("dt=2026-11-23/a/audio.wav")
    assert (await Catalog(Ending(store.root)).find("a")).parts == [None]


async def test_the_newest_of_an_id_used_on_many_days(store: LocalStore) -> None:
    for day in (21, 23, 22):
        await put(store, f"2026-11-{day}", "call", document(samples=day))
    details = await Catalog(store).find("call")
    assert (details.recording.day, details.recording.manifest.count("samples")) == (
        "2026-11-23",
        23,
    )
    assert details.other_days == ["2026-11-22", "2026-11-21"]
    chosen = await Catalog(store).find("call", date(2026, 11, 21))
    assert (chosen.recording.day, chosen.other_days) == ("2026-11-21", [])


async def test_an_id_that_begins_with_a_time_may_lie_on_another_day(store: LocalStore) -> None:
    await put(store, "2026-11-24", "20261123T235959Z-aa")
    details = await Catalog(store).find("20261123T235959Z-aa")
    assert details.recording.day == "2026-11-24"


async def test_no_such_recording(store: LocalStore) -> None:
    await put(store, "2026-11-23", "a")
    with pytest.raises(NoSuchRecording, match="'b'"):
        await Catalog(store).find("b")
    with pytest.raises(NoSuchRecording):
        await Catalog(store).find("a", date(2026, 11, 22))


async def test_a_request_that_fails_once_is_tried_again(store: LocalStore) -> None:
    failures = 1

    class Failing(LocalStore):
        async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
            nonlocal failures
            if failures:
                failures -= 1
                raise TransientError("busy", op="read")
            return await super().read(key)

    await put(store, "2026-11-23", "a")
    assert (await Catalog(Failing(store.root), QUICK).find("a")).recording.state == "completed"


async def test_reads_at_the_same_time_are_bounded(store: LocalStore) -> None:
    at_once = most = 0

    class Slow(LocalStore):
        async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            try:
                return await super().read(key)
            finally:
                at_once -= 1

    for number in range(40):
        await put(store, "2026-11-23", f"call-{number}")
    assert len((await Catalog(Slow(store.root)).newest(100)).recordings) == 40
    assert 1 < most <= 16


@pytest.mark.parametrize(
    ("recording_id", "time"),
    [
        ("20261123T130447Z-1f9c2a7b30d4", datetime(2026, 11, 23, 13, 4, 47, tzinfo=UTC)),
        ("20261323T130447Z-1f9c2a7b30d4", None),
        ("20261123T130447Z", None),
        ("call-20261123T130447Z-aa", None),
        ("", None),
    ],
)
def test_the_time_an_id_begins_with(recording_id: str, time: datetime | None) -> None:
    assert id_time(recording_id) == time
