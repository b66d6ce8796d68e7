"""An owner that was cut off comes back after another host took its recording over.

It can neither change nor replace what was finished, and loses nothing: its late audio is attached.
"""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, die, leftovers, listing, manifest, samples, settings_in, speak
from faulty_store import FaultyStore, refusal, reset

from recorder import Outcome, Recorder, Session, State, VirtualClock
from recorder.events import Event, UploadFailed
from uploader.errors import AccessDenied
from uploader.local import LocalStore
from uploader.manifest import LostOwnership


class World:
    """An owner that is cut off, and another host that takes its recording over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        self.store = FaultyStore(LocalStore(folder / "bucket"))
        self.seen: list[Event] = []
        self.owner = Recorder(
            settings_in(folder, retry_deadline_seconds=1),
            clock=self.clock,
            store=self.store,
            recover=False,
        )

    async def cut_off(self, **changes: Any) -> Session:
        """Start a call, deliver four seconds of it, speak two more and lose the network."""
        self.owner.settings = self.owner.settings.replace(**changes)
        await self.owner.__aenter__()
        call = await self.owner.start("call", on_event=self.seen.append)
        for second in range(6):
            speak(call, self.clock, second, second + 1)
            await call.flush()
        self.store.down = True
        return call

    async def take_over(self) -> None:
        settings = settings_in(self.folder, spool_dir=self.folder / "other-spool")
        async with Recorder(settings, clock=self.clock, recover=False) as other:
            [one] = await other.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.RECOVERED
        np.testing.assert_array_equal(samples(self.folder), VOICE[: 4 * RATE])

    def finished(self) -> dict[str, bytes]:
        """What was finished by the other host."""
        found = listing(self.folder / "bucket")
        return {
            name: body
            for name, body in found.items()
            if not name.startswith(".store") and "continuation" not in name
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_late_audio_is_attached_and_what_was_finished_is_not_touched(world: World) -> None:
    call = await world.cut_off()
    await world.take_over()
    finished = world.finished()
    world.store.down = False
    for second in range(6, 10):
        speak(call, world.clock, second, second + 1)
        await call.flush()
    result = await call.stop()
    assert result.state is State.PENDING
    assert "another owner" in result.reason
    errors = [event.error for event in world.seen if isinstance(event, UploadFailed)]
    assert any(isinstance(error, LostOwnership) for error in errors)
    assert (world.folder / "spool" / "call" / "recording.json").exists()
    left = {name: body for name, body in world.finished().items() if "/chunks/" not in name}
    assert left == finished
    await world.owner.close()
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
    assert one.outcome is Outcome.CONTINUED
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE : 10 * RATE])
    after = world.finished()
    [key] = [name for name in after if name.endswith("manifest.json")]
    assert {k: v for k, v in after.items() if k != key} == {
        k: v for k, v in finished.items() if k != key
    }
    [listed] = manifest(world.folder)["continuations"]
    assert (listed["first_sample"], listed["samples"]) == (4 * RATE, 6 * RATE)
    assert listed["folder"].startswith(key.removesuffix("manifest.json") + "continuation-")
    assert manifest(world.folder, "continuation-*/")["state"] == "completed"
    assert not leftovers(world.folder)


async def test_an_owner_back_in_the_middle_of_its_end_cannot_complete_anything(
    world: World,
) -> None:
    call = await world.cut_off()
    await world.take_over()
    finished = world.finished()
    world.store.down = False
    result = await call.stop()  # the first it sends is chunks and parts, and then it must ask
    assert result.state is State.PENDING
    assert world.store.calls["complete_multipart"] == 0
    left = {name: body for name, body in world.finished().items() if "/chunks/" not in name}
    assert left == finished
    await world.owner.close()
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
    assert one.outcome is Outcome.CONTINUED
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE : 6 * RATE])
    assert not leftovers(world.folder)


async def test_an_owner_that_never_noticed_the_takeover_asks_before_it_completes(
    world: World,
) -> None:
    """Whoever took over has fixed a shorter length, and made no object of it yet."""
    await world.owner.__aenter__()
    call = await world.owner.start("call")
    speak(call, world.clock, 0, 6)
    await call.flush()
    store = FaultyStore(LocalStore(world.folder / "bucket"))
    settings = settings_in(
        world.folder, spool_dir=world.folder / "other-spool", retry_deadline_seconds=1
    )
    async with Recorder(settings, clock=world.clock, store=store, recover=False) as other:
        store.refuse("complete_multipart", reset("complete_multipart"))
        [one] = await other.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.PENDING
        result = await call.stop()
        assert result.state is State.PENDING
        assert "another owner" in result.reason
        assert not [op for op, _, _ in world.store.log if op == "complete_multipart"]
        store.refuse("complete_multipart", None)
        [one] = await other.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE])
    await world.owner.close()
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
    assert one.outcome is Outcome.CONTINUED
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE : 6 * RATE])
    assert not leftovers(world.folder)


async def test_an_owner_back_before_anything_is_complete_leaves_it_to_who_took_over(
    world: World,
) -> None:
    """Its length would be another one: who has the manifest completes, and nobody else."""
    call = await world.cut_off()
    other = FaultyStore(LocalStore(world.folder / "bucket"))

    async def cut_off_too(op: str, key: str, done: bool) -> None:
        other.down = other.down or (op == "put_manifest" and done)

    other.hook = cut_off_too
    spool = world.folder / "other-spool"
    settings = settings_in(world.folder, spool_dir=spool, retry_deadline_seconds=1)
    async with Recorder(settings, clock=world.clock, store=other, recover=False) as rescuer:
        [one] = await rescuer.recover(bucket=True, stale_after=0)
    assert one.outcome is not Outcome.RECOVERED
    assert manifest(world.folder)["epoch"] == 2
    world.store.down = False
    result = await call.stop()
    assert result.state is State.PENDING
    assert world.store.calls["complete_multipart"] == 0
    assert not list(world.folder.glob("bucket/dt=*/call/audio.wav"))
    await world.owner.close()
    settings = settings_in(world.folder, spool_dir=spool)
    async with Recorder(settings, clock=world.clock, recover=False) as rescuer:
        [one] = await rescuer.recover(bucket=True, stale_after=0)
    assert one.outcome is Outcome.RECOVERED
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
    assert one.outcome is Outcome.CLEANED  # its last chunks had come before it had to ask
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 6 * RATE])
    assert not leftovers(world.folder)


async def test_a_recovery_of_late_audio_that_dies_is_gone_on_with(world: World) -> None:
    await world.cut_off()
    await world.take_over()
    await die(world.owner)
    for op in ("put_manifest", "put", "head", "delete"):
        store = FaultyStore(LocalStore(world.folder / "bucket"))
        settings = settings_in(world.folder, retry_deadline_seconds=1)
        async with Recorder(settings, clock=world.clock, store=store, recover=False) as again:
            store.refuse(op, reset(op))
            [one] = await again.recover()
            assert one.outcome is Outcome.PENDING
        begun = list(world.folder.glob("bucket/dt=*/call/continuation-*/manifest.json"))
        assert len(manifest(world.folder)["continuations"]) == len(begun), op
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
        assert one.outcome is Outcome.CONTINUED
        assert await again.recover() == []
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE : 6 * RATE])
    assert len(manifest(world.folder)["continuations"]) == 1
    assert not leftovers(world.folder)


async def test_cleaning_up_leaves_the_uploads_of_late_audio_alone(world: World) -> None:
    await world.cut_off()
    [path] = world.folder.glob("bucket/dt=*/call/manifest.json")
    folder = f"{path.parent.parent.name}/call/"
    async with LocalStore(world.folder / "bucket") as store:
        late = await store.create_multipart(f"{folder}continuation-0/audio.wav")
        await store.create_multipart(f"{folder}audio.wav")  # one that nobody has heard of
        await world.take_over()
        assert [one.upload_id async for one in store.list_uploads()] == [late]


async def test_a_spool_with_nothing_more_than_what_was_finished_is_cleaned(world: World) -> None:
    call = await world.cut_off()
    world.store.down = False
    settings = settings_in(world.folder, retry_deadline_seconds=1)
    call.end()
    await call.sealed()
    await die(world.owner)
    (world.folder / "spool").rename(world.folder / "away")
    # All chunks arrived before the owner died; only its spool does not know what became of them.
    async with Recorder(settings, clock=world.clock, recover=False) as other:
        found = await other.recover(bucket=True, stale_after=0)
    assert {one.outcome for one in found} <= {Outcome.RECOVERED}
    if (world.folder / "spool").exists():
        (world.folder / "spool").rmdir()
    (world.folder / "away").rename(world.folder / "spool")
    async with Recorder(settings, clock=world.clock, recover=False) as again:
        [one] = await again.recover()
    assert one.outcome in (Outcome.CLEANED, Outcome.CONTINUED)
    total = manifest(world.folder)["samples"] + sum(
        listed["samples"] for listed in manifest(world.folder)["continuations"]
    )
    assert total == 6 * RATE
    assert not leftovers(world.folder)


async def test_a_recording_somebody_else_is_finishing_is_left_to_them_while_they_live(
    world: World,
) -> None:
    await world.cut_off()
    await die(world.owner)
    store = FaultyStore(LocalStore(world.folder / "bucket"))
    settings = settings_in(
        world.folder, spool_dir=world.folder / "other-spool", retry_deadline_seconds=1
    )
    async with Recorder(settings, clock=world.clock, store=store, recover=False) as other:
        store.refuse("complete_multipart", reset("complete_multipart"))
        [one] = await other.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.PENDING  # and then that host is gone, too
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
        assert one.outcome is Outcome.TAKEN
        world.clock.advance(14.9)
        [one] = await again.recover()
        assert one.outcome is Outcome.TAKEN
        world.clock.advance(0.2)
        [one] = await again.recover()
    # The length was final at four seconds: an object of it may exist. The rest is attached.
    assert one.outcome is Outcome.CONTINUED
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE])
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE : 6 * RATE])
    assert not leftovers(world.folder)


async def test_a_chunk_that_comes_after_the_length_was_final_does_not_count(world: World) -> None:
    """An object of that length exists already, and a longer one could never take its place."""
    call = await world.cut_off()
    store = FaultyStore(LocalStore(world.folder / "bucket"))
    settings = settings_in(
        world.folder, spool_dir=world.folder / "other-spool", retry_deadline_seconds=1
    )
    async with Recorder(settings, clock=world.clock, store=store, recover=False) as other:
        store.refuse("head", reset("head"))  # the object is made, and then that host is gone, too
        [one] = await other.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.PENDING
    world.store.down = False
    speak(call, world.clock, 6, 7)
    await call.flush()
    assert len(list(world.folder.glob("bucket/dt=*/call/chunks/*"))) > 4
    async with Recorder(settings, clock=world.clock, recover=False) as third:
        [one] = await third.recover(bucket=True, stale_after=0)
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE])
    await call.stop()
    await world.owner.close()
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
    assert one.outcome is Outcome.CONTINUED
    late = samples(world.folder, "continuation-*/audio.wav")
    np.testing.assert_array_equal(late, VOICE[4 * RATE : 7 * RATE])
    assert not leftovers(world.folder)


async def test_a_dry_run_tells_late_audio_from_leftovers(world: World) -> None:
    call = await world.cut_off()
    await world.take_over()
    speak(call, world.clock, 6, 6.5)
    await die(world.owner)
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        before = listing(world.folder)
        [one] = await again.recover(dry_run=True)
        assert one.outcome is Outcome.CONTINUED
        assert listing(world.folder) == before
        (world.folder / "spool" / "call" / "checkpoint.json").unlink(missing_ok=True)
        [one] = await again.recover(dry_run=True)
        assert one.outcome is Outcome.CONTINUED, "all there is of it is in the journal"


@pytest.mark.parametrize("stale_after", [0, 0.3])
async def test_whoever_looks_once_outlives_an_owner_after_it_who_is_gone_too(
    world: World, stale_after: float
) -> None:
    from uploader.clock import SystemClock

    await world.cut_off()
    await die(world.owner)
    store = FaultyStore(LocalStore(world.folder / "bucket"))
    settings = settings_in(
        world.folder, spool_dir=world.folder / "other-spool", retry_deadline_seconds=1
    )
    async with Recorder(settings, clock=world.clock, store=store, recover=False) as other:
        store.refuse("complete_multipart", reset("complete_multipart"))
        [one] = await other.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.PENDING
    waits: list[tuple[int, float]] = []
    async with Recorder(settings_in(world.folder), clock=SystemClock(), recover=False) as again:
        [one] = await again.recover(bucket=True, stale_after=stale_after, on_wait=waits.append)
    assert one.outcome is Outcome.CONTINUED
    assert [count for count, _ in waits] == ([1] if stale_after else [])
    np.testing.assert_array_equal(samples(world.folder), VOICE[: 4 * RATE])
    assert not leftovers(world.folder)


async def test_the_spool_of_late_audio_is_free_again(world: World) -> None:
    await world.cut_off()
    await world.take_over()
    await die(world.owner)
    async with Recorder(settings_in(world.folder), clock=world.clock, recover=False) as again:
        [one] = await again.recover()
        assert one.outcome is Outcome.CONTINUED
        assert again._quota.used < 16_384, "but for the small files of the folder"


async def test_a_chunks_file_goes_only_when_a_manifest_of_its_owner_lists_it(
    tmp_path: Path,
) -> None:
    """Who has taken over meanwhile may not have seen the object: the file is all there is."""
    clock, store = VirtualClock(), FaultyStore(LocalStore(tmp_path / "bucket"))
    settings = settings_in(tmp_path, outputs=("turns",), pre_roll_seconds=0)
    chunks = tmp_path / "spool" / "call" / "chunks"
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 6)
        await call.flush()
        assert not list(chunks.iterdir()), "listed, durable, and needed for nothing"
        store.refuse("put_manifest", refusal(AccessDenied, "put"))
        speak(call, clock, 6, 10)
        await call.flush()
        objects = sorted(path.name for path in tmp_path.glob("bucket/dt=*/call/chunks/*"))
        assert len(objects) == 8
        assert sorted(path.name for path in chunks.iterdir()) == objects[4:]
        store.refuse("put_manifest", None)
        speak(call, clock, 10, 11)
        await call.flush()
        assert not list(chunks.iterdir())
        assert (await call.stop()).state is State.COMPLETED


async def test_an_owner_that_was_taken_over_sends_no_more_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, store = VirtualClock(), FaultyStore(LocalStore(tmp_path / "bucket"))

    async def hold(op: str, key: str, done: bool) -> None:
        if op == "upload_part" and not done:
            await asyncio.Event().wait()

    settings = settings_in(tmp_path, chunk_seconds=10)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 5)
        await call.flush()
        taken = {**manifest(tmp_path), "owner": "somebody else", "epoch": 2}
        [path] = tmp_path.glob("bucket/dt=*/*/manifest.json")
        key = str(path.relative_to(tmp_path / "bucket"))
        await store.inner.put(key, json.dumps(taken).encode())
        store.hook = hold
        async with asyncio.timeout(20):  # of the test alone: it would wait for the part
            result = await call.stop()
    assert result.state is State.PENDING
    assert "upload_part" not in [op for op, _, _ in store.log]
    assert manifest(tmp_path) == taken
    gc.collect()
    assert "never retrieved" not in caplog.text
