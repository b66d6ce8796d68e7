"""An upload that another owner, or an earlier process, began: gone on with, and never mixed up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faulty_store import FaultyStore, refusal
from test_upload_faults import DATA, KEY, PART, Memory, finished, make

from uploader.checksum import crc64nvme
from uploader.errors import AccessDenied, NoSuchUpload
from uploader.local import LocalStore
from uploader.parts import PartDiffers
from uploader.store import Part
from uploader.upload import Upload


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FaultyStore]:
    async with FaultyStore(LocalStore(tmp_path / "store")) as faulty:
        yield faulty


def numbers(store: FaultyStore) -> list[int]:
    return sorted(number for op, _, number in store.log if op == "upload_part")


async def begun(store: FaultyStore, available: int = 3 * PART) -> Upload:
    """An upload whose owner died; what it had sent is forgotten by the log."""
    upload, _, _ = make(store)
    await upload.advance(available)
    store.log.clear()
    return upload


def known(upload: Upload) -> tuple[str, dict[int, Part]]:
    assert upload.upload_id is not None
    return upload.upload_id, dict(upload.parts)


async def test_known_parts_are_neither_read_nor_sent_again(store: FaultyStore) -> None:
    before = await begun(store)
    upload, source, _ = make(store)
    await upload.adopt(*known(before))
    await finished(store, upload)
    assert numbers(store) == [1, 4]
    assert sorted(source.reads) == [(0, PART), (3 * PART, len(DATA))]


async def test_parts_nobody_noted_are_compared_and_used(store: FaultyStore) -> None:
    before = await begun(store)
    upload, _, _ = make(store)
    await upload.adopt(known(before)[0], {})
    await finished(store, upload)
    assert numbers(store) == [1, 4]


async def test_a_noted_part_the_store_has_no_more_is_sent_again(store: FaultyStore) -> None:
    before = await begun(store, 2 * PART)
    upload_id, parts = known(before)
    parts[3] = Part(3, PART, "no such part", crc64nvme(DATA[2 * PART : 3 * PART]))
    upload, _, _ = make(store)
    await upload.adopt(upload_id, parts)
    await finished(store, upload)
    assert numbers(store) == [1, 3, 4]


@pytest.mark.parametrize("number", [1, 4])
async def test_other_bytes_under_a_number_mean_a_new_upload(
    store: FaultyStore, number: int
) -> None:
    """Header and tail depend on the length, and the owner before may have known another."""
    before = await begun(store)
    upload_id, parts = known(before)
    start = (number - 1) * PART
    await store.inner.upload_part(KEY, upload_id, number, b"x" * min(PART, len(DATA) - start))
    upload, _, _ = make(store)
    await upload.adopt(upload_id, parts)
    await upload.prepare(len(DATA))
    assert upload.superseded == [upload_id]
    assert upload.upload_id != upload_id
    info = await upload.finish(len(DATA))
    assert info.size == len(DATA)
    assert await store.inner.get(KEY) == DATA
    await upload.drop_superseded()
    assert [one async for one in store.inner.list_uploads()] == []
    with pytest.raises(NoSuchUpload):
        await store.inner.list_parts(KEY, upload_id)


async def test_the_same_bytes_under_every_number_leave_only_complete_to_do(
    store: FaultyStore,
) -> None:
    before = await begun(store)
    await before.prepare(len(DATA))
    store.log.clear()
    upload, _, _ = make(store)
    await upload.adopt(*known(before))
    await finished(store, upload)
    assert numbers(store) == []


@pytest.mark.parametrize("listed", [True, False], ids=["there", "gone"])
async def test_parts_that_depend_on_another_length_are_not_used(
    store: FaultyStore, listed: bool
) -> None:
    """Their owner died before its length was final, and the next one has more."""
    shorter = DATA[:-1000]
    before, _, _ = make(store, shorter)
    await before.prepare(len(shorter))
    upload_id, parts = known(before)
    if not listed:
        await store.inner.abort_multipart(KEY, upload_id)
    upload, _, _ = make(store)
    await upload.adopt(upload_id, parts)
    info = await upload.finish(len(DATA))
    assert info.size == len(DATA)
    assert await store.inner.get(KEY) == DATA


async def test_a_header_of_another_length_is_not_used(store: FaultyStore) -> None:
    before, _, _ = make(store, b"header" + DATA[6:])
    await before.prepare(len(DATA))
    upload, _, _ = make(store)
    await upload.adopt(*known(before))
    await upload.finish(len(DATA))
    assert await store.inner.get(KEY) == DATA


async def test_an_upload_that_was_completed_by_its_owner_is_found_so(store: FaultyStore) -> None:
    before = await begun(store)
    await before.finish(len(DATA))
    store.log.clear()
    upload, source, _ = make(store)
    await upload.adopt(*known(before))
    await finished(store, upload)
    assert numbers(store) == []
    assert source.reads == []


async def test_an_upload_that_is_gone_is_made_anew(store: FaultyStore) -> None:
    before = await begun(store)
    upload_id, parts = known(before)
    await store.inner.abort_multipart(KEY, upload_id)
    upload, _, _ = make(store)
    await upload.adopt(upload_id, parts)
    await finished(store, upload)
    assert numbers(store) == [1, 2, 3, 4]


async def test_what_cannot_be_compared_is_not_trusted(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checksum, and an ETag that is no digest: S3 with a key of KMS."""
    before = await begun(store)
    await before.prepare(len(DATA))
    upload_id, _ = known(before)

    async def opaque(key: str, upload: str) -> list[Part]:
        parts = await store.inner.list_parts(key, upload)
        return [Part(part.number, part.size, f"{part.number}" * 32, None) for part in parts]

    monkeypatch.setattr(store, "list_parts", opaque)
    store.log.clear()
    upload, _, _ = make(store)
    await upload.adopt(upload_id, {})
    info = await upload.finish(len(DATA))
    assert info.size == len(DATA)
    assert upload.superseded == [upload_id]
    assert await store.inner.get(KEY) == DATA


