"""A cancel at any await: nothing is left behind, and another try does what this one did not.

The points are found by the tests themselves, see `cancel_everywhere`; each prints how many.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from calls import RATE, VOICE, die, leftovers, manifest, samples, settings_in, speak
from cancel_everywhere import MOMENTS, Moment, Points, cancelled_at
from faulty_store import FaultyStore
from loguru import logger

from recorder import Recorder, Session, VirtualClock, spool
from recorder.engine import Engine, RecorderClosed
from uploader.budget import ByteBudget
from uploader.completion import RECORDING_ID
from uploader.context import Context
from uploader.local import LocalStore
from uploader.manifest import ManifestFile
from uploader.probe import Capabilities
from uploader.retry import Deadline, Retrier, RetryPolicy
from uploader.store import MIN_PART_BYTES, Body, ObjectAttributes
from uploader.upload import Upload

PART = MIN_PART_BYTES
DATA = random.Random(5).randbytes(2 * PART + 12345)
KEY = "dt=2026-11-23/call/audio.wav"
ALL = Capabilities(conditional_writes=True, checksums=True, deletes=True, head=True)
SECONDS = 3


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """No power is lost here, and thousands of lines of log tell nothing."""
    with mock.patch.object(os, "fsync"):
        for name in ("recorder", "uploader"):
            logger.disable(name)
        try:
            yield
        finally:
            for name in ("recorder", "uploader"):
                logger.enable(name)


def told(what: str, points: Counter[str]) -> None:
    assert all(points[moment] for moment in MOMENTS), f"{what}: no points were found"
    print(f"{what}: " + ", ".join(f"{points[moment]} points {moment}" for moment in MOMENTS))


# -- one upload, one manifest --------------------------------------------------------------------


class Bench:
    """A store of its own for one try."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.store = FaultyStore(LocalStore(folder / "store"))
        self.budget = ByteBudget(4 * PART)

    def context(self) -> Context:
        return Context(
            store=self.store,
            retrier=Retrier(RetryPolicy(base_seconds=0.001)),
            budget=self.budget,
            capabilities=ALL,
            deadline=Deadline(None),
            recording_id="call",
            log=logger,
            on_failure=lambda failed: None,
        )

    def upload(self) -> Upload:
        attributes = ObjectAttributes("audio/wav", metadata={RECORDING_ID: "call"})
        return Upload(self.context(), KEY, attributes, PART, Memory())

    def manifest(self) -> ManifestFile:
        return ManifestFile(self.context(), "manifest.json", "me")


class Memory:
    async def read(self, start: int, end: int, total: int | None) -> Body:
        return DATA[start:end]


async def begun(bench: Bench) -> Upload:
    upload = bench.upload()
    await upload.create()
    return upload


async def sent(bench: Bench) -> Upload:
    upload = await begun(bench)
    await upload.advance(2 * PART)
    return upload


async def adopting(bench: Bench) -> Upload:
    first = await sent(bench)
    assert first.upload_id is not None
    await bench.store.upload_part(KEY, first.upload_id, 1, DATA[:PART])  # nobody knows of it
    upload = bench.upload()
    upload.upload_id, upload.parts = first.upload_id, dict(first.parts)
    return upload


async def not_begun(bench: Bench) -> Upload:
    return bench.upload()


def adopt(upload: Upload) -> Coroutine[Any, Any, None]:
    assert upload.upload_id is not None
    return upload.adopt(upload.upload_id, dict(upload.parts))


SIZE = len(DATA)
UPLOADS: dict[str, tuple[Callable[..., Awaitable[Upload]], Callable[..., Any], int]] = {
    "create": (not_begun, lambda upload: upload.create(), SIZE),
    "advance": (begun, lambda upload: upload.advance(2 * PART), SIZE),
    "prepare": (sent, lambda upload: upload.prepare(SIZE), SIZE),
    "finish": (sent, lambda upload: upload.finish(SIZE), SIZE),
    "finish_small": (not_begun, lambda upload: upload.finish(1000), 1000),
    "adopt": (adopting, adopt, SIZE),
    "adopt_and_finish": (adopting, lambda upload: _adopt_and_finish(upload), SIZE),
}


async def _adopt_and_finish(upload: Upload) -> None:
    await adopt(upload)
    await upload.finish(SIZE)


