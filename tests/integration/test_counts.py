"""What recording costs, in counts that no clock has a part in: requests, bytes, queues, calls."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from calls import FRAME, RATE, settings_in, speak
from faulty_store import FaultyStore
from headless import FrameDirection, on_stage
from pipecat.frames.frames import InputAudioRawFrame, TTSAudioRawFrame
from rounds import RoundsStore

from recorder import Recorder, Session, VirtualClock
from recorder.pipecat import RecorderProcessor
from uploader.local import LocalStore

MIB = 1 << 20
SECONDS, CHUNK = 120, 10
PARTS = 3  # of 5 MiB, in two minutes of stereo at 24 kHz

BLOCKING = ("open", "os.", "mmap.", "socket.", "subprocess.", "time.sleep", "shutil.", "fcntl.")
"""Beginnings of the names of the audit events of calls that can wait for a disk or a network."""

AUDIO = b"\1\2" * FRAME

_watching: dict[int, list[str]] = {}


def _audit(event: str, _: object) -> None:
    seen = _watching.get(threading.get_ident()) if _watching else None
    if seen is not None and event.startswith(BLOCKING):
        seen.append(event)


@pytest.fixture(scope="module", autouse=True)
def auditing() -> None:
    sys.addaudithook(_audit)  # there is no way to take one away: it does nothing unless asked to


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what this thread calls that can block."""
    thread = threading.get_ident()
    _watching[thread] = seen = list[str]()
    try:
        yield seen
    finally:
        del _watching[thread]


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(LocalStore(tmp_path / "bucket"))


async def whole_call(recorder: Recorder, clock: VirtualClock, seconds: int = SECONDS) -> Session:
    call = await recorder.start()
    for begin in range(0, seconds, CHUNK):
        speak(call, clock, begin, begin + CHUNK)
        await call.flush()
    await call.stop()
    return call


async def test_a_recording_makes_so_many_requests(store: FaultyStore, tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=CHUNK, part_bytes=5 * MIB)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        store.calls.clear()
        call = await whole_call(recorder, clock)
        result = call.result
    chunks = SECONDS // CHUNK
    assert result is not None
    assert result.durable
    manifests = store.calls.pop("put_manifest")
    assert store.calls == {
        "create_multipart": 1,
        "put": 2 * chunks + 1,  # and the first half of each while it is open; the waveform
        "upload_part": PARTS,
        "complete_multipart": 1,
        "head": 1,
        "delete": chunks + 1,
    }
    # Its begin, its upload, its final length, its end; and one or two after each chunk: the timer
    # may have it sealed while it is being sent.
    assert manifests <= 2 * chunks + 4


@pytest.mark.parametrize(
    ("form", "outputs"),
    [
        ("wav", ("stereo",)),
        ("wav", ("stereo", "mono", "tracks")),
        ("flac", ("stereo", "mono")),
        ("opus", ("stereo", "mono")),
    ],
)
async def test_a_stop_takes_as_many_rounds_however_long_the_call(
    tmp_path: Path, form: str, outputs: tuple[str, ...]
) -> None:
    taken = {}
    for seconds in (CHUNK, SECONDS):
        clock, folder = VirtualClock(), tmp_path / str(seconds)
        folder.mkdir()
        settings = settings_in(
            folder, chunk_seconds=CHUNK, part_bytes=5 * MIB, outputs=outputs, format=form
        )
        store = RoundsStore(LocalStore(folder / "bucket"))
        async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
            call = await recorder.start()
            for begin in range(0, seconds, CHUNK):
                speak(call, clock, begin, begin + CHUNK)
                await call.flush()
            store.count(recorder.engine)
            result = await call.stop()
            assert result.durable
        taken[seconds] = store.ops()
    assert taken[SECONDS] == taken[CHUNK]
    assert taken[SECONDS] == [
        ["put", "upload_part"],
        ["put_manifest"],  # the length is final
        ["complete_multipart", "put"],  # the waveform is put beside
        ["head"],
        ["put_manifest"],  # completed
        ["delete"],  # nobody waits for it
    ]