class ManyFold(Memory):
    """Other bytes may hold the same; these are not known to."""

    def recognizes(self, _head: bytes, _tail: bytes) -> bool:
        return False


@pytest.mark.parametrize("many_fold", [False, True])
async def test_whole_parts_nobody_can_compare_are_sent_again_or_the_upload_made_anew(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch, many_fold: bool
) -> None:
    """Anew where another owner may have had other bytes for the same content."""
    upload_id, _ = known(await begun(store))

    async def opaque(key: str, upload: str) -> list[Part]:
        parts = await store.inner.list_parts(key, upload)
        return [Part(part.number, part.size, f"{part.number}" * 32, None) for part in parts]

    with monkeypatch.context() as patched:
        patched.setattr(store, "list_parts", opaque)
        upload, _, _ = make(store, kind=ManyFold if many_fold else Memory)
        await upload.adopt(upload_id, {})
    if many_fold:
        with pytest.raises(PartDiffers):
            await upload.advance(3 * PART)
    else:
        await upload.advance(3 * PART)
    assert (numbers(store) == []) is many_fold
    await upload.finish(len(DATA))
    assert upload.superseded == ([upload_id] if many_fold else [])
    assert await store.inner.get(KEY) == DATA


async def test_it_is_made_anew_once_and_not_for_ever(
    store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, _, _ = make(store)

    async def differs(*_: object) -> None:
        raise PartDiffers("part 1 differs")

    monkeypatch.setattr(upload._found, "compare", differs)
    with pytest.raises(PartDiffers):
        await upload.prepare(len(DATA))
    assert store.calls["create_multipart"] == 2


async def test_an_answer_lost_to_create_makes_the_upload_doubtful(store: FaultyStore) -> None:
    upload, _, _ = make(store)
    assert not upload.doubtful
    store.lose_answer("create_multipart")
    await upload.create()
    assert upload.doubtful
    assert len([one async for one in store.inner.list_uploads()]) == 2


async def test_parts_that_may_not_be_listed_are_not_sent_over(store: FaultyStore) -> None:
    before = await begun(store)
    upload, _, _ = make(store)
    store.refuse("list_parts", refusal(AccessDenied, "list_parts"))
    await upload.adopt(*known(before))
    info = await upload.finish(len(DATA))
    assert info.size == len(DATA)
    assert await store.inner.get(KEY) == DATA
    assert upload.superseded == [before.upload_id]
