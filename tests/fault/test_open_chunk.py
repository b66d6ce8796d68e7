"""The open chunk's first half is in the bucket: a lost host costs less than a chunk."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, die, leftovers, manifest, samples, settings_in, speak
from faulty_store import FaultyStore, refusal, reset

from recorder import Outcome, Recorder, Recovered, Session, State, VirtualClock
from recorder.containers.wav import parse_header
from recorder.verification.verify import verify
from uploader.errors import AccessDenied
from uploader.local import LocalStore
from uploader.store import ObjectAttributes

HALF = RATE // 2


class World:
    """A host with a call of one-second chunks, and another host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        self.store = FaultyStore(LocalStore(folder / "bucket"))

    def recorder(self, **changes: Any) -> Recorder:
        settings = settings_in(self.folder, **{"retry_deadline_seconds": 1, **changes})
        return Recorder(settings, clock=self.clock, store=self.store, recover=False)

    async def call(self, **changes: Any) -> tuple[Recorder, Session]:
        """Speak 6.5 s: four chunks are sealed, and half of the fifth is settled."""
        recorder = self.recorder(**changes)
        await recorder.__aenter__()
        call = await recorder.start("call")
        await self.talk(call, 0, 13)
        return recorder, call

    async def talk(self, call: Session, first: int, last: int) -> None:
        """Speak half seconds."""
        for half in range(first, last):
            speak(call, self.clock, half / 2, (half + 1) / 2)
            await call.flush()

    async def lose(self, recorder: Recorder) -> None:
        await die(recorder)
        shutil.rmtree(self.folder / "spool")

    async def rescue(self, store: FaultyStore | None = None, **changes: Any) -> list[Recovered]:
        changes = {"spool_dir": self.folder / "other-spool", **changes}
        settings = settings_in(self.folder, retry_deadline_seconds=1, **changes)
        other = Recorder(settings, clock=self.clock, store=store, recover=False)
        async with other as recorder:
            return await recorder.recover(bucket=True, stale_after=0)

    def chunks(self) -> dict[str, bytes]:
        """The chunk objects by name."""
        paths = sorted(self.folder.glob("bucket/dt=*/call/chunks/*"))
        return {path.name: path.read_bytes() for path in paths}

    async def differences(self) -> list[str]:
        """What `recorder verify` finds."""
        async with LocalStore(self.folder / "bucket") as store:
            report = await verify(store, "call")
        return [str(finding) for finding in report.findings]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_where_the_store_is_slower_than_the_calls_it_does_not_make_chunks_wait(
    world: World,
) -> None:
    recorder, call = await world.call()
    await world.talk(call, 13, 14)
    before = world.chunks()["open.wav"]
    budget = recorder._budget
    others = budget.reserve(budget.limit - 2 * HALF + 1)
    await recorder.engine.run(others.__aenter__())
    await world.talk(call, 14, 15)
    assert world.chunks()["open.wav"] == before
    await recorder.engine.run(others.__aexit__(None, None, None))
    await call.flush()
    assert world.chunks()["open.wav"] != before
    await call.stop()
    await recorder.close()
    assert await world.differences() == []


async def test_half_of_the_open_chunk_is_rescued_with_the_sealed_ones(world: World) -> None:
    recorder, _ = await world.call()
    assert list(world.chunks()) == [*(f"{number:06d}.wav" for number in range(1, 5)), "open.wav"]
    await world.lose(recorder)
    [one] = await world.rescue()
    assert one.outcome is Outcome.RECOVERED
    assert one.result is not None
    assert one.result.state is State.COMPLETED_WITH_GAPS
    assert {gap.start for gap in one.result.gaps} == {4 * RATE + HALF}
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE + HALF])
    last = manifest(world.folder)["chunks"][-1]
    assert (last["number"], last["first_sample"], last["samples"]) == (5, 4 * RATE, HALF)
    assert not leftovers(world.folder)
    assert not await world.differences()
    assert await world.rescue() == []