@pytest.mark.parametrize("next_try", ["by_itself", "by_another"])
@pytest.mark.parametrize("name", UPLOADS)
async def test_an_upload_cancelled_anywhere_goes_on(
    tmp_path: Path, name: str, next_try: str
) -> None:
    prepare, work, size = UPLOADS[name]
    points: Counter[str] = Counter()
    for moment in MOMENTS:
        at, reached = 0, True
        while reached:
            at += 1
            bench = Bench(tmp_path / "try")
            async with bench.store:
                upload = await prepare(bench)
                reached = await cancelled_at(at, moment, work(upload))
                points[moment] += reached
                where = f"{name} cancelled {moment} at point {at}"
                assert bench.budget.in_use == 0, f"{where}: bytes are held"
                assert not bench.store.calls["abort_multipart"], f"{where}: an upload is aborted"
                doubtful = upload.doubtful
                if next_try == "by_another":
                    known = upload
                    upload = bench.upload()
                    if known.upload_id is not None:
                        await upload.adopt(known.upload_id, known.parts)
                async with asyncio.timeout(30):
                    info = await upload.finish(size)
                assert info.size == size
                assert await bench.store.inner.get(KEY) == DATA[:size], where
                left = [one async for one in bench.store.inner.list_uploads()]
                assert not left or doubtful, f"{where}: an upload nobody knows is left"
    told(f"Upload.{name}", points)


async def new_manifest(bench: Bench) -> Callable[[], Coroutine[Any, Any, None]]:
    manifest = bench.manifest()
    return lambda: manifest.create({"state": "recording"})


async def old_manifest(bench: Bench) -> Callable[[], Coroutine[Any, Any, None]]:
    manifest = bench.manifest()
    await manifest.create({"state": "recording"})
    return lambda: manifest.write({"state": "completed"})


async def others_manifest(bench: Bench) -> Callable[[], Coroutine[Any, Any, None]]:
    other = ManifestFile(bench.context(), "manifest.json", "other")
    await other.create({"state": "recording"})
    stored = await other.read()
    assert stored is not None
    manifest = bench.manifest()
    return lambda: manifest.take_over(stored, {"state": "completed"})


@pytest.mark.parametrize(
    ("make", "state"),
    [(new_manifest, "recording"), (old_manifest, "completed"), (others_manifest, "completed")],
    ids=["create", "write", "take_over"],
)
async def test_a_manifest_cancelled_anywhere_is_written_by_the_same_call_again(
    tmp_path: Path, make: Callable[..., Any], state: str
) -> None:
    points: Counter[str] = Counter()
    for moment in MOMENTS:
        at, reached = 0, True
        while reached:
            at += 1
            bench = Bench(tmp_path / "try")
            async with bench.store:
                call = await make(bench)
                reached = await cancelled_at(at, moment, call())
                points[moment] += reached
                if reached:
                    await call()
                stored = await bench.manifest().read()
                assert stored is not None
                assert stored.document["state"] == state
                assert stored.document["owner"] == "me"
                log = [op for op, _, _ in bench.store.log]
                assert log.count("put_manifest") <= 3
    told(f"ManifestFile: {state}", points)


# -- a recorder ------------------------------------------------------------------------------------


class Lab:
    """A folder that every try finds as it was prepared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lab"
        self.folder.mkdir()
        self._kept = folder / "kept"
        self._tries = 0
        self.clock = VirtualClock()
        self._old: set[object] = set()

    def recorder(self, *, other_host: bool = False) -> Recorder:
        changes = {"spool_dir": self.folder / "other-spool"} if other_host else {}
        settings = settings_in(self.folder, start_timeout_seconds=10, **changes)
        self.store = FaultyStore(LocalStore(self.folder / "bucket"))
        return Recorder(settings, clock=self.clock, store=self.store, recover=False)

    def keep(self) -> None:
        shutil.copytree(self.folder, self._kept)

    def again(self) -> None:
        """Begin anew, on the same clock; what an earlier try left behind is not this one's."""
        self._old = {*threading.enumerate(), *spool._LOCKED}
        if self._kept.exists():  # where it was, because it says where that is
            shutil.rmtree(self.folder)
            shutil.copytree(self._kept, self.folder)
        else:
            self._tries += 1
            self.folder = self._kept.with_name(f"lab-{self._tries}")
            self.folder.mkdir()

    async def recovered(self, *, lost: bool = False) -> None:
        """Finish, without faults, what can be finished."""
        for bucket in (False, True):
            async with self.recorder(other_host=lost) as recorder:
                await recorder.recover(bucket=bucket, stale_after=0)

    def nothing_is_held(self) -> None:
        locked = [str(one.path) for one in spool._LOCKED if one not in self._old]
        assert not locked, f"spools are still locked: {locked}"
        new = [one.name for one in threading.enumerate() if one not in self._old]
        left = [name for name in new if name.startswith("recorder-")]
        assert not left, f"threads are left: {left}"

    def is_whole(self, seconds: float = SECONDS) -> None:
        assert manifest(self.folder)["state"] in ("completed", "completed_with_gaps")
        np.testing.assert_array_equal(samples(self.folder), VOICE[: round(seconds * RATE)])
        assert leftovers(self.folder) == []


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    for one in list(spool._LOCKED):
        one.release()


