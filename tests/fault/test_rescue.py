"""A host is lost, disk and all: any other one finishes its recordings from what the bucket has."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, die, leftovers, listing, manifest, samples, settings_in, speak
from faulty_store import FaultyStore, refusal

from recorder import Outcome, Recorder, Recovered, State, Track, VirtualClock
from uploader.errors import AccessDenied, Unsupported
from uploader.local import LocalStore


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def lost_call(
    folder: Path, clock: VirtualClock, sealed: int = 4, name: str = "call", **changes: Any
) -> None:
    """A call whose host is lost two seconds of speech after its last chunk was sealed."""
    settings = settings_in(folder, **changes)
    recorder = Recorder(settings, clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start(name)
    for second in range(sealed + 2):
        speak(call, clock, second, second + 1)
        await call.flush()
    await die(recorder)
    shutil.rmtree(folder / "spool")


def other_host(folder: Path, clock: VirtualClock, **options: Any) -> Recorder:
    settings = settings_in(folder, spool_dir=folder / "other-spool")
    return Recorder(settings, clock=clock, recover=False, **options)


async def rescued(folder: Path, clock: VirtualClock, **options: Any) -> list[Recovered]:
    async with other_host(folder, clock) as recorder:
        return await recorder.recover(bucket=True, **{"stale_after": 0, **options})


async def test_what_was_sealed_is_finished_and_what_is_missing_is_listed(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    [one] = await rescued(tmp_path, clock)
    assert (one.recording_id, one.source, one.outcome) == ("call", "bucket", Outcome.RECOVERED)
    assert one.result is not None
    assert one.result.state is State.COMPLETED_WITH_GAPS
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 4 * RATE])
    gaps = {(gap.track, gap.start, gap.end) for gap in one.result.gaps}
    assert gaps == {("user", 4 * RATE, None), ("bot", 4 * RATE, None)}
    document = manifest(tmp_path)
    assert (document["state"], document["epoch"]) == ("completed_with_gaps", 2)
    assert document["recovered"][0]["from"] == "bucket"
    assert not leftovers(tmp_path)


async def test_who_spoke_is_known_after_a_death_and_after_a_loss(
    tmp_path: Path, clock: VirtualClock
) -> None:
    """From the spool and from the bucket: whose a track is, since when, and a turn's number."""
    for lost in (False, True):
        folder = tmp_path / str(lost)
        folder.mkdir()
        settings = settings_in(folder, stall_seconds=0)  # nobody waits for a guest who says nothing
        recorder = Recorder(settings, clock=clock, recover=False)
        await recorder.__aenter__()
        call = await recorder.start("call")
        call.add_track(Track("user", participant="Zoë"))
        call.add_track(Track("guest", participant="id-2"))
        for second in range(6):
            speak(call, clock, second, second + 1)
            if second == 0:
                call.start_turn("user", at=call.zero + 0.25)
                call.end_turn("user", at=call.zero + 0.75, conversation_turn=7)
            await call.flush()
        await die(recorder)
        if lost:
            shutil.rmtree(folder / "spool")
            [one] = await rescued(folder, clock)
        else:
            async with Recorder(settings_in(folder), clock=clock, recover=False) as again:
                [one] = await again.recover()
        assert one.outcome is Outcome.RECOVERED
        document = manifest(folder)
        assert [(track["name"], track["participant"]) for track in document["tracks"]] == [
            ("user", "Zoë"),
            ("bot", None),
            ("guest", "id-2"),
        ]
        assert [track["joined"] for track in document["tracks"]] == [0, None, None]
        [turn] = document["turns"]
        assert (turn["track"], turn["conversation_turn"]) == ("user", 7)