@pytest.mark.parametrize("calls", [1, 3])
async def test_bytes_in_flight_stay_within_the_budget(
    store: FaultyStore, tmp_path: Path, calls: int
) -> None:
    clock = VirtualClock()
    settings = settings_in(
        tmp_path, chunk_seconds=CHUNK, part_bytes=5 * MIB, inflight_bytes=5 * MIB
    )
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        sessions = [await recorder.start() for _ in range(calls)]
        for begin in range(0, 40, CHUNK):
            for call in sessions:
                speak(call, clock, begin, begin + CHUNK)
            await asyncio.gather(*(call.flush() for call in sessions))
        results = await asyncio.gather(*(call.stop() for call in sessions))
        assert all(result.durable for result in results)
        budget = recorder._budget
        assert 0 < budget.peak <= budget.limit
        assert budget.in_use == budget.waiting == 0


async def test_no_queue_grows_while_the_store_is_away(store: FaultyStore, tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=1, retry_deadline_seconds=1, drain_seconds=0)
    calls = 3
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        sessions = [await recorder.start() for _ in range(calls)]
        await asyncio.gather(*(call.flush() for call in sessions))
        store.down = True

        async def queued() -> tuple[int, int, int]:
            async def look() -> tuple[int, int, int]:
                engine = recorder.engine
                jobs = engine._workers._work_queue.qsize()
                return len(asyncio.all_tasks()), recorder._budget.waiting, jobs

            return await recorder.engine.run(look())

        seen = []
        for begin in range(0, 12, 3):
            for call in sessions:
                speak(call, clock, begin, begin + 3)
            # What is younger than the hold-back of 2 s is not sealed yet, and 1 s may be missing.
            while any(_sealed(call) < begin for call in sessions):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
            seen.append(await queued())
        await recorder.close(wait_seconds=0)
    assert all(_sealed(call) >= 9 for call in sessions)
    tasks, waiting, jobs = (max(column) for column in zip(*seen, strict=True))
    assert tasks <= 7 * calls + 4  # of the recorder itself
    assert waiting <= calls
    assert jobs <= calls


def _sealed(call: Session) -> int:
    backstage: Any = call._backstage
    return len(backstage._sealer.sealed)


@contextmanager
def slow_callbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Have the loop's complaint about a callback that holds it fail the test."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.5  # no measure of speed: what waits for something takes longer
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        yield
    loop.set_debug(False)
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


async def test_write_calls_nothing_that_can_block(
    store: FaultyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=1)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start()
        store.hangs = True
        with slow_callbacks(caplog), watched() as seen:
            for second in range(15):
                speak(call, clock, second, second + 1)
                await asyncio.sleep(0)
            call.start_turn("user")
            call.end_turn("user")
            call.interrupt()
        assert seen == []
        store.hangs = False


@asynccontextmanager
async def processing(
    store: FaultyStore, tmp_path: Path, **options: Any
) -> AsyncIterator[tuple[RecorderProcessor, VirtualClock]]:
    """A processor that records; its store is held up."""
    clock = VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=1)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        processor = RecorderProcessor(recorder=recorder, auto_start_recording=True, **options)
        async with on_stage(processor):
            async with asyncio.timeout(20):
                while processor.recording_id is None:  # noqa: ASYNC110 - told by nobody
                    await asyncio.sleep(0.01)
            store.hangs = True
            yield processor, clock
            store.hangs = False


async def process(processor: RecorderProcessor, clock: VirtualClock, pairs: int) -> None:
    """Hand over as many frames of the user, and of the bot; the same ones again and again."""
    user, bot = InputAudioRawFrame(AUDIO, RATE, 1), TTSAudioRawFrame(AUDIO, RATE, 1)
    queue_frame, down = processor.queue_frame, FrameDirection.DOWNSTREAM
    for _ in range(pairs):
        clock.advance(0.02)
        await queue_frame(user, down)
        await queue_frame(bot, down)


@pytest.mark.parametrize("turn_audio", [False, True])
async def test_the_processor_calls_nothing_that_can_block(
    store: FaultyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, turn_audio: bool
) -> None:
    async with processing(store, tmp_path, enable_turn_audio=turn_audio) as (processor, clock):
        with slow_callbacks(caplog), watched() as seen:
            await process(processor, clock, 8 * 50)
        assert seen == []
        assert processor.errors == 0


