"""Capture: CPU of the whole process per recorded hour, called directly. Nothing is uploaded."""

from __future__ import annotations

from pathlib import Path

from bench import incumbent, ours
from bench.feed import FIRST_STEP_SECONDS, processor_feed, session_feed, steps
from bench.plan import Plan
from bench.report import Row, by_ratio
from bench.trial import Figures, middle, paired
from bench.usage import Cpu, keep_to_one_processor

from recorder import VirtualClock

SECONDS = 900
WARM_UP = FIRST_STEP_SECONDS
"""Seconds of the call that are not counted: what happens once in a process."""

NOTE = (
    "whole process, on one processor, without uploads: theirs in 30 s blocks with a "
    "handler that does nothing; "
    "ours with write, journal, timeline, resampling, sealed chunk files and checksums, the spool "
    "on the disk, a store that never answers"
)


def per_hour(seconds: float, recorded: float = SECONDS - WARM_UP) -> float:
    return seconds * 3600 / recorded


async def theirs(user_rate: int) -> Figures:
    """Pipecat's recorder, `process_frame` by `process_frame`."""
    keep_to_one_processor()
    processor = incumbent.recorder()

    async def on_audio_data(*_: object) -> None:
        pass

    processor.add_event_handler("on_audio_data", on_audio_data)
    async with incumbent.set_up(processor):
        feed = processor_feed(processor, None, user_rate)
        cpu = Cpu()
        for first, end in steps(SECONDS):
            if first == WARM_UP * 50:
                cpu = Cpu()
            await feed(first, end)
            await incumbent.until(lambda: True)
        return {"cpu": per_hour(cpu.process())}


async def session(user_rate: int) -> Figures:
    """Writers of a session, and all that follows from them."""
    keep_to_one_processor()
    clock = VirtualClock()
    with ours.folder() as root:
        async with ours.opened(Path(root), None, uploads=False, clock=clock) as recorder:
            call = await recorder.start()
            feed = session_feed(call, clock, user_rate)
            cpu, writing = Cpu(), 0.0
            for first, end in steps(SECONDS):
                if first == WARM_UP * 50:
                    cpu, writing = Cpu(), 0.0
                alone = Cpu()
                await feed(first, end)
                writing += alone.thread()
                await ours.seal(call)
            total = per_hour(cpu.process())
            call.end()
    write = per_hour(writing)
    return {"cpu": total, "write": write, "behind": total - write}


async def processor(user_rate: int) -> Figures:
    """`RecorderProcessor`, `process_frame` by `process_frame`."""
    keep_to_one_processor()
    clock = VirtualClock()
    with ours.folder() as root:
        async with ours.opened(Path(root), None, uploads=False, clock=clock) as recorder:
            one = ours.processor(recorder)
            async with incumbent.set_up(one):
                call = await ours.session_of(one)
                feed = processor_feed(one, clock, user_rate, call.zero)
                cpu, taking = Cpu(), 0.0
                for first, end in steps(SECONDS):
                    if first == WARM_UP * 50:
                        cpu, taking = Cpu(), 0.0
                    alone = Cpu()
                    await feed(first, end)
                    taking += alone.thread()
                    await ours.seal(call)
                total = per_hour(cpu.process())
                call.end()
                await recorder.close(wait_seconds=0)
    frames = per_hour(taking)
    return {"cpu": total, "frames": frames, "behind": total - frames}


async def rows(plan: Plan) -> list[Row]:
    """Four rows: both ways in, with and without resampling."""
    limits = {("session", 24_000): 0.2, ("session", 16_000): 0.3}
    limits |= {("processor", 24_000): 0.55, ("processor", 16_000): 0.5}
    trials = {
        f"{trial} {rate}": {"trial": trial, "user_rate": rate}
        for rate in (24_000, 16_000)
        for trial in ("theirs", "session", "processor")
    }
    found = await paired(__name__, trials, plan.runs)
    made = []
    for (trial, rate), limit in limits.items():
        runs = found[f"{trial} {rate}"]
        what = "session API" if trial == "session" else "RecorderProcessor"
        how = "no resampling" if rate == 24_000 else "user 16k to 24k"
        parts = {name: middle(runs, name) for name in runs[0] if name != "cpu"}
        split = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
        made.append(
            by_ratio(
                f"capture, {what}, {how}",
                "CPU s/h",
                middle(found[f"theirs {rate}"], "cpu"),
                middle(runs, "cpu"),
                limit,
                note=split if made else f"{split}; {NOTE}",
                **parts,
            )
        )
    return made
