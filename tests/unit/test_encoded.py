"""Encoded parts: in order, kept until they are in the store, made anew as the same bytes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from recorder import encoded
from recorder.chunk_reader import ChunkReader
from recorder.chunks import Chunk
from recorder.containers import codec, container
from recorder.containers.flac import HEAD_BYTES, parse_streaminfo
from recorder.encoded import EncodedSource
from recorder.encoded_parts import EncodedParts
from recorder.outputs import OutputSpec
from recorder.quota import SpoolQuota
from uploader.checksum import crc64nvme
from uploader.errors import NoSuchObject
from uploader.parts import PartDiffers
from uploader.store import Part

T = TypeVar("T")
RATE, CHUNK, PART = 8_000, 20_000, 30_000
WAV, STEREO = container("wav"), OutputSpec("stereo", "audio.flac", "stereo")


@pytest.fixture
def quota() -> SpoolQuota:
    return SpoolQuota(1 << 30)


class World:
    """Chunks of noise, in files or in a store, and an output made of them."""

    def __init__(self, folder: Path, quota: SpoolQuota, chunks: int = 8) -> None:
        self.folder = folder
        self.quota = quota
        self.sealed: list[Chunk] = []
        self.there: dict[int, Part] = {}
        self.read_from: list[int] = []
        self.bodies: dict[int, bytes] = {}
        self.noise = np.random.default_rng(4).integers(
            -9_000, 9_000, (chunks * CHUNK, 2), dtype=np.int16
        )
        for number in range(1, chunks + 1):
            frames = self.noise[(number - 1) * CHUNK : number * CHUNK]
            body = WAV.header(CHUNK, RATE, 2) + frames.tobytes()
            chunk = Chunk(
                number,
                (number - 1) * CHUNK,
                CHUNK,
                ("user", "bot"),
                len(body),
                crc64nvme(body),
            )
            self.sealed.append(chunk)
            self.path(chunk).write_bytes(body)
        self.reader = ChunkReader(self.sealed, self.path, self.fetch, self.in_thread, self.gone)

    def path(self, chunk: Chunk) -> Path:
        return self.folder / chunk.name

    async def fetch(self, chunk: Chunk) -> bytes:
        self.read_from.append(chunk.number)
        if chunk.number not in self.bodies:
            raise NoSuchObject("not there", op="get", key=chunk.name)
        return self.bodies[chunk.number]

    def gone(self, number: int) -> None:
        raise AssertionError(f"chunk {number} is there")

    async def in_thread(self, function: Callable[[], T]) -> T:
        return function()

    def source(self, name: str = "flac", kept: EncodedParts | None = None) -> EncodedSource:
        self.kept = kept or EncodedParts(self.folder / "encoded", f"audio.{name}", self.quota)
        form = codec(name)
        assert form is not None
        spec = replace(STEREO, file=f"audio.{name}")
        return EncodedSource(
            spec,
            form,
            RATE,
            256_000,
            PART,
            self.reader,
            self.kept,
            self.there.get,
            asyncio.Semaphore(1),
        )

    def store_part(self, number: int, body: bytes) -> None:
        self.there[number] = Part(number, len(body), "etag", crc64nvme(body))

    @property
    def samples(self) -> int:
        return self.sealed[-1].end


async def all_parts(source: EncodedSource, total: int) -> list[bytes]:
    """Every part, as an upload asks for them: part 1 last."""
    starts = [*range(PART, total, PART), 0]
    bodies = [bytes(await source.read(at, min(at + PART, total), total)) for at in starts]
    return [bodies[-1], *bodies[:-1]]


@pytest.fixture
def world(tmp_path: Path, quota: SpoolQuota) -> World:
    (tmp_path / "chunks").mkdir()
    return World(tmp_path / "chunks", quota)


@pytest.mark.parametrize("name", ["flac", "opus"])
async def test_it_is_encoded_as_chunks_come_and_whole_at_the_end(world: World, name: str) -> None:
    source = world.source(name)
    sizes = []
    for chunk in world.sealed:
        made, reached = await source.reach(chunk.end, 1 << 30)
        assert reached
        sizes.append(made)
    assert sizes == sorted(sizes)
    left = await source.total(world.samples) - sizes[-1]
    assert left < 70_000, "at the end there is next to nothing to encode"
    body = b"".join(await all_parts(source, sizes[-1] + left))
    assert len(body) > 4 * PART
    source.close()
    other = world.source(name)
    total = await other.total(world.samples)  # in one go
    assert b"".join(await all_parts(other, total)) == body
    other.close()
    assert world.quota.used == 0
    assert not list((world.folder / "encoded").iterdir())


async def test_flacs_head_is_written_when_the_length_is_known(world: World) -> None:
    source = world.source()
    await source.reach(CHUNK, 0)
    with pytest.raises(ValueError, match="head is written when"):
        await source.read(0, PART, None)
    total = await source.total(CHUNK)
    head = bytes(await source.read(0, min(PART, total), total))[:HEAD_BYTES]
    assert parse_streaminfo(head).samples == CHUNK
    source.close()


async def test_it_is_made_no_further_than_a_few_parts_ahead_of_what_is_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store does not take must not fill the disk."""
    monkeypatch.setattr(encoded, "STEP_SAMPLES", 4_096)
    source = world.source()
    made, reached = await source.reach(world.samples, 0)
    assert not reached
    assert 4 * PART <= made < 5 * PART
    again, _ = await source.reach(world.samples, 0)
    assert again == made
    further, _ = await source.reach(world.samples, 2 * PART)
    assert further > made
    source.close()


