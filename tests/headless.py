"""Parts of pipelines without a network, a way to run one, and a stage for a processor alone."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

with warnings.catch_warnings():
    # Pipecat's import of a module that Python 3.13 has dropped, and a package of that name has not.
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    from pipecat.clocks.system_clock import SystemClock
    from pipecat.frames.frames import (
        Frame,
        InputAudioRawFrame,
        OutputAudioRawFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSSpeakFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
    )
    from pipecat.observers.turn_tracking_observer import TurnTrackingObserver
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.frame_processor import (
        FrameDirection,
        FrameProcessor,
        FrameProcessorSetup,
    )
    from pipecat.transports.base_input import BaseInputTransport
    from pipecat.transports.base_output import BaseOutputTransport
    from pipecat.transports.base_transport import TransportParams
    from pipecat.utils.asyncio.task_manager import TaskManager
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


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for what happens on another thread."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody there sets an event
            await asyncio.sleep(0.005)


async def run_pipeline(
    processors: Sequence[FrameProcessor],
    script: Callable[[PipelineWorker], Awaitable[None]],
    *,
    in_rate: int = 24_000,
    out_rate: int = 24_000,
    **options: Any,
) -> None:
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


class Stage:
    """A processor alone, set up as in a pipeline; frames are handed to it, `behind` sees them go.

    Attributes:
        behind: The next processor.
        turns: The turn tracker of the pipeline it believes to be in.
    """

    def __init__(self, processor: FrameProcessor, *, out_rate: int = 24_000) -> None:
        self.processor = processor
        self.behind = Witness()
        self.turns = TurnTrackingObserver()
        self._out_rate = out_rate
        processor.link(self.behind)

    async def set_up(self) -> None:
        clock = SystemClock()
        clock.start()
        worker: Any = SimpleNamespace(turn_tracking_observer=self.turns)
        setup = FrameProcessorSetup(
            clock=clock,
            task_manager=TaskManager(),
            pipeline_worker=worker,
            audio_out_sample_rate=self._out_rate,
        )
        await self.behind.setup(setup)
        await self.processor.setup(setup)

    async def start(self) -> None:
        await self.set_up()
        await self.push(StartFrame())

    async def push(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        await self.processor.queue_frame(frame, direction)

    async def end_turn(self, number: int) -> None:
        await self.turns._call_event_handler("on_turn_ended", number, 1.0, False)
        await asyncio.sleep(0)


@asynccontextmanager
async def on_stage(processor: FrameProcessor, **options: Any) -> AsyncIterator[Stage]:
    """Start a processor on a stage, and clean it up."""
    stage = Stage(processor, **options)
    await stage.start()
    try:
        yield stage
    finally:
        await processor.cleanup()
