"""What a user would take instead: Pipecat's AudioBufferProcessor and a handler that uploads."""

from __future__ import annotations

import asyncio
import io
import time
import warnings
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aioboto3

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pipecat.clocks.system_clock import SystemClock
    from pipecat.frames.frames import Frame, StartFrame
    from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor
    from pipecat.processors.frame_processor import (
        FrameDirection,
        FrameProcessor,
        FrameProcessorSetup,
    )
    from pipecat.utils.asyncio.task_manager import TaskManager

from bench.audio import RATE

CHUNK_SECONDS = 30


class End(FrameProcessor):
    """Where frames end: the processor behind the one that is measured; it costs next to nothing."""

    async def queue_frame(self, frame: Frame, *_: Any, **__: Any) -> None:
        pass


class PassThrough(FrameProcessor):
    """Passes frames on as Pipecat's own processors do."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


@asynccontextmanager
async def set_up(processor: FrameProcessor) -> AsyncIterator[None]:
    """A processor as it is in a pipeline, alone, and started."""
    clock = SystemClock()
    clock.start()
    worker: Any = SimpleNamespace(turn_tracking_observer=None)
    tasks = TaskManager()
    setup = FrameProcessorSetup(
        clock=clock, task_manager=tasks, pipeline_worker=worker, audio_out_sample_rate=RATE
    )
    end = End(enable_direct_mode=True)
    processor.link(end)
    await end.setup(setup)
    await processor.setup(setup)
    await processor.process_frame(StartFrame(), FrameDirection.DOWNSTREAM)
    try:
        yield
    finally:
        await processor.cleanup()


def recorder(chunk_seconds: float = CHUNK_SECONDS) -> AudioBufferProcessor:
    """Pipecat's recorder, stereo; with 0, all is kept until the end: its default."""
    size = int(RATE * 2 * chunk_seconds)
    return AudioBufferProcessor(
        sample_rate=RATE, num_channels=2, buffer_size=size, auto_start_recording=True
    )


def in_wav(audio: bytes, sample_rate: int, channels: int) -> bytes:
    """A WAV file, made as handlers make it."""
    with io.BytesIO() as buffer:
        with wave.open(buffer, "wb") as file:
            file.setsampwidth(2)
            file.setnchannels(channels)
            file.setframerate(sample_rate)
            file.writeframes(audio)
        return buffer.getvalue()


class Uploads:
    """A handler of `on_audio_data` that uploads, as people write it.

    Args:
        s3: Settings of the server.
        shared: Whether one client serves all uploads; else each makes its own from one session.

    Attributes:
        delays: Seconds from the handler's call to the upload's end, of each upload.
    """

    def __init__(self, s3: dict[str, str], *, shared: bool) -> None:
        self.delays: list[float] = []
        self._session = aioboto3.Session(
            aws_access_key_id=s3["access_key"],
            aws_secret_access_key=s3["secret_key"],
            region_name=s3["region"],
        )
        self._endpoint = s3["endpoint_url"]
        self._bucket = s3["bucket"]
        self._shared = shared
        self._client: Any = None
        self._begun = self._ended = 0
        self.failed = 0

    def _make(self) -> Any:
        return self._session.client("s3", endpoint_url=self._endpoint)

    async def __aenter__(self) -> Uploads:
        if self._shared:
            self._client = await self._make().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._client is not None:
            await self._client.__aexit__(None, None, None)

    def attach(self, processor: AudioBufferProcessor, name: str) -> None:
        """Have a recorder's audio uploaded."""
        numbers = iter(range(1_000_000))

        async def on_audio_data(_: object, audio: bytes, sample_rate: int, channels: int) -> None:
            key = f"naive/{name}/{next(numbers):06d}.wav"
            began = time.monotonic()
            self._begun += 1
            try:
                await self._put(key, in_wav(audio, sample_rate, channels))
                self.delays.append(time.monotonic() - began)
            except Exception:
                self.failed += 1
                raise
            finally:
                self._ended += 1

        processor.add_event_handler("on_audio_data", on_audio_data)

    async def _put(self, key: str, body: bytes) -> None:
        if self._client is not None:
            await self._client.put_object(Bucket=self._bucket, Key=key, Body=body)
            return
        async with self._make() as client:
            await client.put_object(Bucket=self._bucket, Key=key, Body=body)

    @property
    def pending(self) -> int:
        """Uploads under way."""
        return self._begun - self._ended

    async def settled(self) -> None:
        """Wait until all that was handed to the handler is uploaded."""
        await until(lambda: not self.pending)


async def until(condition: Callable[[], object]) -> None:
    """Wait; a handler begins some turns of the loop after it was called."""
    for _ in range(3):
        await asyncio.sleep(0)
    while not condition():  # noqa: ASYNC110 - nobody there sets an event
        await asyncio.sleep(0.001)