async def test_an_owner_is_gone_when_nothing_has_changed_between_two_looks(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    async with other_host(tmp_path, clock) as recorder:

        async def look() -> list[Recovered]:
            return await recorder.recover(bucket=True, wait=False)

        assert await look() == []
        clock.advance(14.9)  # chunks of a second: at least 15 s
        assert await look() == []
        clock.advance(0.2)
        [one] = await look()
    assert one.outcome is Outcome.RECOVERED


@pytest.mark.parametrize("sign", ["chunk", "upload"])
async def test_what_arrives_in_the_bucket_is_a_sign_of_life_too(
    tmp_path: Path, clock: VirtualClock, sign: str
) -> None:
    await lost_call(tmp_path, clock)
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    folder = f"{next(tmp_path.glob('bucket/dt=*/call')).relative_to(tmp_path / 'bucket')}/"
    async with other_host(tmp_path, clock, store=store) as recorder:
        assert await recorder.recover(bucket=True, wait=False) == []
        clock.advance(10)
        if sign == "chunk":
            await store.inner.put(f"{folder}chunks/000005.wav", b"chunk")
        else:
            await store.inner.create_multipart(f"{folder}user.wav")
        for seconds in (0, 14.9):
            clock.advance(seconds)
            assert await recorder.recover(bucket=True, wait=False) == []
        clock.advance(0.2)
        [one] = await recorder.recover(bucket=True, wait=False)
    assert one.outcome is Outcome.RECOVERED


async def test_an_owner_that_shows_life_is_left_alone(tmp_path: Path, clock: VirtualClock) -> None:
    async with (
        Recorder(settings_in(tmp_path), clock=clock, recover=False) as owner,
        other_host(tmp_path, clock) as observer,
    ):
        call = await owner.start("call")
        for second in range(0, 40, 4):
            speak(call, clock, second, second + 4)
            await call.flush()
            assert await observer.recover(bucket=True, wait=False, stale_after=5) == []
        result = await call.stop()
    assert result.state is State.COMPLETED


async def test_looking_waits_and_tells_the_living_from_the_dead(
    tmp_path: Path, clock: VirtualClock
) -> None:
    from uploader.clock import SystemClock

    await lost_call(tmp_path, clock)
    async with (
        Recorder(settings_in(tmp_path), recover=False) as owner,
        other_host(tmp_path, clock) as observer,
    ):
        observer.clock = SystemClock()
        alive = await owner.start("alive")

        async def live() -> None:
            while True:
                alive.write("user", bytes(960), RATE)
                await asyncio.sleep(0.02)

        living = asyncio.ensure_future(live())
        async with other_host(tmp_path, SystemClock()) as observer:  # type: ignore[arg-type]
            found = await observer.recover(bucket=True, stale_after=4)
        living.cancel()
        await alive.stop()
    outcomes = {one.recording_id: one.outcome for one in found}
    assert outcomes == {"call": Outcome.RECOVERED, "alive": Outcome.ALIVE}


async def test_any_number_of_rescuers_do_each_recording_once(
    tmp_path: Path, clock: VirtualClock
) -> None:
    for index in range(6):
        await lost_call(tmp_path, clock, sealed=2, name=f"call-{index}")
    found = await asyncio.gather(*(rescued(tmp_path, clock) for _ in range(3)))
    done = [one.recording_id for host in found for one in host if one.outcome is Outcome.RECOVERED]
    assert sorted(done) == [f"call-{index}" for index in range(6)]
    others = {one.outcome for host in found for one in host} - {Outcome.RECOVERED}
    assert others <= {Outcome.TAKEN, Outcome.CLEANED}
    assert not leftovers(tmp_path)


async def test_acknowledged_parts_are_neither_sent_nor_read_again(tmp_path: Path) -> None:
    clock, rate = VirtualClock(), 192_000
    # Without a waveform, for which a host without the spool reads each chunk once.
    changes = {"sample_rate": rate, "part_bytes": 5 * 1024**2, "chunk_seconds": 2.0, "peaks": False}
    noise = np.random.default_rng(5).integers(-9000, 9000, 26 * rate, dtype=np.int16)
    recorder = Recorder(settings_in(tmp_path, **changes), clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    for second in range(26):
        clock.advance(1)
        call.write("user", noise[second * rate : (second + 1) * rate].tobytes(), rate)
        await call.flush()
    await die(recorder)
    shutil.rmtree(tmp_path / "spool")
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as other:
        [one] = await other.recover(bucket=True, stale_after=0)
    assert one.outcome is Outcome.RECOVERED
    [length] = {output.bytes for output in one.result.outputs} if one.result else [0]
    assert length == 80 + 24 * rate * 4
    sent = sorted(number for op, _, number in store.log if op == "upload_part")
    assert sent == [1, 4], "parts 2 and 3 were in the store before"
    read = {key[-10:-4] for op, key, _ in store.log if op == "get"}
    assert "000007" not in read, "a chunk was read that only acknowledged parts need"
    np.testing.assert_array_equal(samples(tmp_path), noise[: 24 * rate])
    assert not leftovers(tmp_path)


async def test_without_conditional_writes_nothing_is_taken_over_unless_told(
    tmp_path: Path, clock: VirtualClock
) -> None:
    class Unconditional(FaultyStore):
        async def put(self, *args: Any, **options: Any) -> Any:
            if options.get("if_absent") or options.get("if_match"):
                raise refusal(Unsupported, "put")()
            return await super().put(*args, **options)

    await lost_call(tmp_path, clock)
    store = Unconditional(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        before = listing(tmp_path / "bucket")
        [one] = await recorder.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.FAILED
        assert "conditional writes" in one.reason
        assert "--unfenced" in one.hint
        assert listing(tmp_path / "bucket") == before
        [one] = await recorder.recover(bucket=True, stale_after=0, unfenced=True)
        assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 4 * RATE])


async def test_a_chunk_that_is_missing_is_silence_and_a_gap(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    next(tmp_path.glob("bucket/dt=*/call/chunks/000002.wav")).unlink()
    [one] = await rescued(tmp_path, clock)
    assert one.result is not None
    assert ("user", RATE, 2 * RATE) in {(gap.track, gap.start, gap.end) for gap in one.result.gaps}
    expected = VOICE[: 4 * RATE].copy()
    expected[RATE : 2 * RATE] = 0
    np.testing.assert_array_equal(samples(tmp_path), expected)
    assert [chunk.get("lost") for chunk in manifest(tmp_path)["chunks"]] == [None, True, None, None]


def forget_last_chunk(document: dict[str, Any]) -> None:
    document["chunks"].pop()


async def test_a_chunk_that_came_after_the_last_manifest_is_used(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    change_manifest(tmp_path, forget_last_chunk)
    [one] = await rescued(tmp_path, clock)
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 4 * RATE])
    assert manifest(tmp_path)["chunks"][-1]["tracks"] == ["user", "bot"]


async def test_an_object_that_is_no_chunk_is_not_taken_for_one(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    change_manifest(tmp_path, forget_last_chunk)
    next(tmp_path.glob("bucket/dt=*/call/chunks/000004.wav")).write_bytes(b"not audio")
    [one] = await rescued(tmp_path, clock)
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 3 * RATE])
    assert not leftovers(tmp_path)


