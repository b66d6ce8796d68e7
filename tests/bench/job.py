"""The whole job to a real server: CPU of the client process per recorded hour, setup excluded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import incumbent, ours
from bench.feed import processor_feed, session_feed, steps
from bench.plan import Plan
from bench.report import Row, by_ratio
from bench.trial import Figures, middle, paired
from bench.usage import Cpu, keep_to_one_processor, peak_mib

from recorder import VirtualClock

SECONDS = 600
USER_RATE = 16_000


async def theirs(s3: dict[str, str], shared: bool) -> Figures:
    """Pipecat's recorder in 30 s blocks, each uploaded by its handler; no object at the end."""
    keep_to_one_processor()
    processor = incumbent.recorder()
    async with incumbent.Uploads(s3, shared=shared) as uploads, incumbent.set_up(processor):
        uploads.attach(processor, f"job-{shared}")
        feed = processor_feed(processor, None, USER_RATE)
        cpu = Cpu()
        for first, end in steps(SECONDS):
            await feed(first, end)
            await uploads.settled()
        await processor.stop_recording()
        await uploads.settled()
        used = cpu.process() * 3600 / SECONDS
        return {"cpu": used, "uploads": len(uploads.delays), "failed": uploads.failed}


async def session(s3: dict[str, str]) -> Figures:
    """This recorder: chunks, stereo output, manifest, verified and tidied up."""
    keep_to_one_processor()
    clock = VirtualClock()
    with ours.folder() as root:
        async with ours.opened(Path(root), s3, clock=clock) as recorder:
            cpu, writing = Cpu(), 0.0
            call = await recorder.start()
            feed = session_feed(call, clock, USER_RATE)
            for first, end in steps(SECONDS):
                alone = Cpu()
                await feed(first, end)
                writing += alone.thread()
                await call.flush()
            result = await call.stop()
            used = cpu.process() * 3600 / SECONDS
    if not result.durable or result.samples != SECONDS * recorder.settings.sample_rate:
        raise RuntimeError(f"not recorded as it should be: {result}")
    requests = sum(n for name, n in result.counts.items() if name != "failed_attempts")
    return {
        "cpu": used,
        "write": writing * 3600 / SECONDS,
        "requests": requests,
        "peak_mib": peak_mib(),
    }


async def rows(plan: Plan) -> list[Row]:
    """One row."""
    trials: dict[str, dict[str, Any]] = {
        "naive": {"trial": "theirs", "s3": plan.s3, "shared": False},
        "ours": {"trial": "session", "s3": plan.s3},
        "shared": {"trial": "theirs", "s3": plan.s3, "shared": True},
    }
    found = await paired(__name__, trials, plan.runs)
    shared = middle(found["shared"], "cpu")
    row = by_ratio(
        "whole job, chunks and stereo output uploaded",
        "CPU s/h",
        middle(found["naive"], "cpu"),
        middle(found["ours"], "cpu"),
        0.6,
        note=f"client's process, on one processor, user 16k to 24k, calls of "
        f"{SECONDS // 60} min; theirs: 30 s "
        f"blocks, aioboto3 with a client for each (with one shared: {shared:.2f}), chunks alone; "
        "ours: chunks and the stereo output, start to verified and tidied up",
        shared_client=shared,
        write=middle(found["ours"], "write"),
        requests=middle(found["ours"], "requests"),
    )
    return [row]
