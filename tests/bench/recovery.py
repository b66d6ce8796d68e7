"""Recovery of many recordings from the spool: time, memory, and the store's own throughput."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import pairwise
from pathlib import Path

from bench import ours
from bench.feed import session_feed
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, progress, run
from bench.usage import Cpu, memory_mib, peak_mib

from recorder import Recorder, VirtualClock
from recorder.recovered import Outcome, Recovered
from recorder.recovery import MAX_AT_ONCE
from uploader.s3 import S3Store

SECONDS = 30
RATE = 24_000
CALL_BYTES = SECONDS * RATE * 4
STORE_SHARE = 0.5
"""Of the store's own throughput: nearer would be by chance on two cores that it shares."""

BATCH = 20  # recordings that are spooled at a time
MEMORY_MIB = 256.0


async def spool(s3: dict[str, str], root: str, count: int) -> Figures:
    """Leave recordings in a spool: the store never answers."""
    clock = VirtualClock()
    folder = Path(root)
    recorder = Recorder(
        ours.settings(folder, s3),
        clock=clock,
        store=ours.silent(folder),
        require_store=False,
        recover=False,
    )
    async with recorder:
        for first in range(0, count, BATCH):
            calls = [await recorder.start() for _ in range(min(BATCH, count - first))]
            feeds = [session_feed(call, clock, RATE) for call in calls]
            for number in range(SECONDS * 50):  # side by side: they have one clock
                for feed in feeds:
                    await feed(number, number + 1)
            for call in calls:
                call.end()
                await call.sealed()
        await recorder.close(wait_seconds=0)
    return {"left": sum(1 for _ in (folder / "spool").iterdir())}


async def recover(s3: dict[str, str], root: str, seconds: float) -> Figures:
    """Finish them, as many as can be in so many seconds."""
    told: list[float] = []
    done = 0
    settings = ours.settings(Path(root), s3)
    waiting = sum(1 for _ in (Path(root) / "spool").iterdir())
    async with Recorder(settings, recover=False) as recorder:
        before = memory_mib()["private"]
        cpu, began = Cpu(), time.perf_counter()

        def note(one: Recovered) -> None:
            nonlocal done
            done += one.outcome is Outcome.RECOVERED
            told.append(time.perf_counter() - began)
            if not len(told) % max(1, waiting // 10):
                progress(f"{done} of {waiting} recovered after {told[-1]:.1f} s")

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await recorder.recover(on_recovered=note)
        lasted = time.perf_counter() - began
        used = cpu.process()
    return {
        "waiting": waiting,
        "recordings": done,
        "seconds": lasted,
        "cpu_per_recording": used / max(1, done),
        "peak_over_idle_mib": peak_mib() - before,
        "first_told": min(told, default=None),
        "longest_silence": max((b - a for a, b in pairwise([0.0, *told])), default=lasted),
        "told": len(told),
        "audio_mib_per_second": done * CALL_BYTES / lasted / (1 << 20),
    }


async def store(s3: dict[str, str], count: int) -> Figures:
    """The same audio, each twice, as plain puts, as many at a time as recovery has."""
    body = bytes(CALL_BYTES)
    slots = asyncio.Semaphore(MAX_AT_ONCE)
    store = S3Store(
        s3["bucket"],
        "floor",
        region=s3["region"],
        endpoint_url=s3["endpoint_url"],
        access_key=s3["access_key"],
        secret_key=s3["secret_key"],
    )

    async def put(number: int) -> None:
        async with slots:
            await store.put(f"{number:06d}", body)

    async with store:
        await put(0)
        began = time.perf_counter()
        await asyncio.gather(*(put(number) for number in range(2 * count)))
        lasted = time.perf_counter() - began
    return {"seconds": lasted, "audio_mib_per_second": count * CALL_BYTES / lasted / (1 << 20)}


async def rows(plan: Plan) -> list[Row]:
    """One row."""
    count, limit = plan.recordings, plan.recovery_seconds
    with ours.folder() as root:
        await run(__name__, "spool", s3=plan.s3, root=root, count=count)
        floor = await run(__name__, "store", s3=plan.s3, count=count)
        found = await run(__name__, "recover", s3=plan.s3, root=root, seconds=limit)
    share = found["audio_mib_per_second"] / floor["audio_mib_per_second"]
    bounded = found["peak_over_idle_mib"] <= MEMORY_MIB
    complete = found["recordings"] == found["told"] == count
    return [
        Row(
            f"recovery of {count} recordings of {SECONDS} s",
            "s",
            None,
            found["seconds"],
            f"{STORE_SHARE:.0%} of the store's throughput, under {MEMORY_MIB:.0f} MiB",
            complete and share >= STORE_SHARE and bounded,
            note=f"{found['recordings']} within {limit:g} s; the store takes the same bytes in "
            f"{floor['seconds']:.2f} s ({share:.0%}); peak "
            f"{found['peak_over_idle_mib']:.0f} MiB over idle; "
            f"{1000 * found['cpu_per_recording']:.0f} ms of CPU each; told as they were done, the "
            f"longest wait for one {found['longest_silence']:.1f} s",
            details={"found": found, "store": floor},
        )
    ]