async def test_it_is_kept_without_being_asked_for(world: World) -> None:
    """By the engine's timer, in a call that nobody flushes."""
    recorder = world.recorder()
    await recorder.__aenter__()
    call = await recorder.start("call")
    speak(call, world.clock, 0, 2.5)
    while "open.wav" not in world.chunks():  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    await world.lose(recorder)
    await world.rescue()
    np.testing.assert_array_equal(samples(world.folder), VOICE[:HALF])


async def test_it_is_sent_once_a_chunk_and_gone_in_the_end(world: World) -> None:
    recorder, call = await world.call()
    sent = [key for op, key, _ in world.store.log if op == "put" and key.endswith("open.wav")]
    assert len(sent) == 5
    assert (await call.stop()).state is State.COMPLETED
    await recorder.close()
    assert not leftovers(world.folder)
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 6 * RATE + HALF])


async def test_it_is_sent_once_when_both_the_timer_and_a_flush_find_it_due(world: World) -> None:
    recorder = world.recorder()
    await recorder.__aenter__()
    call = await recorder.start("call")
    await call.flush()
    speak(call, world.clock, 0, 2.5)
    backstage: Any = call._backstage
    send = backstage._send_open_chunk
    await recorder.engine.run(asyncio.wait_for(gathered(send(call), send(call)), 20))
    await call.flush()
    sent = [key for op, key, _ in world.store.log if op == "put" and key.endswith("open.wav")]
    assert len(sent) == 1
    await call.stop()
    await recorder.close()
    assert not leftovers(world.folder)


async def gathered(*steps: Awaitable[None]) -> None:
    await asyncio.gather(*steps)


@pytest.mark.parametrize("lost", [False, True])
async def test_where_chunks_are_kept_it_is_not(world: World, lost: bool) -> None:
    recorder, call = await world.call(keep_chunks=True)
    if lost:
        await world.lose(recorder)
        await world.rescue()
        assert len(world.chunks()) == 5
        assert "000005.wav" not in world.chunks()
    else:
        await call.stop()
        await recorder.close()
        assert list(world.chunks()) == [f"{number:06d}.wav" for number in range(1, 8)]
    listed = [chunk.get("file", f"{chunk['number']:06d}.wav") for chunk in chunks_of(world)]
    assert list(world.chunks()) == listed
    assert not await world.differences()
    assert await world.rescue() == []


def chunks_of(world: World) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = manifest(world.folder)["chunks"]
    return listed


@pytest.mark.parametrize("lost", [False, True])
async def test_where_it_may_not_be_deleted_it_is_listed(world: World, lost: bool) -> None:
    recorder, call = await world.call()
    world.store.refuse("delete", refusal(AccessDenied, "delete"))
    if lost:
        await world.lose(recorder)
        [one] = await world.rescue(world.store)
        assert one.result is not None
        left = one.result.leftovers
    else:
        await call.stop()
        await recorder.close()
        assert call.result is not None
        left = call.result.leftovers
    assert manifest(world.folder)["leftovers"] == list(left)
    assert {key.rpartition("/")[2] for key in left} == set(world.chunks())
    assert "open.wav" in world.chunks()
    assert await world.rescue(world.store) == [], "it is tried for ever"


async def test_one_of_an_earlier_chunk_is_left_out(world: World) -> None:
    recorder, call = await world.call()
    speak(call, world.clock, 6.5, 7)
    world.store.refuse("put_manifest", reset("put_manifest"))  # a chunk more, and no word of it
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await call.flush()
    assert list(world.chunks())[-2:] == ["000005.wav", "open.wav"]
    await world.lose(recorder)
    await world.rescue()
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 5 * RATE])
    assert not leftovers(world.folder)


