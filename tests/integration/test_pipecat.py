"""Real pipelines, in real time, recorded to files: what is in them is what was heard."""

from __future__ import annotations

import asyncio
import io
import subprocess
import uuid
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from headless import Mic, Speaker, Swallow, Synthesizer, Witness, noise, run_pipeline, until
from numpy.typing import NDArray
from pipecat.frames.frames import (
    AudioBufferStartRecordingFrame,
    AudioBufferStopRecordingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    TTSSpeakFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor, TurnAudioData

from recorder import RecordingResult, Settings, State
from recorder.embedded import EmbeddedS3
from recorder.events import ChunkUploaded
from recorder.pipecat import RecorderProcessor
from recorder.stores import make_store

pytestmark = pytest.mark.realtime

RATE = 24_000
Samples = NDArray[np.int16]


@pytest.fixture(params=["local", "seaweed"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for a store of the test's own."""
    where: dict[str, Any] = {"bucket": (tmp_path / "bucket").as_uri()}
    if request.param == "seaweed":
        server: EmbeddedS3 = request.getfixturevalue("seaweed")
        where = {
            "bucket": f"s3://{server.bucket}/{uuid.uuid4().hex}",
            "aws_endpoint_url_s3": server.endpoint_url,
            "aws_access_key_id": server.access_key,
            "aws_secret_access_key": server.secret_key,
            "aws_region": server.region,
        }
    return Settings(**where, spool_dir=tmp_path / "spool", chunk_seconds=0.5)


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(), spool_dir=tmp_path / "spool", chunk_seconds=0.5
    )


def samples(pcm: bytes | bytearray) -> Samples:
    return np.frombuffer(bytes(pcm), "<i2")


def sounding(channel: Samples) -> Samples:
    """Return what is not silence; the noise of the tests has no sample of 0."""
    return channel[channel != 0]


def without_ends(channel: Samples) -> Samples:
    """Return a channel without the silence before and after: that within counts."""
    heard = np.flatnonzero(channel)
    return channel[heard[0] : heard[-1] + 1]


async def recorded(settings: Settings, result: RecordingResult | None) -> Samples:
    """Return the final object's samples, as two independent decoders see them."""
    assert result is not None
    assert result.state is State.COMPLETED
    async with make_store(settings) as store:
        body = await store.get(result.outputs[0].key)
    audio, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    assert rate == RATE
    assert len(audio) == result.samples
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "-", "-f", "s16le", "-"]
    decoded = await asyncio.to_thread(
        subprocess.run, command, input=body, stdout=subprocess.PIPE, check=True
    )
    assert decoded.stdout == audio.tobytes()
    return audio


async def test_a_conversation_is_recorded_as_it_was_heard(settings: Settings) -> None:
    mic, speaker, behind = Mic(noise(2, RATE)), Speaker(), Witness()
    recorder = RecorderProcessor(settings=settings, auto_start_recording=True)
    chunks: list[ChunkUploaded] = []
    recorder.add_event_handler("on_chunk_uploaded", lambda _recorder, chunk: chunks.append(chunk))

    async def script(worker: PipelineWorker) -> None:
        await asyncio.sleep(0.3)
        await worker.queue_frame(TTSSpeakFrame("0.8"))
        await mic.done.wait()
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Synthesizer(), speaker, recorder, behind], script)
    audio = await recorded(settings, recorder.result)
    assert np.array_equal(without_ends(audio[:, 0]), samples(mic.pcm))
    assert np.array_equal(sounding(audio[:, 1]), samples(speaker.played))
    assert len(speaker.played) == 0.8 * RATE * 2
    assert behind.count(InputAudioRawFrame) == 100
    assert behind.count(EndFrame) == 1
    assert recorder.errors == 0
    assert [chunk.chunk.samples for chunk in chunks[:-1]] == [RATE // 2] * (len(chunks) - 1)
    assert not list(settings.spool_dir.iterdir())


@pytest.mark.parametrize("swallowed", [False, True])
async def test_a_call_that_is_cancelled_is_recorded_until_then(
    local: Settings, swallowed: bool
) -> None:
    mic, speaker, behind = Mic(noise(5, RATE)), Speaker(), Witness()
    recorder = RecorderProcessor(settings=local, auto_start_recording=True)
    between = [Swallow(CancelFrame)] if swallowed else []

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TTSSpeakFrame("5"))
        await asyncio.sleep(1)
        await worker.cancel()

    parts = [mic, Synthesizer(), speaker, *between, recorder, behind]
    await run_pipeline(parts, script, cancel_timeout_secs=0.1)
    audio = await recorded(local, recorder.result)
    assert behind.count(CancelFrame) == (0 if swallowed else 1)
    assert len(audio) >= RATE
    for channel, source in ((audio[:, 0], mic.pcm), (audio[:, 1], bytes(speaker.played))):
        heard = sounding(channel)
        assert len(heard) > 0.8 * RATE
        assert np.array_equal(heard, samples(source)[: len(heard)])
    await recorder.cleanup()  # once more
    assert recorder.result is not None
    assert recorder.result.durable


