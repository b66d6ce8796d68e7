"""What the work cannot cost less than: a memory copy, the resampler alone; and a pass-through."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
from bench import incumbent
from bench.audio import DIFFERENT, FRAMES_PER_SECOND, RATE, pcm
from bench.feed import processor_feed
from bench.plan import Plan
from bench.report import Floor
from bench.trial import Figures, middle, paired
from bench.usage import Cpu

SECONDS = 600
HOURS = SECONDS / 3600


async def copy() -> Figures:
    """Two tracks into one preallocated array, frame by frame, through a memoryview."""
    user, bot = pcm(RATE, 1), pcm(RATE, 2)
    room = memoryview(bytearray(SECONDS * RATE * 4))
    size = len(user[0])
    room[:] = bytes(len(room))  # its pages are there
    cpu = Cpu()
    at = 0
    for number in range(SECONDS * FRAMES_PER_SECOND):
        room[at : at + size] = user[number % DIFFERENT]
        room[at + size : at + 2 * size] = bot[number % DIFFERENT]
        at += 2 * size
    return {"cpu": cpu.process() / HOURS}


async def resample(block_ms: int) -> Figures:
    """16 kHz to 24 kHz, one track, in blocks of one length."""
    stream = soxr.ResampleStream(16_000, RATE, 1, dtype="int16", quality="HQ")
    rng = np.random.default_rng(1)
    block = rng.integers(-3000, 3000, 16 * block_ms, dtype=np.int16)
    stream.resample_chunk(block)
    cpu = Cpu()
    for _ in range(SECONDS * 1000 // block_ms):
        stream.resample_chunk(block)
    return {"cpu": cpu.process() / HOURS}


async def pass_through() -> Figures:
    """Pipecat's process_frame and push_frame: of processors that leave all to it."""
    processor = incumbent.PassThrough()
    async with incumbent.set_up(processor):
        feed = processor_feed(processor, None, RATE)
        await feed(0, 1000)
        cpu = Cpu()
        await feed(0, SECONDS * FRAMES_PER_SECOND)
        return {"cpu": cpu.process() / HOURS}


async def floors(plan: Plan) -> list[Floor]:
    """All of them."""
    trials: dict[str, dict[str, Any]] = {
        "both tracks' frames copied, memoryview slices": {"trial": "copy"},
        "soxr HQ 16k to 24k, 20 ms blocks, one track": {"trial": "resample", "block_ms": 20},
        "soxr HQ 16k to 24k, 100 ms blocks, one track": {"trial": "resample", "block_ms": 100},
        "soxr HQ 16k to 24k, 500 ms blocks, one track": {"trial": "resample", "block_ms": 500},
        "a pass-through by Pipecat's own process_frame and push_frame": {"trial": "pass_through"},
    }
    found = await paired(__name__, trials, plan.runs)
    return [Floor(what, middle(runs, "cpu")) for what, runs in found.items()]
