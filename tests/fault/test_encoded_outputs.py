"""Compressed outputs in several parts: deaths, losses, uploads that vanish, other encoders."""

from __future__ import annotations

import asyncio
import builtins
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import die, leftovers, manifest, settings_in
from decoders import Samples, by_ffmpeg, by_libsndfile
from faulty_store import FaultyStore, refusal

from recorder import Outcome, Recorder, Recovered, Session, Settings, State, VirtualClock
from recorder.containers import flac
from recorder.containers.codecs import Ending
from recorder.stores import make_store
from recorder.verification import verify
from uploader.errors import AccessDenied
from uploader.local import LocalStore
from uploader.store import ObjectAttributes

RATE, SECONDS = 192_000, 56
NOISE = np.random.default_rng(9).integers(-9_000, 9_000, RATE, dtype=np.int16)
PARTS = 4
"""Of 56 s of this noise at 192 kHz as FLAC, in one channel: three whole ones, and a tail."""


def said(seconds: int = SECONDS) -> Samples:
    """What is recorded: another noise each second."""
    return np.concatenate([np.roll(NOISE, 7 * second) for second in range(seconds)])


def settings_of(folder: Path, **changes: Any) -> Settings:
    return settings_in(
        folder,
        **{
            "sample_rate": RATE,
            "outputs": "mono",
            "format": "flac",
            "chunk_seconds": 4,
            **changes,
        },
    )


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(LocalStore(tmp_path / "bucket"))


async def talk(call: Session, clock: VirtualClock, start: int, end: int) -> None:
    for second in range(start, end):
        clock.advance_to(call.zero + second + 1)
        call.write("user", np.roll(NOISE, 7 * second).tobytes(), RATE)
        if second % 4 == 3:
            await call.flush()


