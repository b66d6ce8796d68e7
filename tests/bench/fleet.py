"""Many calls in one process in real time, to a server in another: how late the bot's loop gets.

Few timers serve all calls, since a timer for each would be most of what is measured. Calls begin
one after the other over the length of a chunk; only then begins what is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench import incumbent, ours, sweep
from bench.audio import DIFFERENT, FRAMES_PER_SECOND, RATE, bot_frames, pcm, user_frames
from bench.lag import Lag
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, run
from bench.usage import Cpu, memory_mib, peak_mib
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from recorder.events import ChunkUploaded, Event
from uploader.clock import SystemClock

TIMERS = 20
CHUNK_SECONDS = 10.0
LATE_SECONDS = 10.0
"""A chunk that is not in the store so long after its end is late: by then the next one ends."""

USER_RATE = 16_000
FEW = 50
"""Clients for each upload are tried with no more calls than this: with more they take gigabytes."""

P99_MS, MAX_MS, CORE = 10.0, 50.0, 60.0
MOST_CALLS = 1000

Frame = Callable[[int], Awaitable[None]]
Start = Callable[[int], Awaitable[Frame]]


class Fleet:
    """Calls, and the timers that feed them.

    Attributes:
        delays: Seconds from the end of a chunk to its being in the store.
    """

    def __init__(self, count: int, start: Start) -> None:
        self.delays: list[float] = []
        self._count = count
        self._start = start
        self._calls: list[list[Frame]] = [[] for _ in range(TIMERS)]

    async def run(self, seconds: float) -> Figures:
        """Start all, and measure for so long."""
        timers = [asyncio.ensure_future(self._feed(index)) for index in range(TIMERS)]
        began = time.monotonic()
        for number in range(self._count):
            due = began + number * CHUNK_SECONDS / self._count
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._calls[number % TIMERS].append(await self._start(number))
        await asyncio.sleep(max(0.0, began + CHUNK_SECONDS - time.monotonic()))
        ramp = time.monotonic() - began
        lag, cpu = Lag(), Cpu()
        counted = len(self.delays)
        lag.begin()
        began = time.monotonic()
        await asyncio.sleep(seconds)
        lasted = time.monotonic() - began
        figures: Figures = {
            "sessions": self._count,
            "cpu_percent": 100 * cpu.process() / lasted,
            "loop_thread_percent": 100 * cpu.thread() / lasted,
            **lag.end(),
            "private_mib": memory_mib()["private"],
            "resident_mib": sum(memory_mib().values()),
            "peak_mib": peak_mib(),
            "ramp_seconds": ramp,
        }
        for timer in timers:
            timer.cancel()
        delays = self.delays[counted:]
        due = int(self._count * (lasted - LATE_SECONDS) / CHUNK_SECONDS)
        late = sum(delay > LATE_SECONDS for delay in delays)
        figures |= {
            "chunks": len(delays),
            "chunks_late": late + max(0, due - len(delays)),
            "delay_p50": float(np.percentile(delays, 50)) if delays else None,
            "delay_max": max(delays, default=None),
        }
        return figures

    async def _feed(self, index: int) -> None:
        """Feed a share of the calls, 50 times a second, each call its next pair of frames."""
        calls = self._calls[index]
        due = time.monotonic() + index / TIMERS / FRAMES_PER_SECOND
        number = 0
        while True:
            for frame in calls:
                await frame(number)
            number = (number + 1) % DIFFERENT
            due += 1 / FRAMES_PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def _by_process_frame(processor: FrameProcessor) -> Frame:
    user, bot, down = _USER, _BOT, FrameDirection.DOWNSTREAM
    process_frame = processor.process_frame

    async def frame(number: int) -> None:
        await process_frame(user[number], down)
        await process_frame(bot[number], down)

    return frame


_USER, _BOT = user_frames(USER_RATE), bot_frames()
_USER_PCM, _BOT_PCM = pcm(USER_RATE, 1), pcm(RATE, 2)


async def theirs(s3: dict[str, str], count: int, seconds: float, shared: bool) -> Figures:
    """Pipecat's recorder, `process_frame` called, 10 s blocks uploaded by its handler."""
    async with AsyncExitStack() as stack:
        uploads = await stack.enter_async_context(incumbent.Uploads(s3, shared=shared))

        async def start(number: int) -> Frame:
            processor = incumbent.recorder(CHUNK_SECONDS)
            uploads.attach(processor, f"fleet-{shared}-{number}")
            await stack.enter_async_context(incumbent.set_up(processor))
            return _by_process_frame(processor)

        fleet = Fleet(count, start)
        fleet.delays = uploads.delays
        figures = await fleet.run(seconds)
        figures["failed"] = uploads.failed
        await asyncio.wait_for(uploads.settled(), 60)
    return figures