async def test_a_part_that_is_in_the_store_is_let_go_but_for_the_first(world: World) -> None:
    source = world.source()
    total = await source.total(world.samples)
    names = {path.name for path in (world.folder / "encoded").iterdir()}
    assert {"audio.flac.00001", "audio.flac.00002"} <= names
    assert world.quota.used == total
    source.sent(1)
    source.sent(2)
    left = {path.name for path in (world.folder / "encoded").iterdir()}
    assert left == names - {"audio.flac.00002"}
    assert world.quota.used == total - PART
    source.close()


async def test_what_was_let_go_is_made_anew_from_files_or_the_store(world: World) -> None:
    source = world.source()
    total = await source.total(world.samples)
    parts = await all_parts(source, total)
    for number in range(2, 5):
        source.sent(number)
    for chunk in world.sealed[:3]:
        world.bodies[chunk.number] = world.path(chunk).read_bytes()
        world.path(chunk).unlink()
    assert await all_parts(source, total) == parts
    assert world.read_from == [1, 2, 3]
    source.close()


async def test_parts_in_the_store_are_compared_and_not_kept(world: World) -> None:
    first = world.source()
    total = await first.total(world.samples)
    parts = await all_parts(first, total)
    first.close()
    for number in (2, 3, 5):
        world.store_part(number, parts[number - 1])
    again = world.source()
    assert await again.total(world.samples) == total
    kept = [number for number in range(1, 7) if world.kept.size(number)]
    assert [number for number in (2, 3, 5) if number in kept] == []
    assert bytes(await again.read(3 * PART, 4 * PART, total)) == parts[3]
    again.close()


@pytest.mark.parametrize("wrong", [b"other bytes" * PART, b"", None])
async def test_a_part_in_the_store_that_differs_is_found(world: World, wrong: bytes | None) -> None:
    """Of another library, or another length; then all can be had, for an upload made anew."""
    first = world.source()
    total = await first.total(world.samples)
    parts = await all_parts(first, total)
    first.close()
    world.store_part(3, parts[2] if wrong is None else wrong[:PART])
    if wrong is None:
        world.there[3] = replace(world.there[3], checksum=None)  # nobody can tell
    again = world.source()
    with pytest.raises(PartDiffers, match=r"part 3 of audio\.flac"):
        await again.total(world.samples)
    world.there.clear()  # as `Upload.restart` does
    assert await again.total(world.samples) == total
    assert await all_parts(again, total) == parts
    again.close()


async def test_a_chunk_that_is_lost_meanwhile_makes_another_file(world: World) -> None:
    source = world.source()
    total = await source.total(world.samples)
    source.sent(2)
    world.sealed[1] = replace(world.sealed[1], lost=True)
    with pytest.raises(PartDiffers, match="became another"):
        await all_parts(source, total)
    source.close()


async def test_a_head_never_tells_of_other_samples_than_were_sent(world: World) -> None:
    """A chunk is lost after most parts were sent, and part 2 is made anew of what is left."""
    source = world.source()
    total = await source.total(world.samples)
    source.sent(2)
    world.sealed[-1] = replace(world.sealed[-1], lost=True)
    assert len(await source.read(PART, 2 * PART, total)) == PART
    with pytest.raises(PartDiffers, match="became another"):
        await source.read(0, PART, total)
    source.close()


