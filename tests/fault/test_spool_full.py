"""A spool whose configured size is used up: by either policy, what is missing is listed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import FRAME, RATE, VOICE, die, leftovers, manifest, samples, settings_in, speak
from faulty_store import FaultyStore, refusal

from recorder import Recorder, Session, Settings, State, VirtualClock
from recorder.chunk_reader import ChunkReader
from recorder.chunks import Chunk
from recorder.events import CaptureFailed, ChunkDropped, Event, UploadFailed
from recorder.journal import SEGMENT_BYTES
from recorder.quota import SpoolQuota
from recorder.recovered import Outcome
from uploader.errors import AccessDenied
from uploader.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(LocalStore(tmp_path / "bucket"))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def quota_of(recorder: Recorder) -> SpoolQuota:
    return recorder._quota


async def seal(recorder: Recorder) -> None:
    """Do what the engine's timer would: make room ahead, seal what is due."""

    async def look() -> None:
        for backstage in recorder._sessions:
            session = backstage._session
            assert session is not None
            await recorder.engine.in_thread(session.prepare)
            await backstage._seal_due()

    await recorder.engine.run(look())


async def speak_on(
    recorder: Recorder, call: Session, clock: VirtualClock, start: int, end: int
) -> None:
    """Speak, with the engine looking after each second."""
    for second in range(start, end):
        speak(call, clock, second, second + 1)
        await seal(recorder)


def check(folder: Path, document: dict[str, Any], length: int) -> list[tuple[int, int]]:
    """Compare the recording with what was said; return the user's gaps."""
    gaps = [(gap["start"], gap["end"]) for gap in document["gaps"] if gap["track"] == "user"]
    assert len(set(gaps)) == len(gaps), "a gap is listed twice"
    expected = VOICE[:length].copy()
    for start, end in gaps:
        expected[start:end] = 0
    np.testing.assert_array_equal(samples(folder), expected)
    assert document["state"] == ("completed_with_gaps" if gaps else "completed")
    return gaps


@asynccontextmanager
async def recorded(
    settings: Settings, clock: VirtualClock, store: FaultyStore
) -> AsyncIterator[tuple[Recorder, Session, list[Event]]]:
    seen = list[Event]()
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start("call", tracks=["user"], on_event=seen.append)
        yield recorder, call, seen


# -- stop --------------------------------------------------------------------------------------