async def test_a_damaged_chunk_is_an_error_and_nothing_is_overwritten(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    chunk = next(tmp_path.glob("bucket/dt=*/call/chunks/000002.wav"))
    body = bytearray(chunk.read_bytes())
    body[1000] ^= 1
    chunk.write_bytes(body)
    [one] = await rescued(tmp_path, clock)
    assert one.outcome is Outcome.FAILED
    assert "chunk 2" in one.reason
    assert not list(tmp_path.glob("bucket/dt=*/call/audio.wav"))
    assert len(list(tmp_path.glob("bucket/dt=*/call/chunks/*"))) == 4


async def test_a_host_lost_after_the_length_was_final_costs_nothing(
    tmp_path: Path, clock: VirtualClock
) -> None:
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    settings = settings_in(tmp_path, retry_deadline_seconds=1)
    recorder = Recorder(settings, clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    speak(call, clock, 0, 4.5)
    store.refuse("complete_multipart", refusal(AccessDenied, "complete_multipart"))
    assert (await call.stop()).state is State.FAILED
    await die(recorder)
    shutil.rmtree(tmp_path / "spool")
    [one] = await rescued(tmp_path, clock)
    assert one.result is not None
    assert one.result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: round(4.5 * RATE)])
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("keep", [False, True])
async def test_what_a_finished_recording_left_behind_is_deleted_and_no_more(
    tmp_path: Path, clock: VirtualClock, keep: bool
) -> None:
    async with Recorder(settings_in(tmp_path, keep_chunks=keep), clock=clock) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 3)
        await call.stop()
    store = LocalStore(tmp_path / "bucket")
    async with store:
        folder = f"{next(tmp_path.glob('bucket/dt=*/call')).relative_to(tmp_path / 'bucket')}/"
        await store.create_multipart(f"{folder}audio.wav")
        await store.put(f"{folder}chunks/000009.wav", b"late")
        late = await store.create_multipart(f"{folder}continuation-0-1/audio.wav")
    kept = {name: body for name, body in listing(tmp_path).items() if "000009" not in name}
    before = {name: body for name, body in kept.items() if "/.store/" not in name}
    [one] = await rescued(tmp_path, clock)
    assert one.outcome is Outcome.CLEANED
    after = {name: body for name, body in listing(tmp_path).items() if "/.store/" not in name}
    assert after == before
    async with store:
        uploads = [one.upload_id async for one in store.list_uploads()]
    assert uploads == [late], "late audio is a recording of its own"
    assert await rescued(tmp_path, clock) == []