async def own(s3: dict[str, str], count: int, seconds: float, through: str) -> Figures:
    """This recorder, by writers of sessions or `RecorderProcessor.process_frame`."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(ours.folder()))
        recorder = await stack.enter_async_context(
            ours.opened(root, s3, clock=SystemClock(), chunk_seconds=CHUNK_SECONDS, drain_seconds=0)
        )
        fleet: Fleet

        def uploaded(event: Event, zero: float) -> None:
            if isinstance(event, ChunkUploaded):
                end = event.chunk.end / recorder.settings.sample_rate
                fleet.delays.append(time.monotonic() - zero - end)

        async def start_session(_: int) -> Frame:
            zero = time.monotonic()
            call = await recorder.start(on_event=lambda event: uploaded(event, zero))
            write_user = call.writer("user", USER_RATE).write
            write_bot = call.writer("bot", RATE).write

            async def frame(number: int) -> None:
                write_user(_USER_PCM[number])
                write_bot(_BOT_PCM[number])

            return frame

        async def start_processor(_: int) -> Frame:
            processor = ours.processor(recorder)
            zero = time.monotonic()

            async def on_chunk_uploaded(_: object, event: Event) -> None:
                uploaded(event, zero)

            processor.add_event_handler("on_chunk_uploaded", on_chunk_uploaded)
            await stack.enter_async_context(incumbent.set_up(processor))
            return _by_process_frame(processor)

        fleet = Fleet(count, start_session if through == "session" else start_processor)
        figures = await fleet.run(seconds)
        await recorder.close(wait_seconds=0)
    return figures


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "shared": ("theirs", {"shared": True}),
    "naive": ("theirs", {"shared": False}),
    "ours": ("own", {"through": "processor"}),
    "session": ("own", {"through": "session"}),
}
"""How calls are recorded: theirs with one client, or one for each chunk; ours, both ways in."""


async def measured(plan: Plan, kind: str, count: int) -> Figures:
    """One fleet."""
    name, options = KINDS[kind]
    return await run(__name__, name, s3=plan.s3, count=count, seconds=plan.fleet_seconds, **options)


def keeps_up(one: Figures) -> bool:
    """Whether the bots of a fleet were on time, and its chunks."""
    in_time = one["lag_p99_ms"] < P99_MS and one["lag_max_ms"] < MAX_MS
    return in_time and not one["chunks_late"]


async def rows(plan: Plan) -> list[Row]:
    """For each size one row for the loop's lag, one for the core that is used; and the sweep."""
    made: list[Row] = []
    for many in plan.sessions:
        made += await _of_size(plan, many)
    if plan.sweep:
        made.append(await _largest(plan))
    return made


async def _of_size(plan: Plan, many: int) -> list[Row]:
    few = min(FEW, many)
    found = {kind: await measured(plan, kind, many) for kind in ("shared", "ours", "session")}
    found["naive"] = await measured(plan, "naive", few)
    told_of = "; ".join(f"{label}: {told(one)}" for label, one in found.items())
    ours_now, shared = found["ours"], found["shared"]
    lag = Row(
        f"{many} calls in real time, lag of the bot's loop, p99",
        "ms",
        shared["lag_p99_ms"],
        ours_now["lag_p99_ms"],
        f"p99 under {P99_MS:g}, none over {MAX_MS:g} ms",
        keeps_up(ours_now),
        note="by process_frame; theirs with a shared client, with one for each chunk "
        f"({few} calls) {found['naive']['lag_p99_ms']:.1f} ms. {told_of}",
        details=found,
    )
    scale = many / 1000
    cpu = Row(
        f"{many} calls in real time, share of a core",
        "%",
        shared["cpu_percent"],
        ours_now["cpu_percent"],
        f"{CORE * scale:g} % ({CORE:g} % at 1,000)",
        ours_now["cpu_percent"] <= CORE * scale,
        note=f"whole process; of it the bot's thread {ours_now['loop_thread_percent']:.0f} % "
        f"(theirs {shared['loop_thread_percent']:.0f} %); by the session API "
        f"{found['session']['cpu_percent']:.0f} %",
    )
    return [lag, cpu]


async def _largest(plan: Plan) -> Row:
    found = {}
    for kind in ("ours", "session", "shared", "naive"):
        found[kind] = await sweep.largest(partial(measured, plan, kind), keeps_up)
    sizes = {kind: f"{one.largest}{' or more' * one.at_most}" for kind, one in found.items()}
    return Row(
        "most calls in real time, all on time",
        "calls",
        found["shared"].largest,
        found["ours"].largest,
        f"{MOST_CALLS:,}",
        found["ours"].largest >= MOST_CALLS,
        note=f"lag p99 under {P99_MS:g} ms, none over {MAX_MS:g} ms, no chunk late, in "
        f"{plan.fleet_seconds:g} s, found to within {sweep.CLOSE - 1:.0%}; by process_frame "
        f"{sizes['ours']}, by the session API {sizes['session']}; theirs with a shared client "
        f"{sizes['shared']}, with one for each chunk {sizes['naive']}",
        details={kind: {"largest": one.largest, "tried": one.tried} for kind, one in found.items()},
        more_is_better=True,
    )


def told(one: Figures) -> str:
    """A fleet in a line."""
    return (
        f"{one['sessions']} calls {one['cpu_percent']:.0f} % of a core, lag "
        f"{one['lag_p50_ms']:.1f}/{one['lag_p99_ms']:.1f}/{one['lag_max_ms']:.0f} ms "
        f"p50/p99/max, {one['private_mib']:.0f} MiB (resident {one['resident_mib']:.0f}), "
        f"{one['chunks']} chunks stored, {one['chunks_late']} late or missing"
    )