async def test_each_time_the_spool_is_full_is_one_gap_and_one_event(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    async with recorded(settings_in(tmp_path), clock, store) as (recorder, call, seen):
        quota, refused = quota_of(recorder), []
        speak(call, clock, 0, 10)
        for start in (10, 50, 90):
            allowed, quota.limit = quota.limit, 0
            before = call.refused
            speak(call, clock, start, start + 38)  # more than the prepared segment takes
            refused.append(call.refused - before)
            quota.limit = allowed
            speak(call, clock, start + 38, start + 40)
        result = await call.stop()
    document = manifest(tmp_path)
    gaps = check(tmp_path, document, 130 * RATE)
    assert all(refused)
    assert [end - start for start, end in gaps] == [count * FRAME for count in refused]
    assert [(gap.start, gap.end) for gap in result.gaps] == gaps
    assert len([event for event in seen if isinstance(event, CaptureFailed)]) == 3
    assert not leftovers(tmp_path)


async def test_a_gap_is_no_shorter_than_what_is_sure_to_be_silence(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    """One frame refused: what follows must not move up by it."""
    async with recorded(settings_in(tmp_path), clock, store) as (recorder, call, _):
        quota, allowed = quota_of(recorder), quota_of(recorder).limit
        index = 0
        while not call.refused:  # until a frame finds no segment
            quota.limit = 0
            speak(call, clock, index / 50, (index + 1) / 50)
            index += 1
        quota.limit = allowed
        speak(call, clock, index / 50, 130)
        assert 1 < call.refused < 20
        await call.stop()
    [(start, end)] = check(tmp_path, manifest(tmp_path), 130 * RATE)
    assert end - start == call.refused * FRAME


async def test_a_process_killed_while_audio_is_refused_has_noted_the_gap(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path)
    recorder = Recorder(settings, clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call", tracks=["user", "bot"])
    speak(call, clock, 0, 10)
    quota_of(recorder).limit = 0
    for second in range(10, 60):
        speak(call, clock, second, second + 1)
        for _ in range(3):  # more than it still has room for, set aside for it alone
            call.write("bot", VOICE[:FRAME].tobytes(), RATE)
    refused = call.refused
    await die(recorder)
    async with Recorder(settings, clock=clock, store=store, recover=False) as other:
        [one] = await other.recover()
    assert one.outcome is Outcome.RECOVERED
    document = manifest(tmp_path)
    assert document["state"] == "completed_with_gaps"
    gaps = {gap["track"]: gap for gap in document["gaps"]}
    assert len(gaps) == len(document["gaps"]) == 2
    assert refused
    assert all(gap["end"] is None and "spool" in gap["reason"] for gap in gaps.values())
    start = gaps["user"]["start"]
    assert start % FRAME == 0
    audio = samples(tmp_path)
    np.testing.assert_array_equal(audio[:start], VOICE[:start])
    assert not audio[start:].any()


async def test_a_gap_that_had_ended_when_the_process_was_killed_is_listed_once(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path)
    recorder = Recorder(settings, clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call", tracks=["user"])
    quota = quota_of(recorder)
    allowed, quota.limit = quota.limit, 0
    speak(call, clock, 0, 60)
    await recorder.engine.run(_flush(recorder))
    quota.limit = allowed
    await speak_on(recorder, call, clock, 60, 70)
    refused = call.refused
    await die(recorder)
    async with Recorder(settings, clock=clock, store=store, recover=False) as other:
        await other.recover()
    [(start, end)] = check(tmp_path, manifest(tmp_path), 70 * RATE)
    assert end - start == refused * FRAME > 0


async def _flush(recorder: Recorder) -> None:
    for backstage in recorder._sessions:
        await backstage._seal_due()


async def test_copies_of_what_is_in_the_store_go_before_any_audio(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    """Part 1's chunks are kept for the end: on a full spool they are read back from the store."""
    settings = settings_in(tmp_path, part_bytes="16MiB")
    async with recorded(settings, clock, store) as (recorder, call, seen):
        await call.flush()
        quota_of(recorder).limit = quota_of(recorder).used + 3 * SEGMENT_BYTES
        for second in range(100):
            speak(call, clock, second, second + 1)
            await call.flush()
            await seal(recorder)
        assert not call.refused
        result = await call.stop()
    assert result.state is State.COMPLETED
    assert store.calls["get"] > 20
    assert not [event for event in seen if isinstance(event, CaptureFailed | ChunkDropped)]
    assert check(tmp_path, manifest(tmp_path), 100 * RATE) == []


# -- drop_oldest -------------------------------------------------------------------------------


def dropped_by(seen: list[Event]) -> list[int]:
    return [event.chunk.number for event in seen if isinstance(event, ChunkDropped)]


def assert_oldest_first(dropped: list[int]) -> None:
    assert dropped
    # What was just on its way may go one or two later.
    assert all(later > earlier - 3 for earlier, later in itertools.pairwise(dropped))
    spared = set(range(min(dropped), max(dropped))) - set(dropped)
    assert len(spared) < 5, "others than what was just on its way"


@pytest.mark.parametrize("outputs", ["stereo", "stereo,mono,tracks"])
async def test_with_the_store_away_the_oldest_audio_goes_and_nothing_is_refused(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore, outputs: str
) -> None:
    settings = settings_in(
        tmp_path, spool_full="drop_oldest", outputs=outputs, part_bytes="5MiB", keep_chunks=True
    )
    async with recorded(settings, clock, store) as (recorder, call, seen):
        await speak_on(recorder, call, clock, 0, 10)
        await call.flush()
        store.down = True
        quota_of(recorder).limit = quota_of(recorder).used + 2 * SEGMENT_BYTES
        await speak_on(recorder, call, clock, 10, 100)
        store.down = False
        await call.flush()  # or what is dropped next depends on what is just being sent
        await speak_on(recorder, call, clock, 100, 120)
        result = await call.stop()
    assert call.refused == 0
    document = manifest(tmp_path)
    gaps = check(tmp_path, document, 120 * RATE)
    dropped = dropped_by(seen)
    assert len(dropped) > 20
    assert sorted(gaps) == [((number - 1) * RATE, number * RATE) for number in sorted(dropped)]
    assert_oldest_first(dropped)
    assert min(dropped) in (9, 10), "not the oldest, but for the one on its way"
    assert [chunk["number"] for chunk in document["chunks"] if chunk.get("lost")] == sorted(dropped)
    assert all("drop_oldest" in gap.reason for gap in result.gaps)
    objects = sorted(int(path.stem) for path in tmp_path.glob("bucket/dt=*/*/chunks/*.wav"))
    assert objects == [number for number in range(1, 121) if number not in dropped]
    assert len([event for event in seen if isinstance(event, UploadFailed)]) < 20


async def test_dropped_chunks_are_listed_by_a_recovery_too(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path, spool_full="drop_oldest")
    recorder = Recorder(settings, clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    seen = list[Event]()
    call = await recorder.start("call", tracks=["user"], on_event=seen.append)
    await speak_on(recorder, call, clock, 0, 5)
    await call.flush()
    store.down = True
    quota_of(recorder).limit = quota_of(recorder).used + 2 * SEGMENT_BYTES
    await speak_on(recorder, call, clock, 5, 80)
    before = dropped_by(seen)
    # Behind the last checkpoint: what it does not know of.
    [backstage] = recorder._sessions
    with quota_of(recorder)._making_room:
        assert quota_of(recorder)._make_room(3 * 48_000, drop=True)
    await asyncio.sleep(0)  # events come by the loop
    dropped = dropped_by(seen)
    assert len(dropped) >= len(before) + 2
    assert backstage.alive
    await die(recorder)
    store.down = False
    async with Recorder(settings, clock=clock, store=store, recover=False) as other:
        [one] = await other.recover()
    assert one.outcome is Outcome.RECOVERED
    gaps = check(tmp_path, manifest(tmp_path), 80 * RATE)
    assert sorted(gaps) == [((number - 1) * RATE, number * RATE) for number in sorted(dropped)]
    assert not leftovers(tmp_path)


async def test_the_oldest_of_all_recordings_goes_first(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path, spool_full="drop_oldest")
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        store.down = True
        dropped: list[tuple[str, int]] = []

        def of(name: str) -> Callable[[Event], None]:
            def note(event: Event) -> None:
                if isinstance(event, ChunkDropped):
                    dropped.append((name, event.chunk.number))

            return note

        first = await recorder.start("first", tracks=["user"], on_event=of("first"))
        await speak_on(recorder, first, clock, 0, 20)
        second = await recorder.start("second", tracks=["user"], on_event=of("second"))
        quota = quota_of(recorder)
        quota.limit = quota.used + SEGMENT_BYTES
        await speak_on(recorder, second, clock, 0, 40)
        await asyncio.sleep(0)  # events come by the loop
        ages = [number + (20 if name == "second" else 0) for name, number in dropped]
        assert {name for name, _ in dropped} == {"first", "second"}
        assert ages == sorted(ages)
        assert ages[:18] == list(range(1, 19)), "not the oldest"
        await asyncio.gather(first.stop(wait_seconds=0), second.stop(wait_seconds=0))
        store.down = False
        quota.limit = 1 << 30


async def test_a_refusing_store_does_not_keep_the_oldest_from_going(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    """Nothing is on its way for long there."""
    settings = settings_in(tmp_path, spool_full="drop_oldest")
    async with recorded(settings, clock, store) as (recorder, call, seen):
        store.refuse("put", refusal(AccessDenied, "put"))
        await speak_on(recorder, call, clock, 0, 10)
        quota_of(recorder).limit = quota_of(recorder).used + 2 * SEGMENT_BYTES
        for second in range(10, 80):
            speak(call, clock, second, second + 1)
            await call.flush()
            await seal(recorder)
        store.refuse("put", None)
        await call.stop()
    dropped = dropped_by(seen)
    assert_oldest_first(dropped)
    assert min(dropped) < 4
    gaps = check(tmp_path, manifest(tmp_path), 80 * RATE)
    assert sorted(gaps) == [((number - 1) * RATE, number * RATE) for number in sorted(dropped)]


# -- files that are not there --------------------------------------------------------------------


async def test_a_chunk_that_is_nowhere_is_a_gap_and_no_failure(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    """Somebody deletes a file before it was sent, and an object that was needed again."""
    settings = settings_in(tmp_path)
    async with recorded(settings, clock, store) as (recorder, call, _):
        await speak_on(recorder, call, clock, 0, 8)
        await call.flush()
        store.hangs = True
        await speak_on(recorder, call, clock, 8, 20)
        for path in tmp_path.glob("spool/call/chunks/*.wav"):
            if path.stem in ("000003", "000010", "000011"):
                path.unlink()
        for path in tmp_path.glob("bucket/dt=*/*/chunks/000003.wav"):
            path.unlink()
        store.hangs = False
        result = await call.stop()
    gaps = check(tmp_path, manifest(tmp_path), 20 * RATE)
    assert sorted(gaps) == [((number - 1) * RATE, number * RATE) for number in (3, 10, 11)]
    assert all("neither in the spool nor in the bucket" in gap.reason for gap in result.gaps)
    assert not leftovers(tmp_path)


async def test_a_chunk_lost_while_it_is_read_is_silence_at_once(tmp_path: Path) -> None:
    chunks = [Chunk(1, 0, 100, ("user",), 280, 0)]

    def path(number: int) -> Path:
        chunks[0] = replace(chunks[0], lost=True)  # just before its file is opened
        return tmp_path / "gone"

    async def fetch(chunk: Chunk) -> bytes:
        raise AssertionError("asked the store")

    reader = ChunkReader(chunks, path, fetch, asyncio.to_thread, lambda number: None)
    planes = await reader.read(10, 60)
    assert planes.samples.shape == (1, 50)
    assert not planes.samples.any()


async def test_a_chunk_sent_but_not_listed_is_found_in_the_store_by_a_recovery(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    settings = settings_in(tmp_path)
    recorder = Recorder(settings, clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call", tracks=["user"])
    store.refuse("put_manifest", refusal(AccessDenied, "put"))
    await speak_on(recorder, call, clock, 0, 10)
    await call.flush()
    await die(recorder)
    sent = sorted(tmp_path.glob("bucket/dt=*/*/chunks/*.wav"))
    assert len(sent) == 8
    for path in sent[2:5]:
        (tmp_path / "spool/call/chunks" / path.name).unlink()
    store.refuse("put_manifest", None)
    async with Recorder(settings, clock=clock, store=store, recover=False) as other:
        [one] = await other.recover()
    assert one.outcome is Outcome.RECOVERED
    assert check(tmp_path, manifest(tmp_path), 10 * RATE) == []


async def test_a_start_whose_plan_cannot_be_noted_exactly_begins_all_the_same(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    async with Recorder(settings_in(tmp_path), clock=clock, store=store) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr("recorder.spool.Spool.write_json", full)
            call = await recorder.start("call", tracks=["user"])
            speak(call, clock, 0, 5)
            assert (await call.stop()).state is State.COMPLETED
    assert check(tmp_path, manifest(tmp_path), 5 * RATE) == []


async def test_a_start_that_is_refused_leaves_nothing_mapped(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    """What is deleted and still mapped would hold its room on the disk."""
    async with Recorder(settings_in(tmp_path), clock=clock, store=store) as recorder:
        store.refuse("put_manifest", refusal(AccessDenied, "put"))
        with pytest.raises(AccessDenied) as refused:  # whose traceback holds all that was made
            await recorder.start("call", tracks=["user"])
        assert f"{tmp_path}/" not in Path("/proc/self/maps").read_text()
        assert refused.value


# -- an hour away --------------------------------------------------------------------------------


def memory() -> dict[str, int]:
    """This process's resident memory, bytes: of its own, and all."""
    lines = Path("/proc/self/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {name: int(told[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS")}


@pytest.mark.timeout(300)
async def test_an_hour_without_a_store_takes_no_memory_and_costs_nothing(
    tmp_path: Path, clock: VirtualClock, store: FaultyStore
) -> None:
    minutes = 60
    settings = settings_in(
        tmp_path, chunk_seconds=30.0, retry_max_wait_seconds=20.0, outputs="mono"
    )
    figures: dict[int, dict[str, int]] = {}
    async with recorded(settings, clock, store) as (recorder, call, _):
        await speak_on(recorder, call, clock, 0, 60)
        await call.flush()
        store.down = True
        for minute in range(1, minutes + 1):
            for second in range(60):
                for index in range(50):
                    clock.advance_to(call.zero + 60 * minute + second + (index + 1) / 50)
                    frame = (second * 50 + index) * FRAME
                    call.write("user", VOICE[frame : frame + FRAME].tobytes(), RATE)
                if second % 10 == 9:
                    await seal(recorder)
            figures[minute] = memory()
        held = sum(path.stat().st_size for path in tmp_path.glob("spool/**/*") if path.is_file())
        most = recorder._budget.peak
        store.down = False
        result = await call.stop()
    assert result.state is State.COMPLETED
    length = 60 * (minutes + 1) * RATE
    np.testing.assert_array_equal(samples(tmp_path), np.resize(VOICE[: 60 * RATE], length))
    puts = [key for op, key, _ in store.log if op == "put" and "/chunks/0" in key]
    assert len(puts) == 2 * (minutes + 1)
    assert puts == sorted(puts), "not oldest first"
    assert held > length * 2 * 0.95, "the spool does not hold it"
    settled, last = figures[10], figures[minutes]
    told = {minute: figures[minute]["RssAnon"] >> 20 for minute in (1, 10, 30, 60)}
    print(
        f"\nan hour away: {held >> 20} MiB of spool; RssAnon MiB by minute {told}, "
        f"VmRSS {settled['VmRSS'] >> 20} to {last['VmRSS'] >> 20}; in flight {most >> 20} MiB"
    )
    for kind in ("RssAnon", "VmRSS"):
        assert last[kind] - settled[kind] < 8 << 20, figures