async def test_a_bucket_that_refuses_deletes_gets_them_listed(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        store.refuse("delete", refusal(AccessDenied, "delete"))  # after it was found to be allowed
        [one] = await recorder.recover(bucket=True, stale_after=0)
        assert one.result is not None
        assert one.result.durable
        names = [key.rpartition("/")[2] for key in one.result.leftovers]
        assert names == [f"{number:06d}.wav" for number in range(1, 5)]
        assert manifest(tmp_path)["leftovers"] == list(one.result.leftovers)
        assert await recorder.recover(bucket=True, stale_after=0) == [], "it is tried for ever"


@pytest.mark.parametrize("op", ["delete", "abort_multipart"])
async def test_leftovers_that_another_host_may_not_delete_are_listed_too(
    tmp_path: Path, clock: VirtualClock, op: str
) -> None:
    """Their owner died between `completed` and its deletes."""
    async with Recorder(settings_in(tmp_path), clock=clock) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 3)
        await call.stop()
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        folder = f"{next(tmp_path.glob('bucket/dt=*/call')).relative_to(tmp_path / 'bucket')}/"
        upload_id = await store.inner.create_multipart(f"{folder}audio.wav")
        await store.inner.put(f"{folder}chunks/000002.wav", b"chunk")
        store.refuse(op, refusal(AccessDenied, op))
        [one] = await recorder.recover(bucket=True, stale_after=0)
        assert one.outcome is Outcome.CLEANED
        assert "1 of them may not be deleted, and are listed in the manifest" in one.reason
        names = {
            "delete": f"{folder}chunks/000002.wav",
            "abort_multipart": f"{folder}audio.wav?uploadId={upload_id}",
        }
        assert manifest(tmp_path)["leftovers"] == [names[op]]
        assert await recorder.recover(bucket=True, stale_after=0) == [], "it is tried for ever"


async def test_uploads_that_may_not_be_aborted_are_listed(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        folder = f"{next(tmp_path.glob('bucket/dt=*/call')).relative_to(tmp_path / 'bucket')}/"
        upload_id = await store.inner.create_multipart(f"{folder}audio.wav")
        store.refuse("abort_multipart", refusal(AccessDenied, "abort_multipart"))
        [one] = await recorder.recover(bucket=True, stale_after=0)
        assert one.result is not None
        assert one.result.durable
        assert one.result.leftovers == (f"{folder}audio.wav?uploadId={upload_id}",)
        assert manifest(tmp_path)["leftovers"] == list(one.result.leftovers)
        assert not list(tmp_path.glob("bucket/dt=*/call/chunks/*"))
        assert await recorder.recover(bucket=True, stale_after=0) == [], "it is tried for ever"


async def test_parts_that_may_not_be_listed_keep_nothing_from_being_rescued(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        store.refuse("list_parts", refusal(AccessDenied, "list_parts"))
        [one] = await recorder.recover(bucket=True, stale_after=0)
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 4 * RATE])
    assert not leftovers(tmp_path)


