"""Memory of a live session after an hour: with the store up, and with the store away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import incumbent, ours
from bench.feed import ends_step, processor_feed
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, run
from bench.usage import held_mib, memory_mib, peak_mib

from recorder import Recorder, VirtualClock

SECONDS = 3600
RATE = 24_000
FRAMES = 10  # a second
TICKS_SECONDS = 0.1
"""Real time that a session gets for each 30 s of virtual time, for the recorder's timer to seal."""

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


async def sessions(s3: dict[str, str], count: int, up: bool) -> Figures:
    """Some sessions at once, an hour each; at the end all are still live."""
    clock = VirtualClock()
    if not up:
        s3 = {**s3, "endpoint_url": _NOBODY}
    with ours.folder() as root:
        settings = ours.settings(Path(root), s3, retry_max_wait_seconds=1.0, drain_seconds=0)
        async with Recorder(settings, clock=clock, require_store=up, recover=False) as recorder:
            calls = [await recorder.start() for _ in range(count)]
            audio = bytes(range(256)) * (RATE * 2 // FRAMES // 256 + 1)
            audio = audio[: RATE * 2 // FRAMES]
            for number in range(1, SECONDS * FRAMES + 1):
                clock.advance_to(calls[0].zero + number / FRAMES)
                for call in calls:
                    call.write("user", audio, RATE)
                    call.write("bot", audio, RATE)
                if ends_step(number, FRAMES):
                    if up:
                        await asyncio.gather(*(call.flush() for call in calls))
                    else:  # a flush would wait for the store
                        await asyncio.sleep(TICKS_SECONDS * (1 + count))
            held, now = held_mib(), memory_mib()
            await recorder.close(wait_seconds=0)
    return {"held": held, "mapped": now["mapped"], "peak": peak_mib()}


async def rows(plan: Plan) -> list[Row]:
    """Store up, store away."""
    incumbents = (await run(__name__, "theirs"))["held"]
    made = []
    for up, more in ((True, 5), (False, 5)):
        one = await run(__name__, "sessions", s3=plan.s3, count=1, up=up)
        some = await run(__name__, "sessions", s3=plan.s3, count=more, up=up)
        each = (some["held"] - one["held"]) / (more - 1)
        mapped = (some["mapped"] - one["mapped"]) / (more - 1)
        made.append(
            Row(
                f"memory of a live session after an hour, store {'up' if up else 'away'}",
                "MiB",
                incumbents,
                each,
                "1 MiB",
                each <= 1.0,
                note=f"private memory in use (what is free is given back first) of {more} sessions "
                f"less that of one, for each further session; frames of {1000 // FRAMES} ms, for "
                f"an hour to pass quickly; mapped files, which the kernel may drop: {mapped:.1f} "
                f"MiB each; peak of the whole process {one['peak']:.0f} MiB with one, "
                f"{some['peak']:.0f} MiB with {more}",
                details={"mapped": mapped, "one": one, "more": some},
            )
        )
    return made
