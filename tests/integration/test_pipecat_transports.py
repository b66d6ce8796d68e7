"""Output transports of every kind, interrupted: what is recorded is what was heard, and when."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from headless import Mic, Synthesizer, Witness, noise, params, run_pipeline, until
from numpy.typing import NDArray
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSSpeakFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_output import BaseOutputTransport

from recorder import Settings, State
from recorder.pipecat import RecorderProcessor
from recorder.stores import make_store

pytestmark = pytest.mark.realtime

RATE = 24_000
FRAME_SECONDS = 0.02
CHUNK_SECONDS = 0.04
"""What Pipecat hands to transports at a time."""

BUFFER_SECONDS = 0.02
"""Who listens does not hear how busy this machine is."""

Samples = NDArray[np.int16]


class Listening(BaseOutputTransport):
    """An output transport with somebody at the other end; `heard` is what, from when on."""

    clears = True
    """Whether what was handed over and not played yet is dropped on an interruption."""

    def __init__(self) -> None:
        super().__init__(params())
        self.heard: list[tuple[float, bytes]] = []
        self.until = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame) and self.clears:
            self.clear(time.monotonic())

    def play(self, audio: bytes) -> None:
        now = time.monotonic()
        begin = self.until if now - self.until < BUFFER_SECONDS else now
        self.heard.append((begin, audio))
        self.until = begin + len(audio) / 2 / RATE

    def clear(self, now: float) -> None:
        kept = [
            (begin, audio[: max(0, int((now - begin) * RATE)) * 2]) for begin, audio in self.heard
        ]
        self.heard = [(begin, audio) for begin, audio in kept if audio]
        self.until = min(self.until, now)

    def as_heard(self, zero: float, length: int) -> Samples:
        track = np.zeros(length, np.int16)
        for begin, audio in self.heard:
            position = round((begin - zero) * RATE)
            track[position : position + len(audio) // 2] = np.frombuffer(audio, "<i2")
        return track


class Socket(Listening):
    """Sends, then waits for as long as what it sent before plays, as websocket transports do."""

    def __init__(self) -> None:
        super().__init__()
        self._due = 0.0

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.play(frame.audio)
        wait = max(0.0, self._due - time.monotonic())
        await asyncio.sleep(wait)
        begin = self._due if wait else time.monotonic()
        self._due = begin + len(frame.audio) / 2 / RATE
        return True

    def clear(self, now: float) -> None:
        super().clear(now)
        self._due = 0.0


class Device(Listening):
    """Takes as long as it plays, and plays what it has begun: a sound card, or SmallWebRTC."""

    clears = False

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.play(frame.audio)
        await asyncio.sleep(max(0.0, self.until - time.monotonic()))
        return True


class Queue(Listening):
    """Takes up to a second ahead, as LiveKit's does."""

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.play(frame.audio)
        await asyncio.sleep(max(0.0, self.until - 1 - time.monotonic()))
        return True


class Flood(Listening):
    """Takes all there is at once."""

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.play(frame.audio)
        return True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        chunk_seconds=0.5,
        outputs=("stereo", "turns"),
    )


async def stored(settings: Settings, recorder: RecorderProcessor) -> tuple[Samples, dict[str, Any]]:
    assert recorder.result is not None
    assert recorder.result.state is State.COMPLETED
    async with make_store(settings) as store:
        key = recorder.result.outputs[0].key
        body = await store.get(key)
        manifest = json.loads(await store.get(key.rpartition("/")[0] + "/manifest.json"))
    audio, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    assert rate == RATE
    return audio, manifest


