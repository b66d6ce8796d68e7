"""A process died, its spool is there: the next one finishes the same object and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, die, leftovers, listing, manifest, samples, settings_in, speak
from faulty_store import FaultyStore, refusal, reset

from recorder import Outcome, Recorder, Recovered, Session, Settings, State, VirtualClock
from recorder.journal_format import HEADER_BYTES, HEADERS, SLOTS, TABLE_AT, offsets
from uploader.errors import AccessDenied
from uploader.local import LocalStore


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    """Opened and closed by the recorder."""
    return FaultyStore(LocalStore(tmp_path / "bucket"))


async def dead_call(folder: Path, clock: VirtualClock, seconds: float, **changes: Any) -> Session:
    """A call whose process died after so many seconds of speech, its last chunks not delivered."""
    recorder = Recorder(settings_in(folder, **changes), clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    speak(call, clock, 0, seconds / 2)
    await call.flush()
    speak(call, clock, seconds / 2, seconds)
    await die(recorder)
    return call


async def recovered(folder: Path, clock: VirtualClock, **options: Any) -> list[Recovered]:
    changes = options.pop("changes", {})
    async with Recorder(settings_in(folder, **changes), clock=clock, recover=False) as recorder:
        return await recorder.recover(**options)


@pytest.mark.parametrize("seconds", [0, 0.1, 1.0, 3.02, 10])
async def test_what_a_dead_process_accepted_becomes_the_object(
    tmp_path: Path, clock: VirtualClock, seconds: float
) -> None:
    await dead_call(tmp_path, clock, seconds)
    [one] = await recovered(tmp_path, clock)
    assert (one.recording_id, one.source, one.outcome) == ("call", "spool", Outcome.RECOVERED)
    assert one.result is not None
    assert one.result.state is State.COMPLETED
    assert one.result.samples == round(seconds * RATE)
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: round(seconds * RATE)])
    assert not leftovers(tmp_path)
    document = manifest(tmp_path)
    assert document["state"] == "completed"
    assert [took["from"] for took in document["recovered"]] == ["spool"]


async def test_the_next_recorder_on_the_spool_does_it_by_itself(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await dead_call(tmp_path, clock, 4)
    done: asyncio.Queue[Recovered] = asyncio.Queue()
    async with Recorder(settings_in(tmp_path), clock=clock, on_recovered=done.put_nowait):
        one = await done.get()
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 4 * RATE])
    assert not leftovers(tmp_path)


async def test_a_live_owners_recording_is_not_touched(tmp_path: Path, clock: VirtualClock) -> None:
    async with Recorder(settings_in(tmp_path), clock=clock) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 4)
        await call.flush()
        before = listing(tmp_path)
        for bucket in (False, True):
            found = await recovered(tmp_path, clock, bucket=bucket, stale_after=0)
            assert {one.outcome for one in found} == {Outcome.ALIVE}
        after = listing(tmp_path)
        assert before.items() <= after.items()
        assert all("/journal/" in name for name in set(after) - set(before))
        speak(call, clock, 4, 5)
        result = await call.stop()
    assert result.state is State.COMPLETED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 5 * RATE])


async def test_a_stop_that_was_accepted_is_not_forgotten(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    recorder = Recorder(settings_in(tmp_path), clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    speak(call, clock, 0, 2)
    store.down = True
    clock.advance(3)  # silence at the end is part of the call
    call.end()
    await call.sealed()
    await die(recorder)
    [one] = await recovered(tmp_path, clock)
    assert one.result is not None
    assert one.result.samples == 5 * RATE
    assert not leftovers(tmp_path)


async def test_parts_that_were_acknowledged_are_not_sent_again(tmp_path: Path) -> None:
    clock, rate = VirtualClock(), 192_000
    settings = settings_in(tmp_path, sample_rate=rate, part_bytes=5 * 1024**2)
    noise = np.random.default_rng(5).integers(-9000, 9000, 32 * rate, dtype=np.int16)
    recorder = Recorder(settings, clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    for second in range(32):
        clock.advance(1)
        call.write("user", noise[second * rate : (second + 1) * rate].tobytes(), rate)
        if second % 8 == 7:
            await call.flush()
    await die(recorder)
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with Recorder(settings, clock=clock, store=store, recover=False) as other:
        [one] = await other.recover()
    assert one.outcome is Outcome.RECOVERED
    sent = sorted(number for op, _, number in store.log if op == "upload_part")
    total = -(-(80 + 32 * rate * 4) // settings.part_bytes)
    assert total == 5
    assert sent == [1, 5], "parts 2 to 4 were in the store before"
    np.testing.assert_array_equal(samples(tmp_path), noise)
    assert not leftovers(tmp_path)


async def test_a_store_that_is_away_or_refuses_costs_time_and_nothing_else(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    await dead_call(tmp_path, clock, 4)
    settings = settings_in(tmp_path, retry_deadline_seconds=1)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        kept = listing(tmp_path / "spool")
        store.down = True
        [one] = await recorder.recover()
        assert one.outcome is Outcome.PENDING
        assert one.reason
        store.down = False
        store.refuse("complete_multipart", refusal(AccessDenied, "complete_multipart"))
        [one] = await recorder.recover()
        assert one.outcome is Outcome.FAILED
        assert one.hint == "ask for permission"
        assert set(listing(tmp_path / "spool")) >= set(kept) - {"call/reserve"}
        store.refuse("complete_multipart", None)
        [one] = await recorder.recover()
        assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 4 * RATE])
    assert not leftovers(tmp_path)
    assert len(manifest(tmp_path)["recovered"]) == 2


async def test_what_stayed_pending_is_finished_without_a_restart(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path, retry_deadline_seconds=1, recover_seconds=0.05)
    done: asyncio.Queue[Recovered] = asyncio.Queue()

    def note(one: Recovered) -> None:
        if one.outcome is Outcome.RECOVERED:
            done.put_nowait(one)

    async with Recorder(settings, clock=clock, store=store, on_recovered=note) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 3)
        store.refuse("complete_multipart", refusal(AccessDenied, "complete_multipart"))
        assert (await call.stop()).state is State.FAILED
        store.refuse("complete_multipart", None)
        await done.get()
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 3 * RATE])
    assert not leftovers(tmp_path)


async def test_a_recording_goes_where_it_was_meant_to_go(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await dead_call(tmp_path, clock, 2)
    other = {"bucket": (tmp_path / "elsewhere").as_uri()}
    (tmp_path / "elsewhere").mkdir()
    [one] = await recovered(tmp_path, clock, changes=other)
    assert one.outcome is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 2 * RATE])


async def test_a_place_that_is_not_to_be_had_is_closed_again_each_time(
    tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_call(tmp_path, clock, 2)
    places: list[FaultyStore] = []
    left: list[FaultyStore] = []

    class Place(FaultyStore):
        async def __aexit__(self, *told: Any) -> None:
            left.append(self)
            await super().__aexit__(*told)

    def make_store(settings: Settings) -> FaultyStore:
        places.append(Place(LocalStore(tmp_path / "bucket")))
        places[-1].down = len(places) <= 2
        return places[-1]

    monkeypatch.setattr("recorder.depot.make_store", make_store)
    (tmp_path / "elsewhere").mkdir()
    settings = settings_in(
        tmp_path, bucket=(tmp_path / "elsewhere").as_uri(), retry_deadline_seconds=1
    )
    async with Recorder(settings, clock=clock, recover=False) as recorder:
        outcomes = []
        for _ in range(3):
            [one] = await recorder.recover()
            outcomes.append(one.outcome)
        assert outcomes == [Outcome.PENDING, Outcome.PENDING, Outcome.RECOVERED]
        assert left == places[:2]
    assert left == places


async def test_what_other_processes_finish_makes_room_in_the_spool_they_share(
    tmp_path: Path, clock: VirtualClock
) -> None:
    async with Recorder(settings_in(tmp_path), clock=clock, recover=False) as other:
        call = await other.start("call")
        speak(call, clock, 0, 4)
        settings = settings_in(tmp_path, recover_seconds=0.05)
        async with Recorder(settings, clock=clock) as recorder:
            assert recorder._quota.used > 1024**2
            assert (await call.stop()).state is State.COMPLETED
            await other.close()
            async with asyncio.timeout(10):
                while recorder._quota.used:  # noqa: ASYNC110 - a figure, and no event
                    await asyncio.sleep(0.02)


async def test_another_recording_under_the_same_id_is_never_overwritten(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await dead_call(tmp_path, clock, 2)
    (tmp_path / "spool").rename(tmp_path / "aside")
    async with Recorder(settings_in(tmp_path, bucket=(tmp_path / "b2").as_uri())) as recorder:
        await (await recorder.start("call")).stop()
    [path] = (tmp_path / "b2").glob("dt=*/call/manifest.json")
    [target] = (tmp_path / "bucket").glob("dt=*/call/manifest.json")
    target.write_bytes(path.read_bytes())
    (tmp_path / "spool").rmdir()
    (tmp_path / "aside").rename(tmp_path / "spool")
    before = target.read_bytes()
    [one] = await recovered(tmp_path, clock)
    assert one.outcome is Outcome.FAILED
    assert "another recording with this id" in one.reason
    assert target.read_bytes() == before
    assert (tmp_path / "spool" / "call" / "recording.json").exists()


@pytest.mark.parametrize(
    ("file", "says"), [("recording.json", "plan"), ("checkpoint.json", "checkpoint.json")]
)
async def test_a_damaged_file_is_named_and_nothing_is_deleted(
    tmp_path: Path, clock: VirtualClock, file: str, says: str
) -> None:
    await dead_call(tmp_path, clock, 8)
    path = tmp_path / "spool" / "call" / file
    path.write_text('{"version": 1}')
    before = listing(tmp_path)
    [one] = await recovered(tmp_path, clock)
    assert one.outcome is Outcome.FAILED
    assert says in one.reason
    assert listing(tmp_path) == before


async def test_a_damaged_journal_gives_what_can_be_read_and_says_what_cannot(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await dead_call(tmp_path, clock, 2)
    path = tmp_path / "spool" / "call" / "journal" / "00000001.journal"
    body = bytearray(path.read_bytes())
    payload = body.index(VOICE[50 * 480 : 51 * 480].tobytes())
    table = np.frombuffer(bytes(body), HEADERS, SLOTS, TABLE_AT)
    [slot] = np.flatnonzero(offsets(table["commit"]) == payload)
    at = TABLE_AT + HEADER_BYTES * int(slot)
    body[at + 32 : at + 36] = b"\xff\xee\xdd\x0c"
    path.write_bytes(body)
    [one] = await recovered(tmp_path, clock)
    assert one.outcome is Outcome.RECOVERED
    assert one.result is not None
    assert one.result.state is State.COMPLETED_WITH_GAPS
    np.testing.assert_array_equal(samples(tmp_path), VOICE[:RATE])
    assert {(gap.track, gap.start, gap.end) for gap in one.result.gaps} == {
        ("user", RATE, None),
        ("bot", RATE, None),
    }
    assert "damaged record" in one.result.gaps[0].reason


async def test_a_death_while_cleaning_up_leaves_nothing_for_long(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path, retry_deadline_seconds=1)
    recorder = Recorder(settings, clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    speak(call, clock, 0, 4)
    store.fail("delete", lambda: asyncio.CancelledError(), times=1)
    result = await call.stop()
    assert result.state is State.COMPLETED
    await die(recorder)
    assert leftovers(tmp_path)
    finished = samples(tmp_path).tobytes()
    [one] = await recovered(tmp_path, clock)
    assert one.outcome is Outcome.CLEANED
    assert not leftovers(tmp_path)
    assert samples(tmp_path).tobytes() == finished


async def test_a_spool_stays_until_the_store_is_clean(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    """It is all that still tells of the chunk objects to whoever has no look at the bucket."""
    settings = settings_in(tmp_path, retry_deadline_seconds=1)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 4)
        store.refuse("delete", reset("delete"))
        assert (await call.stop()).state is State.COMPLETED
    assert (tmp_path / "spool" / "call").exists()
    async with Recorder(settings, clock=clock, store=store, recover=False) as other:
        [one] = await other.recover()
        assert one.outcome is Outcome.PENDING
        assert "leftovers" in one.reason
        store.refuse("delete", None)
        [one] = await other.recover()
        assert one.outcome is Outcome.CLEANED
    assert not leftovers(tmp_path)


async def test_a_dry_run_changes_nothing_and_says_what_would_be_done(
    tmp_path: Path, clock: VirtualClock
) -> None:
    await dead_call(tmp_path, clock, 8)
    before = listing(tmp_path)
    [one] = await recovered(tmp_path, clock, dry_run=True)
    assert one.outcome is Outcome.RECOVERED
    assert one.reason.startswith("would be finished")
    assert listing(tmp_path) == before


async def test_many_are_recovered_at_once(tmp_path: Path, clock: VirtualClock) -> None:
    recorder = Recorder(settings_in(tmp_path), clock=clock, recover=False)
    await recorder.__aenter__()
    for index in range(20):
        call = await recorder.start(f"call-{index}")
        speak(call, clock, 0, 0.2)
    await die(recorder)
    told: list[Recovered] = []
    found = await recovered(tmp_path, clock, on_recovered=told.append)
    assert len(found) == 20
    assert {one.outcome for one in found} == {Outcome.RECOVERED}
    assert not leftovers(tmp_path)


async def test_turns_and_tracks_are_recovered_with_the_rest(
    tmp_path: Path, clock: VirtualClock
) -> None:
    settings = settings_in(tmp_path, outputs=("mono", "tracks", "turns"), pre_roll_seconds=0)
    recorder = Recorder(settings, clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    call.start_turn("user")
    speak(call, clock, 0, 2)
    call.end_turn("user")
    speak(call, clock, 2, 5)
    await call.flush()
    call.start_turn("user")
    speak(call, clock, 5, 6)
    await die(recorder)
    async with Recorder(settings, clock=clock, recover=False) as other:
        [one] = await other.recover()
    assert one.result is not None
    assert {output.name: output.duration_seconds for output in one.result.outputs} == {
        "mono": 6,
        "user": 6,
        "bot": 6,
        "turns/0001-user": 2,
        "turns/0002-user": 1,
    }
    np.testing.assert_array_equal(
        samples(tmp_path, "turns/0002-user.wav"), VOICE[5 * RATE :][:RATE]
    )
    assert not leftovers(tmp_path)


async def test_a_recovery_that_takes_several_tries_does_not_begin_anew_each_time(
    tmp_path: Path, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are long, and the way to the store is slow."""
    monkeypatch.setattr("recorder.manifest_writer.LONGEST_QUIET_SECONDS", 0.3)
    settings = settings_in(tmp_path, chunk_seconds=3, retry_deadline_seconds=1)
    recorder = Recorder(settings, clock=clock, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    speak(call, clock, 0, 30)
    await die(recorder)
    outcomes = []
    for _ in range(6):
        store = FaultyStore(LocalStore(tmp_path / "bucket"))

        async def slowly(op: str, key: str, done: bool) -> None:
            if op == "put" and not done:
                await asyncio.sleep(0.2)

        async with Recorder(settings, clock=clock, store=store, recover=False) as other:
            store.hook = slowly
            [one] = await other.recover()
        outcomes.append(one.outcome)
        if one.outcome is not Outcome.PENDING:
            break
    assert Outcome.PENDING in outcomes
    assert outcomes[-1] is Outcome.RECOVERED
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: 30 * RATE])