async def test_what_failed_is_left_alone_for_a_while_by_who_looks_again_and_again(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock)
    chunk = next(tmp_path.glob("bucket/dt=*/call/chunks/000002.wav"))
    body = bytearray(chunk.read_bytes())
    body[1000] ^= 1
    chunk.write_bytes(body)
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        told: list[Recovered] = []
        for _ in range(91):  # a quarter of an hour
            told += await recorder.recover(bucket=True, wait=False)
            clock.advance(10)
    assert {one.outcome for one in told} == {Outcome.FAILED}
    tries = len({id(one) for one in told})
    assert tries == len(manifest(tmp_path)["recovered"]) == 4
    assert len(told) > 80, "who watches is told of it at each look"


async def test_a_dry_run_changes_nothing(tmp_path: Path, clock: VirtualClock) -> None:
    await lost_call(tmp_path, clock)
    before = listing(tmp_path)
    [one] = await rescued(tmp_path, clock, dry_run=True)
    assert one.outcome is Outcome.RECOVERED
    assert "would be taken over" in one.reason
    changed = {k for k, v in listing(tmp_path).items() if before.get(k) != v}
    assert not changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(chunks=[{"number": "1"}]), "not a chunk"),
        (lambda d: d.update(recording_id="../x"), "plan"),
        (lambda d: d.update(day="2020-01-01"), "2020-01-01"),
        (lambda d: d.update(sample_rate=0), "sample_rate"),
        (lambda d: d.pop("token"), "token"),
    ],
)
async def test_a_manifest_that_makes_no_sense_is_left_alone_with_a_reason(
    tmp_path: Path, clock: VirtualClock, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    await lost_call(tmp_path, clock, sealed=1)
    change_manifest(tmp_path, change)
    objects = set(listing(tmp_path / "bucket"))
    [one] = await rescued(tmp_path, clock)
    assert one.outcome is Outcome.FAILED
    assert says in one.reason
    assert set(listing(tmp_path / "bucket")) == objects


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    [path] = folder.glob("bucket/dt=*/call/manifest.json")
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


async def test_days_that_are_over_are_looked_at_seldom(tmp_path: Path, clock: VirtualClock) -> None:
    async with LocalStore(tmp_path / "bucket") as inner:
        for day in ("2020-01-01", "2020-01-02", "2020-01-03"):
            await inner.put(f"dt={day}/call/audio.wav", b"audio")

    class Counted(FaultyStore):
        prefixes: list[str] = []  # noqa: RUF012 - one store, one test

        def list_objects(self, prefix: str = "") -> Any:
            self.prefixes.append(prefix)
            return super().list_objects(prefix)

    store = Counted(LocalStore(tmp_path / "bucket"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        for _ in range(3):
            await recorder.recover(bucket=True, wait=False)
            clock.advance(10)
        assert Counted.prefixes.count("dt=2020-01-01/") == 1
        assert Counted.prefixes.count("dt=2020-01-03/") == 3
        clock.advance(3600)
        await recorder.recover(bucket=True, wait=False)
        assert Counted.prefixes.count("dt=2020-01-01/") == 2


async def test_a_wait_says_what_it_is_for(tmp_path: Path, clock: VirtualClock) -> None:
    from uploader.clock import SystemClock

    await lost_call(tmp_path, clock)
    waits: list[tuple[int, float]] = []
    async with other_host(tmp_path, SystemClock()) as recorder:  # type: ignore[arg-type]
        [one] = await recorder.recover(bucket=True, stale_after=0.2, on_wait=waits.append)
    assert one.outcome is Outcome.RECOVERED
    assert [count for count, _ in waits] == [1]
    assert 0 < waits[0][1] <= 0.2 + 1e-6


async def test_a_bucket_where_parts_may_not_be_looked_at_is_looked_through_all_the_same(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await lost_call(tmp_path, clock, name="first")
    await lost_call(tmp_path, clock, name="second")
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    store.refuse("list_parts", refusal(AccessDenied, "list_parts"))
    async with other_host(tmp_path, clock, store=store) as recorder:
        found = await recorder.recover(bucket=True, stale_after=0)
    assert [one.outcome for one in found] == [Outcome.RECOVERED] * 2
    assert not leftovers(tmp_path)