@pytest.mark.parametrize("damage", ["text", "cut", "long"])
async def test_what_is_no_open_chunk_is_left_out(world: World, damage: str) -> None:
    recorder, _ = await world.call()
    await world.lose(recorder)
    [path] = world.folder.glob("bucket/dt=*/call/chunks/open.wav")
    body = path.read_bytes()
    too_long = body + bytes(4 * RATE)
    changed = {"text": b"not audio", "cut": body[:60], "long": too_long}[damage]
    key = str(path.relative_to(world.folder / "bucket"))
    async with LocalStore(world.folder / "bucket") as store:
        told = (await store.head(key)).metadata  # what is said of it is as it should be
        await store.put(key, changed, ObjectAttributes(metadata=told))
    [one] = await world.rescue()
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE])
    assert not leftovers(world.folder)


async def test_what_happened_within_it_is_known(world: World) -> None:
    """A turn that is over before the next chunk's manifest is written."""
    recorder = world.recorder()
    await recorder.__aenter__()
    call = await recorder.start("call")
    await world.talk(call, 0, 10)
    speak(call, world.clock, 5, 5.25)  # what is marked now is decided on after the next chunk
    call.start_turn("user", at=call.zero + 4.125)
    call.end_turn("user", at=call.zero + 4.375)
    speak(call, world.clock, 5.25, 5.5)
    await call.flush()
    await world.talk(call, 11, 12)
    writes = world.store.calls["put_manifest"]
    await world.talk(call, 12, 13)
    assert world.store.calls["put_manifest"] == writes + 1
    await world.lose(recorder)
    await world.rescue()
    [turn] = manifest(world.folder)["turns"]
    assert (turn["start"], turn["end"]) == (round(4.125 * RATE), round(4.375 * RATE))


async def test_nothing_is_written_for_it_where_nothing_happened(world: World) -> None:
    recorder = world.recorder()
    await recorder.__aenter__()
    call = await recorder.start("call")
    await world.talk(call, 0, 12)
    writes = world.store.calls["put_manifest"]
    await world.talk(call, 12, 13)
    assert world.store.calls["put_manifest"] == writes
    await die(recorder)


async def test_while_chunks_wait_it_is_not_sent(world: World) -> None:
    """It would lie behind a hole, and take the time that they need."""
    recorder, call = await world.call()
    before = world.chunks()["open.wav"]

    async def break_down(op: str, key: str, done: bool) -> None:
        if not done and key.endswith("000005.wav"):
            raise reset(op)()

    world.store.hook = break_down
    for half in range(13, 17):
        speak(call, world.clock, half / 2, (half + 1) / 2)
        await asyncio.sleep(0.15)  # the engine looks ten times a second
    assert world.chunks()["open.wav"] == before
    world.store.hook = None
    await call.flush()
    assert world.chunks()["open.wav"] != before
    await die(recorder)


async def test_one_that_hangs_holds_up_nothing(world: World) -> None:
    asked = asyncio.Event()

    async def hang(op: str, key: str, done: bool) -> None:
        if op == "put" and not done and key.endswith("open.wav"):
            loop.call_soon_threadsafe(asked.set)
            await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    world.store.hook = hang
    async with world.recorder(retry_deadline_seconds=60) as recorder:
        call = await recorder.start("call")
        speak(call, world.clock, 0, 2.5)
        await asked.wait()
        speak(call, world.clock, 2.5, 6)
        await call.flush()
        assert "000004.wav" in world.chunks()
        result = await call.stop()
    assert result.state is State.COMPLETED
    assert not leftovers(world.folder)


async def test_a_refusal_fails_nothing_and_the_next_chunk_is_another_try(world: World) -> None:
    recorder = world.recorder()
    await recorder.__aenter__()
    call = await recorder.start("call")
    refused = 0

    async def refuse(op: str, key: str, done: bool) -> None:
        nonlocal refused
        if not done and key.endswith("open.wav") and refused < 2:
            refused += 1
            raise refusal(AccessDenied, op)()

    world.store.hook = refuse
    await world.talk(call, 0, 8)  # halves of the first and the second chunk are settled
    assert refused == 2
    assert list(world.chunks()) == ["000001.wav", "000002.wav"]
    await world.talk(call, 8, 9)
    assert "open.wav" in world.chunks()
    assert (await call.stop()).state is State.COMPLETED
    await recorder.close()
    assert not leftovers(world.folder)