async def test_what_failed_is_left_alone_for_a_while_by_who_is_patient(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    await dead_call(tmp_path, clock, 1)
    store.refuse("complete_multipart", refusal(AccessDenied, "complete_multipart"))
    async with Recorder(settings_in(tmp_path), clock=clock, store=store, recover=False) as recorder:
        tries = []
        for seconds in (0, 59, 2, 118, 3):
            clock.advance(seconds)
            [one] = await recorder.recover(wait=False)
            assert one.outcome is Outcome.FAILED
            tries.append(store.calls["complete_multipart"])
        assert tries == [1, 1, 2, 2, 3]
        await recorder.recover()
        assert store.calls["complete_multipart"] == 4


async def test_without_permission_to_list_what_is_known_is_deleted_all_the_same(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_call(tmp_path, clock, 4)

    async def refused(prefix: str = "") -> AsyncIterator[Any]:
        raise refusal(AccessDenied, "list")()
        yield

    monkeypatch.setattr(store, "list_objects", refused)
    monkeypatch.setattr(store, "list_uploads", refused)
    async with Recorder(settings_in(tmp_path), clock=clock, store=store, recover=False) as other:
        [one] = await other.recover()
    assert one.outcome is Outcome.RECOVERED
    assert not leftovers(tmp_path)
