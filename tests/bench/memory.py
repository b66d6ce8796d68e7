"""Memory of a live session after an hour: with the store up, and with the store away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import incumbent, ours
from bench.feed import processor_feed, session_feed, steps
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, run
from bench.usage import memory_mib, peak_mib

from recorder import Recorder, VirtualClock

SECONDS = 3600
RATE = 24_000
FEW, MORE = 1, 3
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
        before = memory_mib()["private"]
        await feed(50, SECONDS * 50)
        return {"private": memory_mib()["private"] - before, "peak": peak_mib()}


async def sessions(s3: dict[str, str], count: int, up: bool) -> Figures:
    """Some sessions at once, an hour each; at its end all are still live."""
    clock = VirtualClock()
    if not up:
        s3 = {**s3, "endpoint_url": _NOBODY}
    with ours.folder(memory=False) as root:
        settings = ours.settings(Path(root), s3, retry_max_wait_seconds=1.0)
        async with Recorder(settings, clock=clock, require_store=up, recover=False) as recorder:
            calls = [await recorder.start() for _ in range(count)]
            feeds = [session_feed(call, clock, RATE) for call in calls]
            for first, end in steps(SECONDS):
                for begin in range(first, end, 50):  # second by second, all together
                    for feed in feeds:
                        await feed(begin, begin + 50)
                if up:
                    await asyncio.gather(*(call.flush() for call in calls))
                else:
                    await asyncio.sleep(TICKS_SECONDS)
            now = memory_mib()
            await recorder.close(wait_seconds=0)
    return {**now, "peak": peak_mib()}


async def rows(plan: Plan) -> list[Row]:
    """Store up, store away."""
    incumbents = (await run(__name__, "theirs"))["private"]
    made = []
    for up in (True, False):
        few = await run(__name__, "sessions", s3=plan.s3, count=FEW, up=up)
        more = await run(__name__, "sessions", s3=plan.s3, count=MORE, up=up)
        each = (more["private"] - few["private"]) / (MORE - FEW)
        mapped = (more["mapped"] - few["mapped"]) / (MORE - FEW)
        made.append(
            Row(
                f"memory per live session after an hour, store {'up' if up else 'away'}",
                "MiB",
                incumbents,
                each,
                "1 MiB",
                each <= 1.0,
                note=f"private memory of {MORE} sessions less that of {FEW}, for each; besides "
                f"{mapped:.1f} MiB of mapped files each; process peak {few['peak']:.0f} MiB with "
                f"{FEW}, {more['peak']:.0f} MiB with {MORE}",
                details={"mapped": mapped, "few": few, "more": more},
            )
        )
    return made
