"""Memory of a live session after an hour: with the store up, and with the store away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import incumbent, ours
from bench.feed import processor_feed, session_feed, steps
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, run
from bench.usage import held_mib, memory_mib, peak_mib

from recorder import Recorder, Session, VirtualClock

SECONDS = 3600
RATE = 24_000
WARM_UP_SECONDS = 90
TICKS_SECONDS = 0.25
"""Real time that each 30 s of virtual time get, so that the recorder's own timer seals."""

_NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


async def theirs() -> Figures:
    """Pipecat's recorder as it is by default."""
    processor = incumbent.recorder(0)
    async with incumbent.set_up(processor):
        feed = processor_feed(processor, None, RATE)
        await feed(0, 50)
        before = held_mib()
        await feed(50, SECONDS * 50)
        return {"held": held_mib() - before, "peak": peak_mib()}


async def session(s3: dict[str, str], up: bool) -> Figures:
    """One session for an hour; a short one before it has made what is made once in a process."""
    clock = VirtualClock()
    if not up:
        s3 = {**s3, "endpoint_url": _NOBODY}
    with ours.folder(memory=False) as root:
        settings = ours.settings(Path(root), s3, retry_max_wait_seconds=1.0, drain_seconds=0)
        async with Recorder(settings, clock=clock, require_store=up, recover=False) as recorder:
            await _live(await recorder.start(), clock, WARM_UP_SECONDS, up)
            before = held_mib()
            call = await recorder.start()
            await _live(call, clock, SECONDS, up)
            held, now = held_mib(), memory_mib()
            await recorder.close(wait_seconds=0)
    return {
        "held": held - before,
        "private": now["private"],
        "mapped": now["mapped"],
        "peak": peak_mib(),
    }


async def _live(call: Session, clock: VirtualClock, seconds: int, up: bool) -> None:
    feed = session_feed(call, clock, RATE)
    for first, end in steps(seconds):
        await feed(first, end)
        if up:
            await call.flush()
        else:  # which would wait for the store
            await asyncio.sleep(TICKS_SECONDS)
    if seconds == WARM_UP_SECONDS:
        call.end()
        if up:
            await call.stop()


async def rows(plan: Plan) -> list[Row]:
    """Store up, store away."""
    incumbents = (await run(__name__, "theirs"))["held"]
    made = []
    for up in (True, False):
        found = await run(__name__, "session", s3=plan.s3, up=up)
        made.append(
            Row(
                f"memory of a live session after an hour, store {'up' if up else 'away'}",
                "MiB",
                incumbents,
                found["held"],
                "1 MiB",
                found["held"] <= 1.0,
                note="private memory that is in use (what is free is given back first), less what "
                "it was before the session; what the recorder has in memory once for all sessions "
                f"is not in it, nor are mapped files ({found['mapped']:.0f} MiB in all, which the "
                f"kernel may drop); peak of the whole process {found['peak']:.0f} MiB",
                details=found,
            )
        )
    return made
