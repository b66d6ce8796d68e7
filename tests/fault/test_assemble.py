"""Outputs rebuilt from kept chunks: the same bytes, listed, proved; nothing replaced by mistake."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_store import FaultyStore, refusal, reset
from stored import (
    BOT,
    LENGTH,
    MONO,
    STEREO,
    USER,
    change_manifest,
    damage_chunk,
    decoded,
    files,
    forget,
    local,
    manifest_of,
    on_seaweed,
    path_of,
    record,
    uploads,
)

from recorder.assemble import AssembleError, UnusableChunks, assemble
from recorder.at_rest import NotFinished
from recorder.catalog import NoSuchRecording
from recorder.embedded import EmbeddedS3
from recorder.result import State
from recorder.verification import verify
from uploader.errors import AccessDenied, BotRecorderError
from uploader.s3 import S3Store
from uploader.store import Store

ALL = ("mono", "stereo", "tracks", "turns")


@pytest.mark.parametrize("layouts", [("stereo",), ("mono",), ("tracks",), ("turns",), ALL, ()])
async def test_what_was_lost_comes_back_byte_for_byte(tmp_path: Path, layouts: Any) -> None:
    await record(tmp_path, outputs=ALL, keep_chunks=True)
    before = files(tmp_path)
    names = {
        "stereo": ["audio.wav"],
        "mono": ["mono.wav"],
        "tracks": ["user.wav", "bot.wav"],
        "turns": ["turns/0001-user.wav", "turns/0002-bot.wav"],
    }
    gone = [name for layout in layouts or ALL for name in names[layout]]
    forget(tmp_path, *gone)
    async with local(tmp_path) as store:
        done = await assemble(store, "call", layouts)
        assert {one.state for one in done.outputs} == {State.COMPLETED}
        assert sorted(one.url.rpartition("/call/")[2] for one in done.outputs) == sorted(gone)
        report = await verify(store, "call")
    assert report.findings == ()
    after = files(tmp_path)
    changed = {key for key in after if after[key] != before.get(key)}
    assert {key.rpartition("/")[2] for key in changed} == {"manifest.json"}
    assert uploads(tmp_path) == []


@pytest.mark.parametrize(
    ("asked", "layout", "name", "truth"),
    [
        ("stereo", "mono", "mono.wav", MONO.reshape(-1, 1)),
        ("mono", "stereo", "stereo.wav", STEREO),
        ("turns", "stereo", "stereo.wav", STEREO),
        ("stereo", "tracks", "user.wav", USER.reshape(-1, 1)),
        ("stereo", "tracks", "bot.wav", BOT.reshape(-1, 1)),
    ],
)
async def test_a_layout_that_was_never_made_is_made(
    tmp_path: Path, asked: str, layout: Any, name: str, truth: Any
) -> None:
    await record(tmp_path, outputs=(asked,), keep_chunks=True)
    others = files(tmp_path)
    async with local(tmp_path) as store:
        await assemble(store, "call", [layout])
        report = await verify(store, "call")
    assert report.findings == ()
    heard = await decoded(path_of(tmp_path, name), truth.shape[1])
    np.testing.assert_array_equal(heard, truth[:LENGTH])
    after = files(tmp_path)
    assert all(after[key] == body for key, body in others.items() if "manifest" not in key)


async def test_turns_that_were_never_clipped_are(tmp_path: Path) -> None:
    await record(tmp_path, keep_chunks=True)
    async with local(tmp_path) as store:
        done = await assemble(store, "call", ["turns"])
        assert (await verify(store, "call")).findings == ()
    assert [one.name for one in done.outputs] == ["turns/0001-user", "turns/0002-bot"]
    first, second = manifest_of(tmp_path)["turns"]
    assert first["key"].endswith("turns/0001-user.wav")
    heard = await decoded(path_of(tmp_path, "turns/0002-bot.wav"), 1)
    begin, end = second["first_sample"], second["end"]
    np.testing.assert_array_equal(heard[:, 0], BOT[begin:end])


@pytest.mark.parametrize("layouts", [(), ("turns",), ("mono", "stereo")])
async def test_nothing_is_replaced_unless_that_is_asked_for(tmp_path: Path, layouts: Any) -> None:
    await record(tmp_path, outputs=("stereo", "turns"), keep_chunks=True)
    path_of(tmp_path, "audio.wav").write_bytes(b"something else")
    path_of(tmp_path, "turns/0001-user.wav").write_bytes(b"something else")
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(AssembleError, match=r"\.wav.* there already .--overwrite"):
            await assemble(store, "call", layouts)
        assert files(tmp_path) == before
        await assemble(store, "call", ["stereo", "turns"], overwrite=True)
        assert (await verify(store, "call")).findings == ()


async def test_what_comes_to_be_there_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    await record(tmp_path, keep_chunks=True)
    forget(tmp_path, "audio.wav")
    path = path_of(tmp_path, "audio.wav")

    class Busy(FaultyStore):
        async def read(self, key: str) -> Any:
            if "chunks" in key:
                await self.inner.put(key.rpartition("chunks/")[0] + "audio.wav", b"theirs")
            return await super().read(key)

    async with Busy(local(tmp_path)) as store:
        with pytest.raises(AssembleError, match=r"audio\.wav of recording 'call': there already"):
            await assemble(store, "call")
    assert path.read_bytes() == b"theirs"
    assert uploads(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", "chunk 2 is missing from"),
        ("truncated", r"chunks/000002\.wav has 1000 bytes, and 96080 by the manifest"),
        ("rotten", r"chunks/000002\.wav has other bytes than were recorded"),
        ("foreign", r"chunks/000002\.wav is a chunk of recording 'other'"),
    ],
)
@pytest.mark.parametrize("layouts", [("stereo", "tracks"), ("turns",)])
async def test_one_bad_chunk_replaces_nothing(
    tmp_path: Path, damage: str, says: str, layouts: Any
) -> None:
    await record(tmp_path, outputs=("stereo", "tracks", "turns"), keep_chunks=True)
    await damage_chunk(tmp_path, damage)
    for name in ("audio.wav", "user.wav", "turns/0002-bot.wav"):
        path_of(tmp_path, name).write_bytes(b"better than nothing")
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(UnusableChunks, match=says):
            await assemble(store, "call", layouts, overwrite=True)
    assert files(tmp_path) == before
    assert uploads(tmp_path) == []


async def test_a_bad_chunk_of_a_long_recording_leaves_no_upload(tmp_path: Path) -> None:
    await record(tmp_path, seconds=18.0, sample_rate=192_000, chunk_seconds=10.0, keep_chunks=True)
    await damage_chunk(tmp_path, "rotten")
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(UnusableChunks, match="other bytes"):
            await assemble(store, "call", overwrite=True)
    assert files(tmp_path) == before
    assert uploads(tmp_path) == []


async def test_a_long_recording_is_sent_by_parts_and_through_faults(tmp_path: Path) -> None:
    await record(tmp_path, seconds=18.0, sample_rate=192_000, chunk_seconds=10.0, keep_chunks=True)
    whole = path_of(tmp_path, "audio.wav").read_bytes()
    forget(tmp_path, "audio.wav")
    store = FaultyStore(local(tmp_path))
    async with store:
        store.fail("upload_part", reset("upload_part"), times=2)
        store.lose_answer("complete_multipart")
        store.lose_answer("put_manifest")
        await assemble(store, "call")
    assert store.calls["upload_part"] == 3 + 2
    assert path_of(tmp_path, "audio.wav").read_bytes() == whole
    assert uploads(tmp_path) == []


async def test_a_cancel_leaves_nothing(tmp_path: Path) -> None:
    await record(tmp_path, seconds=18.0, sample_rate=192_000, chunk_seconds=10.0, keep_chunks=True)
    forget(tmp_path, "audio.wav")
    before, reached, store = files(tmp_path), asyncio.Event(), FaultyStore(local(tmp_path))

    async def hang(op: str, key: str, done: bool) -> None:
        if op == "complete_multipart":
            reached.set()
            await asyncio.Event().wait()

    async with store:
        store.hook = hang
        task = asyncio.ensure_future(assemble(store, "call"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert files(tmp_path) == before
    assert uploads(tmp_path) == []


@pytest.mark.parametrize("op", ["create_multipart", "upload_part", "complete_multipart"])
async def test_a_refusal_is_told_and_leaves_nothing(tmp_path: Path, op: str) -> None:
    await record(tmp_path, seconds=18.0, sample_rate=192_000, chunk_seconds=10.0, keep_chunks=True)
    forget(tmp_path, "audio.wav")
    before, store = files(tmp_path), FaultyStore(local(tmp_path))
    async with store:
        store.refuse(op, refusal(AccessDenied, op))
        with pytest.raises(AccessDenied, match=f"{op} refused"):
            await assemble(store, "call")
    assert files(tmp_path) == before
    assert uploads(tmp_path) == []


async def test_chunks_that_were_not_kept_are_said_so(tmp_path: Path) -> None:
    await record(tmp_path)
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(UnusableChunks, match="where RECORDER_KEEP_CHUNKS is true"):
            await assemble(store, "call", ["mono"])
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"state": "recording"}, NotFinished, "is recording"),
        ({"chunks": []}, UnusableChunks, "lists chunks up to sample 0, of 127200"),
        ({"chunks": [{"number": 1}]}, BotRecorderError, "not a chunk"),
        ({"sample_rate": "x"}, BotRecorderError, "not a recording's plan"),
        ({"day": "2001-01-01"}, BotRecorderError, "has the manifest of dt=2001-01-01"),
    ],
)
async def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], kind: type[Exception], says: str
) -> None:
    await record(tmp_path, keep_chunks=True)
    forget(tmp_path, "audio.wav")
    change_manifest(tmp_path, lambda document: {**document, **changes})
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(kind, match=says):
            await assemble(store, "call")
    assert files(tmp_path) == before


async def test_a_hole_in_the_list_of_chunks_is_found(tmp_path: Path) -> None:
    await record(tmp_path, keep_chunks=True)
    forget(tmp_path, "audio.wav")
    change_manifest(
        tmp_path,
        lambda document: {**document, "chunks": document["chunks"][:1] + document["chunks"][2:]},
    )
    async with local(tmp_path) as store:
        with pytest.raises(UnusableChunks, match="no chunk that begins at sample 24000"):
            await assemble(store, "call")


async def test_who_is_not_there_or_unknown_is_said(tmp_path: Path) -> None:
    await record(tmp_path, keep_chunks=True)
    async with local(tmp_path) as store:
        with pytest.raises(NoSuchRecording, match="'nobody'"):
            await assemble(store, "nobody")
        wrong: Any = ["quad"]
        with pytest.raises(AssembleError, match="'quad' is no output"):
            await assemble(store, "call", wrong)


async def test_somebody_elses_change_of_the_manifest_is_kept(tmp_path: Path) -> None:
    """What another process writes between this one's look and its own write stays."""
    await record(tmp_path, keep_chunks=True)
    forget(tmp_path, "audio.wav")
    store = FaultyStore(local(tmp_path))
    raced: list[str] = []

    async def race(op: str, key: str, done: bool) -> None:
        if op == "put_manifest" and not done and not raced:
            raced.append(key)
            body = await store.inner.get(key)
            document = {**json.loads(body), "noted": "by others"}
            await store.inner.put(key, json.dumps(document).encode())

    async with store:
        store.hook = race
        await assemble(store, "call")
        store.hook = None
        assert (await verify(store, "call")).findings == ()
    document = manifest_of(tmp_path)
    assert document["noted"] == "by others"
    assert document["outputs"][0]["assembled_at"]


