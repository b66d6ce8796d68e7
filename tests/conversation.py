"""A processor on its stage, who talks there in virtual time, and what is stored of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import soundfile
from faulty_store import FaultyStore
from headless import Stage, until
from numpy.typing import NDArray
from pipecat.frames.frames import InputAudioRawFrame, TTSAudioRawFrame, UserAudioRawFrame

from recorder import Recorder, VirtualClock
from recorder.pipecat import RecorderProcessor

RATE = 24_000
FRAME = RATE // 50
Samples = NDArray[np.int16]


class Talk:
    """A processor on its stage, in virtual time; `told` are the events it told, in order."""

    def __init__(self, processor: RecorderProcessor, stage: Stage, clock: VirtualClock) -> None:
        self.processor = processor
        self.stage = stage
        self.clock = clock
        self.told: list[tuple[str, Any]] = []
        for name in (
            "on_recording_started",
            "on_recording_stopped",
            "on_recording_completed",
            "on_upload_error",
        ):
            self.listen(name)

    def listen(self, name: str) -> None:
        """Note an event from now on."""

        def note(_processor: RecorderProcessor, *arguments: Any) -> None:
            self.told.append((name, arguments))

        self.processor.add_event_handler(name, note)

    def named(self, name: str) -> list[Any]:
        """Return what was told with each event of a name."""
        return [arguments for told, arguments in self.told if told == name]

    async def say(self, **voices: Samples) -> None:
        """Let everybody speak at once, in frames of 20 ms."""
        length = max(len(pcm) for pcm in voices.values())
        for start in range(0, length, FRAME):
            self.clock.advance(FRAME / RATE)
            for name, pcm in voices.items():
                audio = pcm[start : start + FRAME].tobytes()
                if not audio:
                    continue
                if name == "bot":
                    await self.stage.push(TTSAudioRawFrame(audio, RATE, 1))
                elif name == "user":
                    await self.stage.push(InputAudioRawFrame(audio, RATE, 1))
                else:
                    await self.stage.push(UserAudioRawFrame(audio, RATE, 1, user_id=name))
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    async def over(self) -> None:
        """Wait for the end of the recording."""
        await self.until(lambda: self.named("on_recording_completed"))


@asynccontextmanager
async def talking(
    clock: VirtualClock, recorder: Recorder, *, started: bool = True, **options: Any
) -> AsyncIterator[Talk]:
    """Set up a processor, by default with a recording that has begun; and clean it up."""
    processor = RecorderProcessor(**{"recorder": recorder, "auto_start_recording": True, **options})
    stage = Stage(processor)
    talk = Talk(processor, stage, clock)
    await stage.start()
    try:
        if started and options.get("auto_start_recording", True):
            await talk.until(lambda: talk.named("on_recording_started"))
        yield talk
    finally:
        await processor.cleanup()


def noise(seconds: float, seed: int = 0) -> Samples:
    """Return samples none of which is 0."""
    return np.random.default_rng(seed).integers(1000, 9000, round(seconds * RATE), np.int16)


def wait_for(event: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """Return a handler that lasts until something happens."""

    async def handler(*_: object) -> None:
        await event.wait()

    return handler


async def objects(store: FaultyStore, name: str) -> list[bytes]:
    """Return all objects whose keys end with a name."""
    async with store.inner as inner:
        keys = [info.key async for info in inner.list_objects() if info.key.endswith(name)]
        return [await inner.get(key) for key in keys]


async def final_audio(store: FaultyStore, name: str = "/audio.wav") -> Samples:
    """Return the only object whose key ends with a name, shape (samples, channels)."""
    (body,) = await objects(store, name)
    samples, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    assert rate == RATE
    return samples
