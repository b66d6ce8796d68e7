"""A trace told in Pipecat's frames: through this recorder's processor, and through Pipecat's own.

Frames are handed over one by one, in virtual time. A pipeline tells who speaks: here it does so
without delay and without mistakes, which is better than any detector does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from headless import Stage, until
from numpy.typing import NDArray
from pipecat.audio.resamplers import soxr_stream_resampler
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    TTSAudioRawFrame,
    UserAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.audio import audio_buffer_processor
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor

from recorder import Recorder, VirtualClock
from recorder.pipecat import RecorderProcessor
from traces import trace as traced
from traces.pcm import decode
from traces.through_session import RATE, read_tracks
from traces.trace import Trace

Samples = NDArray[np.int16]

PTS_PER_SECOND = 48_000
"""As SmallWebRTC has it: of the decoded stream."""

YIELD_FRAMES = 500


def told_in_frames(trace: Trace) -> bool:
    """Return whether a pipeline can tell all that the trace tells."""
    return trace.in_pipecat and "played" not in trace.needs


def frame_of(trace: Trace, event: traced.Event) -> Frame | None:
    """Return an event as a frame; None for what pipelines have no frame for."""
    if isinstance(event, traced.Frame):
        pcm = decode(event.pcm, event.encoding)
        if event.track == "bot":
            return TTSAudioRawFrame(pcm, event.rate, event.channels)
        users = [track for track in trace.tracks if track != "bot"]
        if len(users) > 1:
            return UserAudioRawFrame(pcm, event.rate, event.channels, user_id=event.track)
        frame = InputAudioRawFrame(pcm, event.rate, event.channels)
        if event.pts is not None:
            frame.pts = round(event.pts * PTS_PER_SECOND)
        return frame
    kinds: dict[str, type[Frame]] = {
        "interrupt": InterruptionFrame,
        "user_started": UserStartedSpeakingFrame,
        "user_stopped": UserStoppedSpeakingFrame,
        "bot_started": BotStartedSpeakingFrame,
        "bot_stopped": BotStoppedSpeakingFrame,
    }
    kind = kinds.get(event.kind)
    return None if kind is None else kind()


async def _play(trace: Trace, stage: Stage, clock: VirtualClock, zero: float) -> None:
    for number, event in enumerate(trace.events()):
        clock.advance_to(zero + event.at)
        frame = frame_of(trace, event)
        if frame is not None:
            await stage.push(frame)
        if number % YIELD_FRAMES == 0:
            stage.behind.seen.clear()
            await asyncio.sleep(0)
    clock.advance_to(zero + trace.seconds)
    await stage.push(CancelFrame())  # the caller hangs up


async def record(trace: Trace, recorder: Recorder, clock: VirtualClock) -> dict[str, Samples]:
    """Play a trace to a `RecorderProcessor`; return the recorded tracks."""
    name = f"{trace.name}-pipecat"
    processor = RecorderProcessor(
        recorder=recorder, recording_id=name, outputs=("tracks",), auto_start_recording=True
    )
    stage = Stage(processor, out_rate=RATE)
    zero = clock.monotonic()
    await stage.start()
    try:
        await until(lambda: processor.recording_id)
        await _play(trace, stage, clock, zero)
        await until(lambda: processor.result, seconds=120)
    finally:
        await processor.cleanup()
    if processor.result is None or not processor.result.durable:
        raise RuntimeError(f"{trace.name} was not recorded: {processor.result}")
    return read_tracks(recorder.settings, name)


async def record_with_pipecat(trace: Trace) -> dict[str, Samples]:
    """Play a trace to Pipecat's `AudioBufferProcessor`; return its two tracks.

    Its output rate is that of the bot. Blocks are not cut (`buffer_size=0`, its default) unless
    the trace is about them: each one handed on is padded anew.
    """
    clock = VirtualClock(1000.0)
    tracks: dict[str, bytearray] = {"user": bytearray(), "bot": bytearray()}
    with _in_virtual_time(clock):
        processor = AudioBufferProcessor(
            sample_rate=RATE,
            num_channels=2,
            buffer_size=round((trace.block_seconds or 0) * RATE) * 2,
            auto_start_recording=True,
            enable_direct_mode=True,
        )

        async def collect(_: Any, user: bytes, bot: bytes, _rate: int, _channels: int) -> None:
            tracks["user"] += user
            tracks["bot"] += bot

        processor.add_event_handler("on_track_audio_data", collect)
        stopped = asyncio.Event()

        async def stop(_: Any) -> None:
            stopped.set()

        processor.add_event_handler("on_recording_stopped", stop)
        stage = Stage(processor, out_rate=RATE)
        await stage.start()
        await _play(trace, stage, clock, clock.monotonic())
        await stopped.wait()
        await asyncio.sleep(0.01)  # a handler of audio is a task that none can be waited for
        await processor.cleanup()
    return {name: np.frombuffer(bytes(pcm), "<i2") for name, pcm in tracks.items()}


@contextmanager
def _in_virtual_time(clock: VirtualClock) -> Iterator[None]:
    """Move the clocks of Pipecat's recorder, and of its resampler, by hand; no others."""
    virtual = SimpleNamespace(monotonic=clock.monotonic, time=clock.monotonic)
    modules: tuple[Any, ...] = (audio_buffer_processor, soxr_stream_resampler)
    real = [module.time for module in modules]
    for module in modules:
        module.time = virtual
    try:
        yield
    finally:
        for module, time in zip(modules, real, strict=True):
            module.time = time