async def test_a_frame_waits_for_nothing(store: FaultyStore, tmp_path: Path) -> None:
    """It goes on in the very turn of the loop in which it came."""
    async with processing(store, tmp_path) as (processor, clock):
        turned: list[None] = []
        asyncio.get_running_loop().call_soon(turned.append, None)
        await process(processor, clock, 100)
        assert not turned
        await asyncio.sleep(0)
        assert turned


async def test_a_frame_makes_no_task_and_no_timer(
    store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with processing(store, tmp_path) as (processor, clock):
        loop = asyncio.get_running_loop()
        made: list[str] = []
        for name in ("create_task", "call_soon", "call_at", "call_later", "call_soon_threadsafe"):
            monkeypatch.setattr(loop, name, lambda *_, name=name, **__: made.append(name))
        await process(processor, clock, 100)
        monkeypatch.undo()
        assert made == []


async def test_a_frame_leaves_nothing_behind(store: FaultyStore, tmp_path: Path) -> None:
    async with processing(store, tmp_path) as (processor, clock):
        await process(processor, clock, 50)
        gc.collect()
        gc.disable()  # it would take away what was left
        try:
            before = gc.get_count()[0], sys.getallocatedblocks()
            await process(processor, clock, 200)
            after = gc.get_count()[0], sys.getallocatedblocks()
        finally:
            gc.enable()
        # Of 400 frames; what other threads make meanwhile is counted, too.
        assert after[0] - before[0] < 200
        assert after[1] - before[1] < 200


async def test_a_frames_audio_is_copied_into_the_journal_alone(
    store: FaultyStore, tmp_path: Path
) -> None:
    async with processing(store, tmp_path) as (processor, clock):
        await process(processor, clock, 50)
        long = InputAudioRawFrame(AUDIO * 50, RATE, 1), TTSAudioRawFrame(AUDIO * 50, RATE, 1)
        tracemalloc.start()
        try:
            for frame in long * 5:
                clock.advance(0.5)
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                await processor.process_frame(frame, FrameDirection.DOWNSTREAM)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < len(frame.audio) // 2
        finally:
            tracemalloc.stop()


async def test_a_frame_takes_so_few_calls(store: FaultyStore, tmp_path: Path) -> None:
    """Of Python's functions, from the processor before it to where the session takes over."""
    async with processing(store, tmp_path) as (processor, clock):
        await process(processor, clock, 50)
        ours: Counter[str] = Counter()
        pipecats: Counter[str] = Counter()

        def count(frame: FrameType, event: str, _: object) -> None:
            code = frame.f_code
            if event == "call" and "/recorder/pipecat/" in code.co_filename:
                ours[code.co_name] += 1
            elif event == "call" and frame.f_locals.get("self") is processor:
                pipecats[code.co_name] += 1

        sys.setprofile(count)
        try:
            await process(processor, clock, 50)
        finally:
            sys.setprofile(None)
    assert sum(ours.values()) <= 11 * 50  # of both frames
    assert not pipecats


async def test_a_frame_leaves_nothing_in_memory(store: FaultyStore, tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=60)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start()
        speak(call, clock, 0, 2)
        tracemalloc.start(1)
        try:
            speak(call, clock, 2, 4)
            mine = tracemalloc.Filter(True, "*/recorder/session.py")
            also = tracemalloc.Filter(True, "*/recorder/journal.py")
            before = tracemalloc.take_snapshot().filter_traces([mine, also])
            speak(call, clock, 4, 12)
            after = tracemalloc.take_snapshot().filter_traces([mine, also])
        finally:
            tracemalloc.stop()
        kept = sum(one.count_diff for one in after.compare_to(before, "filename"))
    assert kept < 50  # of 400 frames


def test_the_audit_sees_what_blocks(tmp_path: Path) -> None:
    with watched() as seen:
        (tmp_path / "file").write_bytes(b"")
        Path(tmp_path / "file").unlink()
    assert {"open", "os.remove"} <= set(seen)


def test_nothing_else_is_seen() -> None:
    with watched() as seen:
        values: dict[str, Any] = {str(number): number for number in range(1000)}
        sorted(values)
    assert seen == []