def utterances(channel: Samples) -> list[tuple[int, int]]:
    """Return where sound begins and ends; the noise of the tests has no sample of 0."""
    heard = np.flatnonzero(channel)
    breaks = np.flatnonzero(np.diff(heard) > RATE // 10)
    firsts = [heard[0], *heard[breaks + 1]]
    lasts = [*heard[breaks], heard[-1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


@pytest.mark.parametrize("kind", [Socket, Device, Queue, Flood])
async def test_what_was_heard_is_recorded_where_it_was_heard(
    settings: Settings, kind: type[Listening]
) -> None:
    mic, speaker, behind = Mic(noise(3.2, RATE)), kind(), Witness()
    recorder = RecorderProcessor(settings=settings, auto_start_recording=True)
    zero: list[float] = []

    async def script(worker: PipelineWorker) -> None:
        await asyncio.sleep(0.3)
        await worker.queue_frame(TTSSpeakFrame("2.5"))
        await until(lambda: speaker.heard)
        await asyncio.sleep(0.8)
        await worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.5)
        await worker.queue_frame(TTSSpeakFrame("0.4"))
        await until(lambda: behind.count(BotStoppedSpeakingFrame) == 2)
        await mic.done.wait()
        session = recorder._latest.session if recorder._latest else None
        assert session is not None
        zero.append(session.zero)
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Synthesizer(), speaker, recorder, behind], script)
    audio, manifest = await stored(settings, recorder)
    bot, truth = audio[:, 1], speaker.as_heard(zero[0], len(audio))
    recorded, heard = utterances(bot), utterances(truth)
    assert len(recorded) == len(heard) == 2
    for (begin, end), (true_begin, true_end) in zip(recorded, heard, strict=True):
        assert abs(begin - true_begin) <= FRAME_SECONDS * RATE
        assert abs(end - true_end) <= FRAME_SECONDS * RATE
        length = min(end - begin, true_end - true_begin)
        assert np.array_equal(bot[begin : begin + length], truth[true_begin : true_begin + length])
    turns = [turn for turn in manifest["turns"] if turn["track"] == "bot"]
    assert [turn["interrupted"] for turn in turns] == [True, False]
    for turn, (begin, end) in zip(turns, recorded, strict=True):
        assert abs(turn["start"] - begin) <= 1
        assert abs(turn["end"] - end) <= CHUNK_SECONDS * RATE


async def test_turns_are_those_of_the_conversation(settings: Settings) -> None:
    mic, speaker, behind = Mic(noise(3, RATE)), Queue(), Witness()
    recorder = RecorderProcessor(settings=settings, auto_start_recording=True)

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TTSSpeakFrame("2"))
        await until(lambda: speaker.heard)
        await asyncio.sleep(1.2)
        await worker.queue_frame(UserStartedSpeakingFrame())
        await worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.4)
        await worker.queue_frame(UserStoppedSpeakingFrame())
        await worker.queue_frame(TTSSpeakFrame("0.4"))
        await until(lambda: behind.count(BotStoppedSpeakingFrame) == 2)
        await mic.done.wait()
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Synthesizer(), speaker, recorder, behind], script)
    audio, manifest = await stored(settings, recorder)
    turns = manifest["turns"]
    assert [
        (turn["number"], turn["track"], turn["conversation_turn"], turn["interrupted"])
        for turn in turns
    ] == [(1, "bot", 1, True), (2, "user", 2, False), (3, "bot", 2, False)]
    assert [turn["key"].rpartition("/turns/")[2] for turn in turns] == [
        *("0001-bot.wav", "0002-user.wav", "0003-bot.wav")
    ]
    bot, user, answer = turns
    assert bot["first_sample"] == bot["start"]
    assert user["first_sample"] == user["start"] - RATE  # the pre-roll
    assert abs(user["start"] - bot["end"]) <= FRAME_SECONDS * RATE
    assert abs(user["end"] - user["start"] - 0.4 * RATE) <= 0.05 * RATE
    async with make_store(settings) as store:
        for turn, channel in ((bot, 1), (user, 0), (answer, 1)):
            body = await store.get(turn["key"])
            clip, _ = soundfile.read(io.BytesIO(body), dtype="int16")
            assert np.array_equal(clip, audio[turn["first_sample"] : turn["end"], channel])