async def test_a_bot_that_was_interrupted_is_recorded_as_far_as_it_was_heard(
    local: Settings,
) -> None:
    mic, speaker = Mic(noise(1.5, RATE)), Speaker(paced=False)
    recorder = RecorderProcessor(settings=local, auto_start_recording=True)

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TTSSpeakFrame("4"))
        await until(lambda: len(speaker.played) == 4 * RATE * 2)
        await asyncio.sleep(0.5)
        await worker.queue_frame(InterruptionFrame())
        await mic.done.wait()
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Synthesizer(), speaker, recorder], script)
    audio = await recorded(local, recorder.result)
    heard = sounding(audio[:, 1])
    assert 0.5 * RATE <= len(heard) < 3 * RATE
    assert np.array_equal(heard, samples(speaker.played)[: len(heard)])
    assert np.array_equal(without_ends(audio[:, 0]), samples(mic.pcm))
    assert len(audio) < 4 * RATE


async def test_audio_comes_in_blocks_while_the_call_goes_on(local: Settings) -> None:
    mic = Mic(noise(1.6, RATE))
    blocks: list[bytes] = []
    while_speaking: list[int] = []
    recorder = RecorderProcessor(
        settings=local.replace(hold_back_seconds=0.2),
        num_channels=2,
        buffer_size=RATE // 5,
        auto_start_recording=True,
    )

    @recorder.event_handler("on_audio_data")
    async def on_audio(_: RecorderProcessor, audio: bytes, rate: int, channels: int) -> None:
        assert (rate, channels) == (RATE, 2)
        blocks.append(audio)

    async def script(worker: PipelineWorker) -> None:
        await mic.done.wait()
        while_speaking.append(len(blocks))
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Speaker(), recorder], script)
    audio = await recorded(local, recorder.result)
    assert while_speaking[0] > 2
    assert {len(block) for block in blocks[:-1]} == {2 * RATE // 5}
    assert b"".join(blocks) == audio.tobytes()


async def test_the_user_is_resampled_and_takes_as_long_as_it_took(local: Settings) -> None:
    mic = Mic(noise(1.5, 16_000))
    recorder = RecorderProcessor(settings=local, auto_start_recording=True)

    async def script(worker: PipelineWorker) -> None:
        await mic.done.wait()
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Speaker(), recorder], script, in_rate=16_000)
    audio = await recorded(local, recorder.result)
    assert abs(len(without_ends(audio[:, 0])) - 1.5 * RATE) <= RATE // 50


async def test_two_pipelines_of_a_process(local: Settings) -> None:
    pairs = [
        (Mic(noise(0.8, RATE, seed)), RecorderProcessor(settings=local, auto_start_recording=True))
        for seed in (1, 2)
    ]

    async def call(mic: Mic, recorder: RecorderProcessor) -> None:
        async def script(worker: PipelineWorker) -> None:
            await mic.done.wait()
            await worker.queue_frame(EndFrame())

        await run_pipeline([mic, Speaker(), recorder], script)

    await asyncio.gather(*(call(*pair) for pair in pairs))
    for mic, recorder in pairs:
        audio = await recorded(local, recorder.result)
        assert np.array_equal(without_ends(audio[:, 0]), samples(mic.pcm))