async def dead_call(folder: Path, *, lost: bool) -> None:
    """A call whose process, or whole host, died when 52 s of it were settled."""
    clock = VirtualClock()
    recorder = Recorder(settings_of(folder), clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call", tracks=["user"])
    await talk(call, clock, 0, SECONDS)
    await die(recorder)
    if lost:
        shutil.rmtree(folder / "spool")


async def recover(folder: Path, store: FaultyStore, *, lost: bool = False) -> Recovered:
    spool = folder / ("other" if lost else "spool")
    settings = settings_of(folder, spool_dir=spool)
    options: dict[str, Any] = {"bucket": True, "stale_after": 0} if lost else {}
    async with Recorder(settings, store=store, recover=False) as recorder:
        [one] = await recorder.recover(**options)
    return one


def audio(folder: Path) -> bytes:
    [path] = folder.glob("bucket/dt=*/call/audio.*")
    return path.read_bytes()


async def check(folder: Path, least: int = SECONDS) -> None:
    """Assert that the object is what was said, so much at least, is proved, and all is tidy."""
    document, body = manifest(folder), audio(folder)
    found, rate = by_libsndfile(body)
    assert rate == RATE
    assert least * RATE <= len(found) == document["samples"]
    np.testing.assert_array_equal(found[:, 0], said()[: len(found)])
    async with make_store(settings_of(folder)) as bucket:
        report = await verify(bucket, "call")
    assert report.ok, report.findings
    assert [output["bytes"] for output in document["outputs"]] == [len(body)]
    assert not leftovers(folder)


def parts_sent(store: FaultyStore) -> list[int]:
    return sorted(number for op, _, number in store.log if op == "upload_part")


async def test_parts_go_while_the_call_goes_on_and_the_spool_stays_small(
    tmp_path: Path, store: FaultyStore
) -> None:
    clock, sizes = VirtualClock(), []
    async with Recorder(settings_of(tmp_path), clock=clock, store=store) as recorder:
        call = await recorder.start("call", tracks=["user"])
        for second in range(0, SECONDS, 4):
            await talk(call, clock, second, second + 4)
            files = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
            encoded = sum(path.stat().st_size for path in files if path.parent.name == "encoded")
            chunks = [path for path in files if path.suffix == ".wav"]
            sizes.append((encoded, len(chunks)))
        before = parts_sent(store)
        result = await call.stop()
    assert result.state is State.COMPLETED
    assert before == [2, 3]
    assert parts_sent(store) == [1, 2, 3, PARTS]
    part = 5 * 1024**2
    assert max(encoded for encoded, _ in sizes) < 3 * part, "part 1, and what is not sent yet"
    assert max(chunks for _, chunks in sizes) <= 2
    await check(tmp_path)
    np.testing.assert_array_equal(by_ffmpeg(audio(tmp_path), 1)[:, 0], said())


async def test_at_the_stop_only_the_end_is_encoded(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = 0
    write = flac._Encoder.write

    def counted(self: Any, frames: Samples) -> bytes:
        nonlocal encoded
        encoded += len(frames)
        return write(self, frames)

    monkeypatch.setattr(flac._Encoder, "write", counted)
    clock = VirtualClock()
    async with Recorder(settings_of(tmp_path), clock=clock, store=store) as recorder:
        call = await recorder.start("call", tracks=["user"])
        await talk(call, clock, 0, SECONDS)
        before = encoded
        await call.stop()
    assert encoded == SECONDS * RATE, "and once"
    assert encoded - before <= 2 * 4 * RATE, "two chunks: the last, and what is held back"


async def test_chunks_do_not_wait_for_compression(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many outputs there are, and however long one piece of them takes."""
    begun, sent, late = threading.Event(), threading.Event(), []
    write = flac._Encoder.write

    def waits(self: Any, frames: Samples) -> bytes:
        begun.set()
        late.append(not sent.wait(20))
        return write(self, frames)

    async def tells(op: str, key: str, done: bool) -> None:
        if done and key.endswith("/second/chunks/000001.wav"):
            sent.set()

    store.hook = tells
    monkeypatch.setattr(flac._Encoder, "write", waits)
    clock, settings = VirtualClock(), settings_of(tmp_path, outputs="stereo,mono,tracks")
    async with Recorder(settings, clock=clock, store=store) as recorder:
        first = await recorder.start("first", tracks=["user", "bot"])
        going_on = asyncio.create_task(talk(first, clock, 0, 8))
        await asyncio.to_thread(begun.wait)
        second = await recorder.start("second", tracks=["user", "bot"])
        await talk(second, clock, 0, 8)
        await going_on
        assert {(await call.stop()).state for call in (first, second)} == {State.COMPLETED}
    assert late
    assert not any(late)


@pytest.mark.parametrize("lost", [False, True])
async def test_after_a_death_parts_in_the_store_are_used(
    tmp_path: Path, store: FaultyStore, lost: bool
) -> None:
    await dead_call(tmp_path, lost=lost)
    one = await recover(tmp_path, store, lost=lost)
    assert one.outcome is Outcome.RECOVERED, one
    assert parts_sent(store) == [1, PARTS], "parts 2 and 3 were there, and are the same"
    await check(tmp_path, least=52 if lost else SECONDS)
    assert not list((tmp_path / "other").glob("*"))


async def test_where_what_encodes_is_not_installed_the_audio_is_kept(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, found = VirtualClock(), builtins.__import__
    settings = settings_of(tmp_path, sample_rate=48_000, format="opus", outputs="mono,stereo")
    recorder = Recorder(settings, clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call", tracks=["user"])
    await talk(call, clock, 0, 5)
    await die(recorder)

    def without(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return found(name, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", without)
        one = await recover(tmp_path, store)
    assert one.outcome is Outcome.FAILED
    assert one.hint == "pip install 'bot-recorder[opus]'"
    again = await recover(tmp_path, FaultyStore(LocalStore(tmp_path / "bucket")))
    assert again.outcome is Outcome.RECOVERED, again
    assert len(by_libsndfile(audio(tmp_path))[0]) == manifest(tmp_path)["samples"] > 4 * 48_000
    assert not leftovers(tmp_path)


class OtherEncoder:
    """As of another library: the same samples, in other bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flac, "_LEVEL", 0.0)


async def test_where_parts_are_encoded_in_another_way_the_upload_is_made_anew(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_call(tmp_path, lost=True)
    OtherEncoder(monkeypatch)
    one = await recover(tmp_path, store, lost=True)
    assert one.outcome is Outcome.RECOVERED, one
    assert parts_sent(store) == [1, 2, 3, PARTS]
    await check(tmp_path, least=52)


@pytest.mark.parametrize("other", [False, True])
async def test_an_object_that_was_completed_before_the_death_is_the_result(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    """Whoever goes on may encode in another way: the object is known by what it holds."""
    clock, completed = VirtualClock(), threading.Event()

    async def dies(op: str, key: str, done: bool) -> None:
        if op == "complete_multipart" and done:
            store.dead = True
            completed.set()

    store.hook = dies
    recorder = Recorder(settings_of(tmp_path), clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call", tracks=["user"])
    await talk(call, clock, 0, SECONDS)
    call.end()
    await asyncio.to_thread(completed.wait)
    await die(recorder)
    before = audio(tmp_path)
    again = FaultyStore(LocalStore(tmp_path / "bucket"))
    if other:
        OtherEncoder(monkeypatch)
    one = await recover(tmp_path, again)
    assert one.outcome is Outcome.RECOVERED, one
    assert audio(tmp_path) == before
    await check(tmp_path)


async def test_an_object_of_other_samples_in_the_way_is_not_taken_for_it(
    tmp_path: Path, store: FaultyStore
) -> None:
    """Not even with the recording's own id: FLAC tells what it holds."""
    await dead_call(tmp_path, lost=False)
    [folder] = tmp_path.glob("bucket/dt=*/call")
    key = f"{folder.relative_to(tmp_path / 'bucket')}/audio.flac"
    encoder = flac.FLAC.encoder(RATE, 1, 0)
    body = encoder.write(said()[::-1].reshape(-1, 1))
    ending: Ending = encoder.close()
    body = ending.head + (body + ending.data)[42:]
    owned = ObjectAttributes(metadata={"recorder-recording-id": "call"})
    async with store.inner as bucket:
        await bucket.put(key, body, owned)
    one = await recover(tmp_path, store)
    assert one.outcome is Outcome.FAILED
    assert "audio.flac" in one.reason
    assert audio(tmp_path) == body, "it is not replaced"


async def test_an_upload_that_vanishes_in_mid_call_is_made_anew(
    tmp_path: Path, store: FaultyStore
) -> None:
    clock = VirtualClock()
    async with Recorder(settings_of(tmp_path), clock=clock, store=store) as recorder:
        call = await recorder.start("call", tracks=["user"])
        await talk(call, clock, 0, 48)
        [upload] = [one async for one in store.inner.list_uploads()]
        await store.inner.abort_multipart(upload.key, upload.upload_id)
        await talk(call, clock, 48, SECONDS)
        result = await call.stop()
    assert result.state is State.COMPLETED
    assert store.calls["create_multipart"] == 2
    assert parts_sent(store) == [1, 2, 2, 3, PARTS]
    await check(tmp_path)


async def test_an_upload_that_vanishes_at_the_end_is_made_anew(
    tmp_path: Path, store: FaultyStore
) -> None:
    clock = VirtualClock()

    async def vanishes(op: str, key: str, done: bool) -> None:
        if op == "complete_multipart" and not done:
            store.hook = None
            [upload] = [one async for one in store.inner.list_uploads()]
            await store.inner.abort_multipart(upload.key, upload.upload_id)

    store.hook = vanishes
    async with Recorder(settings_of(tmp_path), clock=clock, store=store) as recorder:
        call = await recorder.start("call", tracks=["user"])
        await talk(call, clock, 0, SECONDS)
        result = await call.stop()
    assert result.state is State.COMPLETED, result
    assert store.calls["create_multipart"] == 2
    await check(tmp_path)


async def test_an_outage_is_waited_for_and_what_is_encoded_does_not_fill_the_disk(
    tmp_path: Path, store: FaultyStore
) -> None:
    clock = VirtualClock()
    async with Recorder(settings_of(tmp_path), clock=clock, store=store) as recorder:
        call = await recorder.start("call", tracks=["user"])
        await talk(call, clock, 0, 4)
        store.refuse("upload_part", refusal(AccessDenied, "upload_part"))
        await talk(call, clock, 4, SECONDS)
        store.refuse("upload_part", None)
        result = await call.stop()
    assert result.state is State.COMPLETED, result
    await check(tmp_path)


@pytest.mark.soak  # parts have 5 MiB at least: nearly three minutes of it
async def test_opus_in_several_parts_is_the_same_after_a_loss(tmp_path: Path) -> None:
    """At the highest bitrate; the recovered object is the one that would have been made."""
    rate, seconds, chunk = 48_000, 176, 8
    noise = np.random.default_rng(2).integers(-9_000, 9_000, rate, dtype=np.int16)

    async def call_of(folder: Path, *, lost: bool) -> FaultyStore:
        (folder / "bucket").mkdir(parents=True)
        clock, bucket = VirtualClock(), FaultyStore(LocalStore(folder / "bucket"))
        changes = {"sample_rate": rate, "format": "opus", "outputs": "stereo"}
        changes |= {"chunk_seconds": chunk, "opus_bitrate": 256_000}
        settings = settings_in(folder, **changes)
        recorder = Recorder(settings, clock=clock, store=bucket, recover=False)
        await recorder.__aenter__()
        call = await recorder.start("call", tracks=["user", "bot"])
        for second in range(seconds):
            clock.advance_to(call.zero + second + 1)
            for shift, track in ((7, "user"), (11, "bot")):
                call.write(track, np.roll(noise, shift * second).tobytes(), rate)
            if second % chunk == chunk - 1:
                await call.flush()
        if not lost:
            await call.stop()
            await recorder.close()
            return bucket
        await die(recorder)
        shutil.rmtree(folder / "spool")
        again = FaultyStore(LocalStore(folder / "bucket"))
        other = settings_in(folder, **changes, spool_dir=folder / "other")
        async with Recorder(other, store=again, recover=False) as rescuer:
            [one] = await rescuer.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.RECOVERED, one
        return again

    whole = await call_of(tmp_path / "whole", lost=False)
    sent = await call_of(tmp_path / "lost", lost=True)
    assert parts_sent(whole) == [1, 2, 3]
    assert parts_sent(sent) == [1, 3], "part 2 was there, and is the same"
    bodies = [audio(tmp_path / name) for name in ("whole", "lost")]
    made, common = (manifest(tmp_path / name)["samples"] for name in ("whole", "lost"))
    assert common >= (seconds - chunk) * rate
    found = [by_libsndfile(body)[0] for body in bodies]
    assert [len(one) for one in found] == [made, common]
    np.testing.assert_array_equal(found[0][: common - rate], found[1][: common - rate])
    assert not leftovers(tmp_path / "lost")
