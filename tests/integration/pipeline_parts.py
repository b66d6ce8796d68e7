"""Ends of a pipeline without a network: a microphone, a loudspeaker, a synthesizer; and its run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

FRAME_SECONDS = 0.02


def noise(seconds: float, sample_rate: int, seed: int = 0) -> bytes:
    """Return audio of which every stretch is unlike every other, and never silent."""
    samples = np.random.default_rng(seed).integers(1000, 9000, int(seconds * sample_rate))
    return samples.astype("<i2").tobytes()


def params() -> TransportParams:
    return TransportParams(
        audio_in_enabled=True, audio_out_enabled=True, audio_out_end_silence_secs=0
    )


class Mic(BaseInputTransport):
    """Sends its audio in frames of 20 ms, in real time."""

    def __init__(self, pcm: bytes) -> None:
        super().__init__(params())
        self.pcm = pcm
        self.done = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._talking = self.create_task(self._talk())

    async def _talk(self) -> None:
        size = int(self.sample_rate * FRAME_SECONDS) * 2
        began = time.monotonic()
        for number, start in enumerate(range(0, len(self.pcm), size)):
            due = began + (number + 1) * FRAME_SECONDS  # a frame is there when it has been spoken
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            audio = self.pcm[start : start + size]
            await self.push_audio_frame(InputAudioRawFrame(audio, self.sample_rate, 1))
        self.done.set()

    async def cleanup(self) -> None:
        await super().cleanup()
        if self._talking is not None:
            await self.cancel_task(self._talking)


class Speaker(BaseOutputTransport):
    """Plays in real time, as a websocket transport does; `played` is what was heard."""

    def __init__(self, *, paced: bool = True) -> None:
        super().__init__(params())
        self.played = bytearray()
        self._paced = paced
        self._due = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.played += frame.audio
        if self._paced:
            wait = max(0.0, self._due - time.monotonic())
            await asyncio.sleep(wait)
            begin = self._due if wait else time.monotonic()
            self._due = begin + len(frame.audio) / 2 / self.sample_rate
        return True


class Synthesizer(FrameProcessor):
    """Says the noise of so many seconds that it is asked for, all of it at once."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, TTSSpeakFrame):
            await self.push_frame(frame, direction)
            return
        pcm = noise(float(frame.text), 24_000, seed=len(frame.text))
        await self.push_frame(TTSStartedFrame())
        for start in range(0, len(pcm), 12_000):
            await self.push_frame(TTSAudioRawFrame(pcm[start : start + 12_000], 24_000, 1))
        await self.push_frame(TTSStoppedFrame())


class Swallow(FrameProcessor):
    """Lets everything pass but frames of one class."""

    def __init__(self, kind: type[Frame]) -> None:
        super().__init__()
        self._kind = kind

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, self._kind):
            await self.push_frame(frame, direction)


class Witness(FrameProcessor):
    """Keeps what arrives behind the recorder."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.seen.append(frame)
        await self.push_frame(frame, direction)

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(frame, kind) for frame in self.seen)


async def run_pipeline(
    processors: Sequence[FrameProcessor],
    script: Callable[[PipelineWorker], Awaitable[None]],
    *,
    in_rate: int = 24_000,
    out_rate: int = 24_000,
    **options: Any,
) -> PipelineWorker:
    """Run a pipeline from its start through `script`, which has to end it, until all is over."""
    worker = PipelineWorker(
        Pipeline(list(processors)),
        enable_rtvi=False,
        idle_timeout_secs=None,
        params=PipelineParams(audio_in_sample_rate=in_rate, audio_out_sample_rate=out_rate),
        **options,
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(_worker: PipelineWorker, _frame: Frame) -> None:
        started.set()

    async def play() -> None:
        await started.wait()
        await script(worker)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), play())
    return worker


__all__ = [
    "CancelFrame",
    "EndFrame",
    "Mic",
    "Speaker",
    "Swallow",
    "Synthesizer",
    "Witness",
    "noise",
    "run_pipeline",
]