async def test_a_part_that_was_let_go_can_be_had_while_the_call_goes_on(world: World) -> None:
    source = world.source()
    await source.reach(4 * CHUNK, 1 << 30)
    part = bytes(await source.read(PART, 2 * PART, None))
    source.sent(2)
    assert bytes(await source.read(PART, 2 * PART, None)) == part
    source.close()


async def test_an_encoder_that_fails_is_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = world.source()
    whole = await source.total(world.samples)
    source.close()
    source = world.source()
    await source.reach(2 * CHUNK, 1 << 30)

    def fails(frames: Any) -> bytes:
        raise RuntimeError("out of sorts")

    monkeypatch.setattr(source._encoder, "write", fails)
    with pytest.raises(RuntimeError, match="out of sorts"):
        await source.reach(3 * CHUNK, 1 << 30)
    assert source.samples == 0
    assert await source.total(world.samples) == whole
    source.close()


async def test_another_end_is_another_file(world: World) -> None:
    source = world.source()
    await source.total(world.samples)
    total = await source.total(3 * CHUNK)
    head = bytes(await source.read(0, PART, total))
    assert parse_streaminfo(head).samples == 3 * CHUNK
    source.close()


# -- where they are kept -------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_parts_are_kept_apart(tmp_path: Path, quota: SpoolQuota, named: bool) -> None:
    folder = tmp_path / "encoded" if named else None
    kept = EncodedParts(folder, "turns/0001-user.flac", quota)
    kept.append(1, b"one")
    kept.append(2, b"two")
    kept.append(1, b", again")
    assert (kept.size(1), kept.size(2), kept.size(3)) == (10, 3, 0)
    into = bytearray(8)
    kept.read(1, memoryview(into))
    assert into == b"one, aga"
    assert quota.used == 13
    if folder:
        assert {path.name for path in folder.iterdir()} == {
            "turns-0001-user.flac.00001",
            "turns-0001-user.flac.00002",
        }
    kept.drop(1)
    kept.drop(1)
    assert (kept.size(1), quota.used) == (0, 3)
    kept.clear()
    assert quota.used == 0
    if folder:
        assert not list(folder.iterdir())


def test_what_an_owner_before_left_is_removed(tmp_path: Path, quota: SpoolQuota) -> None:
    folder = tmp_path / "encoded"
    EncodedParts(folder, "audio.flac", quota).append(1, b"from before")
    EncodedParts(folder, "user.flac", quota).append(1, b"another's")
    kept = EncodedParts(folder, "audio.flac", quota)
    kept.append(2, b"new")
    assert {path.name for path in folder.iterdir()} == {"audio.flac.00002", "user.flac.00001"}
    assert quota.used == len("another's" + "new")


@pytest.mark.parametrize("full", ["quota", "disk"])
@pytest.mark.parametrize("before", [b"", b"on disk, "])
def test_where_there_is_no_room_they_are_held_in_memory(
    tmp_path: Path,
    quota: SpoolQuota,
    monkeypatch: pytest.MonkeyPatch,
    full: str,
    before: bytes,
) -> None:
    kept = EncodedParts(tmp_path / "encoded", "audio.flac", quota)
    if before:
        kept.append(1, before)

    def no_room(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if full == "disk":
        monkeypatch.setattr(os, "pwrite", no_room)
    else:
        quota.limit = len(before) + 2
    kept.append(1, b"in memory")
    kept.append(1, b", all")
    into = bytearray(kept.size(1))
    kept.read(1, memoryview(into))
    assert into == before + b"in memory, all"
    assert quota.used == 0
    assert not any(path.stat().st_size for path in (tmp_path / "encoded").glob("*"))
    kept.clear()
    assert quota.used == 0


def test_what_is_cut_off_on_the_disk_is_no_part(tmp_path: Path, quota: SpoolQuota) -> None:
    kept = EncodedParts(tmp_path / "encoded", "audio.flac", quota)
    kept.append(1, b"0123456789")
    os.truncate(tmp_path / "encoded" / "audio.flac.00001", 4)
    with pytest.raises(OSError, match="cut off"):
        kept.read(1, memoryview(bytearray(10)))


async def test_two_reads_at_once_do_not_mix(world: World) -> None:
    source = world.source()
    total = await source.total(world.samples)
    parts = await all_parts(source, total)
    for number in range(2, 5):
        source.sent(number)
    found = await asyncio.gather(
        *(source.read(at, at + PART, total) for at in (3 * PART, PART, 2 * PART))
    )
    assert [bytes(one) for one in found] == [parts[3], parts[1], parts[2]]
    source.close()
