"""Recovery of many recordings from the spool: time, memory, and the store's own throughput."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench import ours
from bench.feed import session_feed
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, run
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
    """Leave recordings in a spool: the store takes nothing."""
    clock = VirtualClock()
    folder = Path(root)
    recorder = Recorder(
        ours.settings(folder, s3),
        clock=clock,
        store=ours.refusing(folder),
        require_store=False,
        recover=False,
    )
    async with recorder:
        for first in range(0, count, BATCH):
            calls = [await recorder.start() for _ in range(min(BATCH, count - first))]
            for call in calls:
                await session_feed(call, clock, RATE)(0, SECONDS * 50)
            for call in calls:
                call.end()
                await call.sealed()
        await recorder.close(wait_seconds=0)
    return {"left": sum(1 for _ in (folder / "spool").iterdir())}


async def recover(s3: dict[str, str], root: str) -> Figures:
    """Finish them."""
    told: list[float] = []
    settings = ours.settings(Path(root), s3)
    async with Recorder(settings, recover=False) as recorder:
        before = memory_mib()["private"]
        cpu, began = Cpu(), time.perf_counter()

        def note(_: Recovered) -> None:
            told.append(time.perf_counter() - began)

        found = await recorder.recover(on_recovered=note)
        lasted = time.perf_counter() - began
    done = sum(one.outcome is Outcome.RECOVERED for one in found)
    if done != len(found):
        raise RuntimeError(f"only {done} of {len(found)} were recovered: {found[0]}")
    return {
        "recordings": done,
        "seconds": lasted,
        "cpu_per_recording": cpu.process() / max(1, done),
        "peak_over_idle_mib": peak_mib() - before,
        "first_told": min(told, default=None),
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
    count = plan.recordings
    with ours.folder(memory=False) as root:
        await run(__name__, "spool", s3=plan.s3, root=root, count=count)
        floor = await run(__name__, "store", s3=plan.s3, count=count)
        found = await run(__name__, "recover", s3=plan.s3, root=root)
    share = floor["seconds"] / found["seconds"]
    bounded = found["peak_over_idle_mib"] <= MEMORY_MIB
    return [
        Row(
            f"recovery of {count} recordings of {SECONDS} s",
            "s",
            None,
            found["seconds"],
            f"{STORE_SHARE:.0%} of the store's throughput, under {MEMORY_MIB:.0f} MiB",
            share >= STORE_SHARE and bounded and found["told"] == count,
            note=f"the store takes the same bytes in {floor['seconds']:.2f} s ({share:.0%}); peak "
            f"{found['peak_over_idle_mib']:.0f} MiB over idle; "
            f"{1000 * found['cpu_per_recording']:.0f} ms of CPU each; {found['told']} told as "
            "they were done",
            details={"found": found, "store": floor},
        )
    ]