async def test_a_store_that_keeps_no_checksum_is_read_back(tmp_path: Path, moto_url: str) -> None:
    """moto tells no checksum: an object with other bytes of the same length is found by reading."""

    class Garbling(S3Store):
        async def put(self, key: str, body: Any, *args: Any, **options: Any) -> Any:
            if key.endswith("audio.wav"):
                body = bytes(body)[:-1] + bytes([bytes(body)[-1] ^ 1])
                options.pop("checksum")
            return await super().put(key, body, *args, **options)

    def make(kind: type[S3Store] = S3Store) -> S3Store:
        return kind("calls", f"assemble-{tmp_path.name}", endpoint_url=moto_url)

    await record(tmp_path, store=make(), keep_chunks=True)
    async with make() as store, make(Garbling) as garbling:
        [key] = [one.key async for one in store.list_objects() if one.key.endswith("audio.wav")]
        whole = await store.get(key)
        await store.delete(key)
        with pytest.raises(AssembleError, match="is not what was sent"):
            await assemble(garbling, "call")
        await assemble(store, "call", overwrite=True)
        assert await store.get(key) == whole


async def test_on_a_real_server(tmp_path: Path, seaweed: EmbeddedS3) -> None:
    def make() -> Store:
        return on_seaweed(seaweed, f"assemble-{tmp_path.name}")

    changes = {"sample_rate": 192_000, "chunk_seconds": 10.0, "keep_chunks": True}
    await record(tmp_path, store=make(), seconds=18.0, **changes)
    async with make() as store:
        [key] = [one.key async for one in store.list_objects() if one.key.endswith("audio.wav")]
        whole = await store.get(key)
        with pytest.raises(AssembleError, match="there already"):
            await assemble(store, "call")
        await store.delete(key)
        await assemble(store, "call", ["stereo", "mono"])
        assert await store.get(key) == whole
        assert (await verify(store, "call")).findings == ()
        assert [upload async for upload in store.list_uploads("")] == []