class Watched:
    """Counts what an engine's tasks do, and has the caller of an operation cancelled in time."""

    def __init__(self, at: int, moment: Moment) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self.points = Points(at, moment, self._cancel)

    def _cancel(self) -> None:
        """On the engine's loop, which waits until the caller has been cancelled."""
        done = threading.Event()

        def cancel() -> None:
            if self._task is not None:
                self._task.cancel()
            # The caller's own steps come first.
            self._loop.call_soon(self._loop.call_soon, done.set)

        self._loop.call_soon_threadsafe(cancel)
        done.wait(0.2)

    async def run(self, recorder: Recorder, work: Coroutine[Any, Any, Any]) -> Any:
        """Run work; return what it came to, None if it was cancelled."""
        made = Engine.__init__

        def make(engine: Engine) -> None:
            made(engine)
            engine._loop.set_task_factory(self.points.make_task)

        if recorder._engine is not None:
            recorder._engine._loop.set_task_factory(self.points.make_task)
        engine = recorder._engine
        try:
            with mock.patch.object(Engine, "__init__", make):
                self._task = asyncio.ensure_future(work)
                return await self._task
        except asyncio.CancelledError:
            return None
        finally:
            for one in (engine, recorder._engine):
                if one is not None:
                    one._loop.set_task_factory(None)


async def everywhere(
    what: str, trial: Callable[[int, Moment], Awaitable[bool]], every: int = 1
) -> None:
    """Try every point until the work ends without having come to it."""
    points: Counter[str] = Counter()
    failed: list[str] = []
    for moment in MOMENTS:
        at = 1
        while True:
            try:
                reached = await trial(at, moment)
            except (AssertionError, AttributeError, FileNotFoundError) as error:
                reached = True
                failed.append(f"{moment} at point {at}: {type(error).__name__}: {error}"[:160])
                if len(failed) > 60:
                    break
            if not reached:
                break
            points[moment] += 1
            at += every
    assert not failed, f"{what}: " + "\n".join(failed)
    told(what, points)


async def test_opening_cancelled_anywhere_leaves_nothing(lab: Lab) -> None:
    async def trial(at: int, moment: Moment) -> bool:
        lab.again()
        recorder, watched = lab.recorder(), Watched(at, moment)
        await watched.run(recorder, recorder.__aenter__())
        await recorder.close()
        lab.nothing_is_held()
        assert not (lab.folder / "spool").exists()
        return watched.points.reached

    await everywhere("Recorder.__aenter__", trial)


async def test_a_start_cancelled_anywhere_leaves_nothing_or_an_empty_recording(lab: Lab) -> None:
    async def trial(at: int, moment: Moment) -> bool:
        lab.again()
        watched = Watched(at, moment)

        async def start(recorder: Recorder) -> Session:
            return await recorder.start("call")

        async with lab.recorder() as recorder:
            await watched.run(recorder, start(recorder))
        lab.nothing_is_held()
        await lab.recovered()
        assert leftovers(lab.folder) == []
        if list(lab.folder.glob("bucket/dt=*")):
            lab.is_whole(0)
        return watched.points.reached

    await everywhere("Recorder.start", trial)


async def spoken(lab: Lab, recorder: Recorder, seconds: int = SECONDS) -> Session:
    call = await recorder.start("call")
    speak(call, lab.clock, 0, seconds)
    return call


async def test_closing_cancelled_anywhere_keeps_it_all(lab: Lab) -> None:
    async def trial(at: int, moment: Moment) -> bool:
        lab.again()
        recorder, watched = lab.recorder(), Watched(at, moment)
        await recorder.__aenter__()
        await spoken(lab, recorder)
        await watched.run(recorder, recorder.close())
        await recorder.close()
        lab.nothing_is_held()
        await lab.recovered()
        lab.is_whole()
        return watched.points.reached

    await everywhere("Recorder.close", trial)


