"""A whole Pipecat pipeline: what a recorder in it adds to the CPU of the process.

Input transport, output transport, and the recorder behind it. The input sends as fast as the
output writes: in real time, timers would be most of what is measured. Nothing is uploaded.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench import incumbent, ours
from bench.audio import DIFFERENT, FRAMES_PER_SECOND, RATE, pcm
from bench.feed import FIRST_STEP_SECONDS, ends_step
from bench.plan import Plan
from bench.report import Row, by_ratio
from bench.trial import Figures, middle, paired
from bench.usage import Cpu, keep_to_one_processor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from headless import (
        BaseInputTransport,
        BaseOutputTransport,
        FrameProcessor,
        InputAudioRawFrame,
        OutputAudioRawFrame,
        PipelineWorker,
        StartFrame,
        TTSAudioRawFrame,
        params,
        run_pipeline,
    )
    from pipecat.frames.frames import EndFrame

from recorder import VirtualClock

SECONDS = 900
USER_RATE = 16_000
_BURST = 2


class Speaker(BaseOutputTransport):
    """Writes at once."""

    def __init__(self) -> None:
        super().__init__(params())
        self.written = 0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.written += len(frame.audio)
        return True


class Mic(BaseInputTransport):
    """Sends what the user says, and what the bot says with it, one second at a time."""

    def __init__(self, speaker: Speaker, clock: VirtualClock) -> None:
        super().__init__(params())
        self._speaker = speaker
        self._time = clock
        self.step: Callable[[], Awaitable[None]] | None = None
        self.counted = Cpu()
        """Since the end of the first step: what happens once in a process is not counted."""

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def talk(self) -> None:
        user, bot = pcm(USER_RATE, 1), pcm(RATE, 2)
        for number in range(SECONDS * FRAMES_PER_SECOND):
            self._time.advance(1 / FRAMES_PER_SECOND)
            one = number % DIFFERENT
            await self.push_audio_frame(InputAudioRawFrame(user[one], USER_RATE, 1))
            await self.push_frame(TTSAudioRawFrame(bot[one], RATE, 1))
            if not (number + 1) % _BURST:
                sent = (number + 1) * len(bot[0])
                while self._speaker.written < sent:  # noqa: ASYNC110 - nobody sets an event
                    await asyncio.sleep(0)
            if self.step is not None and ends_step(number + 1):
                await self.step()
            if number + 1 == FIRST_STEP_SECONDS * FRAMES_PER_SECOND:
                self.counted = Cpu()


async def measure(with_recorder: str) -> Figures:
    """The pipeline with `none`, `theirs` or `ours`."""
    keep_to_one_processor()
    clock = VirtualClock()
    speaker = Speaker()
    mic = Mic(speaker, clock)
    processors: list[FrameProcessor] = [mic, speaker]
    used: list[float] = []
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(ours.folder()))
        if with_recorder == "theirs":
            processors.append(incumbent.recorder())
        elif with_recorder == "ours":
            recorder = await stack.enter_async_context(
                ours.opened(root, None, uploads=False, clock=clock, drain_seconds=0)
            )
            mine = ours.processor(recorder)
            processors.append(mine)

        async def script(worker: PipelineWorker) -> None:
            if with_recorder == "ours":
                mic.step = partial(ours.seal, await ours.session_of(mine))
            await mic.talk()
            used.append(mic.counted.process() * 3600 / (SECONDS - FIRST_STEP_SECONDS))
            await worker.queue_frame(EndFrame())

        await run_pipeline(processors, script, in_rate=USER_RATE, out_rate=RATE)
    return {"cpu": used[0]}


async def rows(plan: Plan) -> list[Row]:
    """One row."""
    trials = {
        name: {"trial": "measure", "with_recorder": name} for name in ("none", "theirs", "ours")
    }
    found = await paired(__name__, trials, plan.runs)
    empty = middle(found["none"], "cpu")
    row = by_ratio(
        "added to a whole Pipecat pipeline",
        "CPU s/h",
        middle(found["theirs"], "cpu") - empty,
        middle(found["ours"], "cpu") - empty,
        0.33,
        note=f"the pipeline alone: {empty:.1f}; on one processor, as fast as "
        "its output writes, without uploads; "
        "the recorders are the last processors",
        empty_pipeline=empty,
    )
    return [row]