# -- as Pipecat's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", [AudioBufferProcessor, RecorderProcessor])
async def test_it_can_take_the_place_of_pipecats_recorder(
    kind: type[AudioBufferProcessor | RecorderProcessor],
    channels: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same lines with either class: only the import differs."""
    monkeypatch.setenv("RECORDER_BUCKET", (tmp_path / "bucket").as_uri())
    monkeypatch.setenv("RECORDER_SPOOL_DIR", str(tmp_path / "spool"))
    mic, speaker, behind = Mic(noise(1.2, RATE)), Speaker(), Witness()
    recorder = kind(num_channels=channels, enable_turn_audio=True)
    told: list[tuple[str, Any]] = []

    @recorder.event_handler("on_audio_data")
    async def on_audio_data(buffer: Any, audio: bytes, sample_rate: int, num_channels: int) -> None:
        told.append(("audio", (audio, sample_rate, num_channels)))

    @recorder.event_handler("on_track_audio_data")
    async def on_track_audio_data(
        buffer: Any, user: bytes, bot: bytes, sample_rate: int, num_channels: int
    ) -> None:
        told.append(("tracks", (user, bot, sample_rate, num_channels)))

    @recorder.event_handler("on_user_turn_audio")
    async def on_user_turn_audio(buffer: Any, turn: TurnAudioData) -> None:
        told.append(("user", turn))

    @recorder.event_handler("on_bot_turn_audio")
    async def on_bot_turn_audio(buffer: Any, turn: TurnAudioData) -> None:
        told.append(("bot", turn))

    @recorder.event_handler("on_recording_started")
    async def on_recording_started(buffer: Any) -> None:
        told.append(("started", buffer))

    @recorder.event_handler("on_recording_stopped")
    async def on_recording_stopped(buffer: Any) -> None:
        told.append(("stopped", buffer))

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(AudioBufferStartRecordingFrame())
        await asyncio.sleep(0.2)
        await worker.queue_frame(UserStartedSpeakingFrame())
        await asyncio.sleep(0.2)
        await worker.queue_frame(UserStoppedSpeakingFrame())
        await worker.queue_frame(TTSSpeakFrame("0.4"))
        await until(lambda: behind.count(BotStoppedSpeakingFrame) == 1)
        assert recorder.has_audio()
        assert len(recorder.merge_audio_buffers()) > 0.4 * RATE * 2 * channels
        await mic.done.wait()
        await worker.queue_frame(AudioBufferStopRecordingFrame())
        await worker.queue_frame(EndFrame())

    await run_pipeline([mic, Synthesizer(), speaker, recorder, behind], script)

    names = [name for name, _ in told]
    assert sorted(names) == ["audio", "bot", "started", "stopped", "tracks", "user"]
    assert names[0] == "started"
    events = dict(told)
    assert events["started"] is recorder
    assert events["stopped"] is recorder
    merged, rate, merged_channels = events["audio"]
    user, bot, track_rate, track_channels = events["tracks"]
    assert all(type(audio) is bytes for audio in (merged, user, bot))
    assert (rate, merged_channels) == (track_rate, track_channels) == (RATE, channels)
    assert len(user) == len(bot) == len(merged) // channels
    heard = sounding(samples(user))
    assert len(heard) > 0.8 * RATE
    assert heard.tobytes() in mic.pcm
    assert np.array_equal(sounding(samples(bot)), samples(speaker.played))
    if channels == 2:
        assert np.array_equal(samples(merged)[::2], samples(user))
        assert np.array_equal(samples(merged)[1::2], samples(bot))
    else:
        assert np.array_equal(samples(merged), samples(user) + samples(bot))
    for name in ("user", "bot"):
        turn = events[name]
        assert isinstance(turn, TurnAudioData)
        assert (turn.turn_number, turn.sample_rate, turn.num_channels) == (1, RATE, 1)
        assert type(turn.audio) is bytes
    assert np.array_equal(sounding(samples(events["bot"].audio)), samples(speaker.played))
    assert events["user"].audio in user
    assert 0.3 * RATE <= len(events["user"].audio) // 2 <= RATE