@pytest.mark.parametrize("name", ["flush", "stop", "sealed", "read"])
async def test_a_session_cancelled_anywhere_is_finished_all_the_same(lab: Lab, name: str) -> None:
    async def trial(at: int, moment: Moment) -> bool:
        lab.again()
        watched = Watched(at, moment)
        async with lab.recorder() as recorder:
            call = await spoken(lab, recorder)
            if name == "sealed":
                call.end()
            work: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "flush": call.flush,
                "stop": call.stop,
                "sealed": call.sealed,
                "read": lambda: call.read(0, SECONDS * RATE),
            }
            await watched.run(recorder, work[name]())
            result = await call.stop()
            assert result.durable
        lab.nothing_is_held()
        lab.is_whole()
        return watched.points.reached

    await everywhere(f"Session.{name}", trial)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_delivery_cut_off_at_any_request_is_finished_by_recovery(
    lab: Lab, after: bool
) -> None:
    requests, reached = 0, True
    while reached:
        requests += 1
        lab.again()
        recorder = lab.recorder()
        loop, now = asyncio.get_running_loop(), asyncio.Event()
        left = requests

        async def count(op: str, key: str, done: bool) -> None:
            nonlocal left
            if done == after:
                left -= 1
                if left == 0:
                    loop.call_soon_threadsafe(now.set)  # noqa: B023 - of this very try
                    await asyncio.Event().wait()

        await recorder.__aenter__()
        lab.store.hook = count
        call = await recorder.start("call", tracks=["user"]) if requests > 3 else None
        if call is None:
            lab.store.hook = None
            call = await recorder.start("call", tracks=["user"])
            lab.store.hook = count
        speak(call, lab.clock, 0, SECONDS)
        call.end()
        [backstage] = recorder._sessions
        ending = asyncio.ensure_future(recorder.engine.run(backstage.delivery.ended.wait()))
        waiting = asyncio.ensure_future(now.wait())
        await asyncio.wait({ending, waiting}, return_when=asyncio.FIRST_COMPLETED)
        reached = now.is_set()
        waiting.cancel()
        await recorder.close(wait_seconds=0 if reached else None)
        await asyncio.gather(ending, waiting, return_exceptions=True)
        lab.nothing_is_held()
        await lab.recovered()
        lab.is_whole()
    print(f"Delivery.run: {requests - 1} requests, {'after' if after else 'before'} their effect")
    assert requests > 10


async def unfinished(lab: Lab) -> None:
    """A call that was killed: all is in the spool, two chunks are in the bucket."""
    recorder = lab.recorder()
    await recorder.__aenter__()
    call = await recorder.start("call")
    for second in range(SECONDS):
        speak(call, lab.clock, second, second + 1)
        await call.flush()
    await die(recorder)
    lab.keep()


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("source", ["spool", "bucket"])
async def test_recovery_cancelled_anywhere_is_done_by_the_next(
    lab: Lab, source: str, every: int
) -> None:
    await unfinished(lab)
    if source == "bucket":
        shutil.rmtree(lab.folder.parent / "kept" / "spool")
    expected: list[int] = []

    async def trial(at: int, moment: Moment) -> bool:
        lab.again()
        points = Points(at, moment)
        async with lab.recorder() as recorder:
            loop = recorder.engine._loop
            loop.set_task_factory(points.make_task)
            try:
                await recorder.recover(bucket=source == "bucket", stale_after=0)
            except RecorderClosed:
                assert points.reached
            finally:
                loop.set_task_factory(None)
            assert not [one for one in spool._LOCKED if one.path.exists()]
            await recorder.recover(bucket=source == "bucket", stale_after=0)
        lab.nothing_is_held()
        await lab.recovered()
        expected.append(manifest(lab.folder)["samples"])
        lab.is_whole(expected[0] / RATE)
        assert expected[-1] >= (SECONDS * RATE if source == "spool" else RATE)
        return points.reached

    await everywhere(f"Recorder.recover from the {source}", trial, every=every)


async def test_a_caller_who_is_cancelled_does_not_end_a_recovery(lab: Lab) -> None:
    await unfinished(lab)

    async def trial(at: int, moment: Moment) -> bool:
        lab.again()
        watched = Watched(at, moment)
        async with lab.recorder() as recorder:
            await watched.run(recorder, recorder.recover())
        lab.nothing_is_held()
        await lab.recovered()
        lab.is_whole()
        return watched.points.reached

    await everywhere("Recorder.recover, its caller cancelled", trial, every=7)