async def test_late_audio_goes_on_within_the_chunk(world: World) -> None:
    recorder, call = await world.call()
    await world.rescue()
    finished = samples(world.folder)
    np.testing.assert_array_equal(finished, VOICE[: 4 * RATE + HALF])
    await world.talk(call, 13, 20)
    result = await call.stop()
    assert result.state is State.PENDING
    await recorder.close()
    assert "000005.wav" in world.chunks(), "it had to ask first"
    async with world.recorder() as again:
        [one] = await again.recover()
        assert one.outcome is Outcome.CONTINUED
    np.testing.assert_array_equal(samples(world.folder), finished)
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE + HALF : 10 * RATE])
    assert not leftovers(world.folder)
    assert not await world.differences()


@pytest.mark.parametrize("back", [False, True])
async def test_a_length_within_a_chunk_that_was_final_stays_so(world: World, back: bool) -> None:
    """Its rescuer is lost after it had fixed the length; somebody else, or its owner, finishes."""
    recorder, call = await world.call()
    other = FaultyStore(LocalStore(world.folder / "bucket"))
    other.refuse("complete_multipart", reset("complete_multipart"))
    [one] = await world.rescue(other)
    assert one.outcome is Outcome.PENDING
    assert manifest(world.folder)["sealed"] is True
    await world.talk(call, 13, 15)  # its fifth chunk and another half come after that
    assert {"000005.wav", "open.wav"} <= set(world.chunks())
    await die(recorder)
    if back:
        async with world.recorder() as again:
            [one] = await again.recover()
            assert one.outcome is Outcome.TAKEN
            world.clock.advance(16)
            [one] = await again.recover()
        assert one.outcome is Outcome.CONTINUED
        late = samples(world.folder, "continuation-*/audio.wav")
        np.testing.assert_array_equal(late, VOICE[4 * RATE + HALF : 7 * RATE + HALF])
    else:
        shutil.rmtree(world.folder / "spool")
        [one] = await world.rescue()
        assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE + HALF])
    assert not leftovers(world.folder)
    assert not await world.differences()


async def test_a_rescuer_lost_before_the_length_was_final_leaves_nothing(world: World) -> None:
    recorder, _ = await world.call()
    await world.lose(recorder)
    other = FaultyStore(LocalStore(world.folder / "bucket"))

    async def cut_off(op: str, key: str, done: bool) -> None:
        other.down = other.down or (op == "put" and done and "/chunks/" in key)

    other.hook = cut_off
    [one] = await world.rescue(other)
    assert one.outcome is Outcome.PENDING
    assert len(world.chunks()) == 6
    await world.rescue()
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE + HALF])
    assert not leftovers(world.folder)


async def test_a_bucket_changed_by_it_alone_is_a_sign_of_life(world: World) -> None:
    recorder, _ = await world.call()
    settings = settings_in(world.folder, spool_dir=world.folder / "other-spool")
    async with Recorder(settings, clock=world.clock, recover=False) as other:
        assert await other.recover(bucket=True, wait=False) == []
        world.clock.advance(14)
        [path] = world.folder.glob("bucket/dt=*/call/chunks/open.wav")
        path.write_bytes(path.read_bytes()[:-2] + b"12")
        assert await other.recover(bucket=True, wait=False) == []
        world.clock.advance(14)
        assert await other.recover(bucket=True, wait=False) == []
    await die(recorder)


async def test_it_can_be_played_while_the_call_goes_on(world: World) -> None:
    recorder, _ = await world.call()
    body = world.chunks()["open.wav"]
    header = parse_header(body[:4096])
    assert (header.sample_rate, header.channels) == (RATE, 2)
    played = np.frombuffer(body, "<i2", offset=header.data_offset).reshape(-1, 2)
    np.testing.assert_array_equal(played[:, 0], VOICE[4 * RATE : 4 * RATE + HALF])
    await die(recorder)
