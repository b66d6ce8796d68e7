"""The processor, frame by frame, in virtual time."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from faulty_store import FaultyStore, refusal
from headless import FrameDirection, Stage, on_stage, until
from numpy.typing import NDArray
from pipecat.frames.frames import (
    AudioBufferStartRecordingFrame,
    AudioBufferStopRecordingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TextFrame,
    TTSAudioRawFrame,
    UserAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor
from pipecat.processors.frame_processor import FrameProcessor

from recorder import (
    Recorder,
    RecordingResult,
    Session,
    Settings,
    SettingsError,
    State,
    VirtualClock,
)
from recorder.events import CaptureFailed, UploadFailed
from recorder.names import InvalidName
from recorder.pipecat import RecorderProcessor
from recorder.pipecat import recording as recording_module
from uploader.errors import AccessDenied
from uploader.local import LocalStore

RATE = 24_000
FRAME = RATE // 50
Samples = NDArray[np.int16]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "state" / "spool",
        drain_seconds=20,
    )


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(LocalStore(tmp_path / "bucket"))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def recorder(
    settings: Settings, store: FaultyStore, clock: VirtualClock
) -> AsyncIterator[Recorder]:
    async with Recorder(settings, store=store, clock=clock, require_store=False) as recorder:
        yield recorder


class Talk:
    """A processor on its stage, in virtual time."""

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
        def note(_processor: RecorderProcessor, *arguments: Any) -> None:
            self.told.append((name, arguments))

        self.processor.add_event_handler(name, note)

    def named(self, name: str) -> list[Any]:
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
        await self.until(lambda: self.named("on_recording_completed"))


@asynccontextmanager
async def talking(
    clock: VirtualClock, recorder: Recorder, *, started: bool = True, **options: Any
) -> AsyncIterator[Talk]:
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
    async def handler(*_: object) -> None:
        await event.wait()

    return handler


def in_spool(result: RecordingResult) -> bool:
    return result.spool is not None and Path(result.spool).exists()


async def objects(store: FaultyStore, name: str) -> list[bytes]:
    async with store.inner as inner:
        keys = [info.key async for info in inner.list_objects() if info.key.endswith(name)]
        return [await inner.get(key) for key in keys]


async def final_audio(store: FaultyStore, name: str = "/audio.wav") -> Samples:
    (body,) = await objects(store, name)
    samples, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    assert rate == RATE
    return samples


# -- construction ----------------------------------------------------------------------------------


def test_it_takes_all_arguments_of_pipecats_recorder_with_their_defaults() -> None:
    theirs = inspect.signature(AudioBufferProcessor).parameters
    ours = inspect.signature(RecorderProcessor).parameters
    for name, parameter in theirs.items():
        assert ours[name].kind is parameter.kind
        assert ours[name].default == parameter.default


def test_it_has_all_members_of_pipecats_recorder() -> None:
    members = {name for name in vars(AudioBufferProcessor) if not name.startswith("_")}
    kinds = RecorderProcessor.mro()
    own = {name for kind in kinds[: kinds.index(FrameProcessor)] for name in vars(kind)}
    assert not members - own


def test_it_has_all_events_of_pipecats_recorder(settings: Settings) -> None:
    theirs = AudioBufferProcessor()._event_handlers
    assert theirs.keys() <= RecorderProcessor(settings=settings)._event_handlers.keys()


def test_an_argument_that_pipecat_has_dropped_is_accepted(settings: Settings) -> None:
    with pytest.warns(DeprecationWarning, match="user_continuous_stream"):
        RecorderProcessor(settings=settings, user_continuous_stream=True)


def test_deprecated_events_say_so(settings: Settings) -> None:
    processor = RecorderProcessor(settings=settings)
    with pytest.warns(DeprecationWarning, match="Use `on_bot_turn_audio` instead"):
        processor.add_event_handler("on_bot_turn_audio_data", print)


def test_settings_that_are_missing_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match="RECORDER_BUCKET"):
        RecorderProcessor()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_channels": 0}, ValueError),
        ({"num_channels": 3}, ValueError),
        ({"buffer_size": -1}, ValueError),
        ({"sample_rate": 100}, SettingsError),
        ({"sample_rate": 22_050, "chunk": 0.1}, None),
        ({"sample_rate": 11_025, "chunk": 0.1}, SettingsError),
        ({"recording_id": "../x"}, InvalidName),
        ({"metadata": {"a b": "c"}}, InvalidName),
        ({"tags": {"": "c"}}, InvalidName),
        ({"outputs": ["quadro"]}, SettingsError),
    ],
)
def test_arguments_are_checked(
    settings: Settings, options: dict[str, Any], error: type[Exception] | None
) -> None:
    chunk_seconds = options.pop("chunk", 30)
    settings = settings.replace(chunk_seconds=chunk_seconds)
    if error is None:
        RecorderProcessor(settings=settings, **options)
    else:
        with pytest.raises(error):
            RecorderProcessor(settings=settings, **options)


async def test_a_recorder_brings_its_own_settings(recorder: Recorder, settings: Settings) -> None:
    with pytest.raises(ValueError, match="settings"):
        RecorderProcessor(recorder=recorder, settings=settings)


@pytest.mark.parametrize(
    ("explicit", "from_settings", "pipeline", "expected"),
    [
        (16_000, None, 24_000, 16_000),
        (16_000, 48_000, 24_000, 16_000),
        (None, 48_000, 24_000, 48_000),
        (None, None, 16_000, 16_000),
        (None, None, 11_025, 24_000),  # chunks of 0.1 s are no whole number of samples there
    ],
)
async def test_the_sample_rate(
    tmp_path: Path,
    explicit: int | None,
    from_settings: int | None,
    pipeline: int,
    expected: int,
) -> None:
    given = {} if from_settings is None else {"sample_rate": from_settings}
    settings = Settings(
        bucket=tmp_path.as_uri(), spool_dir=tmp_path / "spool", chunk_seconds=0.1, **given
    )
    processor = RecorderProcessor(settings=settings, sample_rate=explicit)
    assert processor.sample_rate == 0
    async with on_stage(processor, out_rate=pipeline):
        assert processor.sample_rate == expected


# -- frames ----------------------------------------------------------------------------------------


async def test_what_was_said_is_recorded_sample_for_sample(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user, bot = noise(3, 1), noise(2, 2)
    async with talking(clock, recorder) as talk:
        await talk.say(user=user, bot=bot)
        await talk.stage.push(EndFrame())
        await talk.over()
    audio = await final_audio(store)
    assert np.array_equal(audio[:, 0], user)
    assert np.array_equal(audio[: len(bot), 1], bot)
    assert not audio[len(bot) :, 1].any()


async def test_every_frame_goes_on_at_once(clock: VirtualClock, recorder: Recorder) -> None:
    frames = [
        InputAudioRawFrame(b"\0\0", RATE, 1),
        OutputAudioRawFrame(b"odd", RATE, 1),
        InputAudioRawFrame(b"\0\0", 0, 1),
        OutputAudioRawFrame(b"", RATE, 1),
        TextFrame("text"),
        InterruptionFrame(),
        AudioBufferStopRecordingFrame(),
        AudioBufferStartRecordingFrame(),
        EndFrame(),
    ]
    async with talking(clock, recorder) as talk:
        seen = talk.stage.behind.seen
        del seen[:]
        for frame in frames:
            await talk.stage.push(frame)
            assert seen[-1] is frame
        assert len(seen) == len(frames)


async def test_audio_that_flows_upstream_is_none_of_the_conversations(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    async with talking(clock, recorder) as talk:
        clock.advance(0.5)
        audio = noise(0.02).tobytes()
        for frame in (InputAudioRawFrame(audio, RATE, 1), OutputAudioRawFrame(audio, RATE, 1)):
            await talk.stage.push(frame, FrameDirection.UPSTREAM)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not (await final_audio(store)).any()


async def test_bad_frames_are_counted_and_reported_once(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user = noise(1)
    async with talking(clock, recorder) as talk:
        for _ in range(3):
            await talk.stage.push(OutputAudioRawFrame(b"even", 0, 1))
        await talk.say(user=user)
        await talk.stage.push(EndFrame())
        await talk.over()
        assert talk.processor.errors == 3
    ((failure,),) = talk.named("on_upload_error")
    assert isinstance(failure, CaptureFailed)
    assert failure.track == "bot"
    assert np.array_equal((await final_audio(store))[:, 0], user)


async def test_two_users_at_once_take_no_longer_than_one(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    one, other = noise(1, 1), noise(1, 2)
    async with talking(clock, recorder, outputs=["tracks"]) as talk:
        await talk.say(ann=one, bob=other)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert np.array_equal((await final_audio(store, "/user.wav"))[:, 0], one)
    assert np.array_equal((await final_audio(store, "/user-2.wav"))[:, 0], other)


async def test_the_manifest_says_who_is_on_a_track_and_since_when(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    async with talking(clock, recorder, track_names=lambda _: None) as talk:
        await talk.say(ann=noise(1))
        await talk.say(bob=noise(0.5))
        await talk.stage.push(EndFrame())
        await talk.over()
    (manifest,) = await objects(store, "/manifest.json")
    assert json.loads(manifest)["tracks"] == [
        {"name": "bot", "source": "playout", "participant": None, "joined": None},
        {"name": "user", "source": "capture", "participant": "ann", "joined": 0},
        {"name": "user-2", "source": "capture", "participant": "bob", "joined": RATE},
    ]


async def test_nothing_that_is_stored_says_who_spoke_where_that_is_not_wanted(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore, settings: Settings
) -> None:
    async with talking(clock, recorder, record_participants=False) as talk:
        await talk.say(a_person=noise(1))
        await talk.until(lambda: talk.processor.recording_id)
        spooled = [path.read_bytes() for path in settings.spool_dir.rglob("*") if path.is_file()]
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not any(b"a_person" in one for one in spooled)
    assert not any(b"a_person" in one for one in await objects(store, ""))


@pytest.mark.parametrize("waiting", [False, True])
async def test_timestamps_are_passed_on_in_seconds(
    clock: VirtualClock, recorder: Recorder, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float | None] = []

    def take(_session: Session, track: str, *arguments: Any, **known: Any) -> None:
        assert track == "user"
        assert len(arguments) == 4
        written.append(known.get("pts"))

    monkeypatch.setattr(Session, "_take", take)
    async with talking(clock, recorder, started=not waiting) as talk:
        for number in range(30):
            clock.advance(0.02)
            frame = InputAudioRawFrame(bytes(640), 16_000, 1)
            frame.pts = 960 * number
            await talk.stage.push(frame)
        await talk.until(lambda: len(written) == 30)
    assert written[:10] == [None] * 10
    assert written[11:] == pytest.approx([0.02 * number for number in range(11, 30)])


async def test_formats_may_change_from_frame_to_frame(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    tone = np.full(RATE, 4000, np.int16)
    async with talking(clock, recorder) as talk:
        for number in range(100):
            rate, channels = [(RATE, 1), (16_000, 2), (8_000, 1), (48_000, 2)][number // 25]
            clock.advance(0.02)
            audio = tone[: rate // 50 * channels].tobytes()
            frames = [
                InputAudioRawFrame(audio, rate, channels),
                TTSAudioRawFrame(audio, rate, channels),
            ]
            frames += [
                InputAudioRawFrame(b"", rate, channels),
                TTSAudioRawFrame(b"", rate, channels),
            ]
            for frame in frames:
                await talk.stage.push(frame)
                assert talk.stage.behind.seen[-1] is frame
        await talk.stage.push(EndFrame())
        await talk.over()
        assert talk.processor.errors == 0
    audio = await final_audio(store)
    assert abs(len(audio) - 2 * RATE) <= 1
    assert (np.abs(audio.astype(int) - 4000) < 400).mean() > 0.99


async def test_a_bot_is_not_recorded_beyond_its_interruption(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    bot, user = noise(5, 1), noise(2, 2)
    async with talking(clock, recorder) as talk:
        await talk.stage.push(BotStartedSpeakingFrame())
        for start in range(0, len(bot), FRAME):  # all at once
            await talk.stage.push(TTSAudioRawFrame(bot[start : start + FRAME].tobytes(), RATE, 1))
        await talk.say(user=user[:RATE])
        await talk.stage.push(InterruptionFrame())
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.say(user=user[RATE:])
        await talk.stage.push(EndFrame())
        await talk.over()
    audio = await final_audio(store)
    heard = RATE
    assert len(audio) == 2 * RATE
    assert np.array_equal(audio[:heard, 1], bot[:heard])
    assert not audio[heard:, 1].any()
    (manifest,) = await objects(store, "/manifest.json")
    (turn,) = json.loads(manifest)["turns"]
    assert (turn["track"], turn["start"], turn["interrupted"]) == ("bot", 0, True)
    assert (turn["end"], turn["conversation_turn"]) == (heard, 1)


async def test_the_manifests_turns_say_which_of_the_conversations_they_belong_to(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    async with talking(clock, recorder) as talk:
        for number in (1, 2):
            await talk.stage.push(UserStartedSpeakingFrame())
            await talk.say(user=noise(0.5))
            await talk.stage.push(UserStoppedSpeakingFrame())
            await talk.stage.push(BotStartedSpeakingFrame())
            await talk.say(bot=noise(0.5))
            if number == 1:
                await talk.stage.push(BotStoppedSpeakingFrame())
                await talk.stage.end_turn(1)
        await talk.stage.push(CancelFrame())
        await talk.over()
    (manifest,) = await objects(store, "/manifest.json")
    assert [
        (turn["number"], turn["track"], turn["conversation_turn"], turn["interrupted"])
        for turn in json.loads(manifest)["turns"]
    ] == [(1, "user", 1, False), (2, "bot", 1, False), (3, "user", 2, False), (4, "bot", 2, True)]


async def test_speech_becomes_turn_clips(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user, bot = noise(1, 1), noise(1, 2)
    async with talking(clock, recorder, outputs=["turns"]) as talk:
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user)
        await talk.stage.push(UserStoppedSpeakingFrame())
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=bot)
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.stage.push(EndFrame())
        await talk.over()
    assert np.array_equal((await final_audio(store, "0001-user.wav"))[:, 0], user)
    assert np.array_equal((await final_audio(store, "0002-bot.wav"))[:, 0], bot)


# -- starting --------------------------------------------------------------------------------------


async def test_nothing_is_recorded_before_it_is_asked_for(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user = noise(3)
    async with talking(clock, recorder, auto_start_recording=False) as talk:
        await talk.say(user=user[:RATE])
        assert not talk.processor.has_audio()
        await talk.stage.push(AudioBufferStartRecordingFrame())
        await talk.processor.start_recording()
        await talk.say(user=user[RATE : 2 * RATE])
        await talk.stage.push(AudioBufferStopRecordingFrame())
        await talk.processor.stop_recording()
        await talk.say(user=user[2 * RATE :])
        await talk.over()
    assert [name for name, _ in talk.told] == [
        "on_recording_started",
        "on_recording_stopped",
        "on_recording_completed",
    ]
    assert np.array_equal((await final_audio(store))[:, 0], user[RATE : 2 * RATE])


async def test_frames_that_come_before_the_recording_has_been_started_are_in_their_places(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user, bot = noise(8, 1), noise(2, 2)
    async with talking(clock, recorder, started=False) as talk:
        # Nothing was awaited that could have started it: these six seconds are waiting for it.
        await talk.say(user=user[: 4 * RATE])
        await talk.say(user=user[4 * RATE : 6 * RATE], bot=bot)
        assert talk.processor.recording_id is None
        await talk.until(lambda: talk.named("on_recording_started"))
        await talk.say(user=user[6 * RATE :])
        await talk.stage.push(EndFrame())
        await talk.over()
    audio = await final_audio(store)
    assert np.array_equal(audio[:, 0], user)
    assert np.array_equal(audio[4 * RATE : 6 * RATE, 1], bot)


async def test_a_call_that_is_over_before_its_recording_has_been_started_is_recorded(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore
) -> None:
    user = noise(1)
    async with talking(clock, recorder, started=False) as talk:
        await talk.say(user=user)
        assert talk.processor.recording_id is None
        await talk.stage.push(CancelFrame())
    assert talk.processor.result is not None
    assert talk.processor.result.state is State.COMPLETED
    assert np.array_equal((await final_audio(store))[:, 0], user)


async def test_what_waits_for_a_start_is_bounded(
    clock: VirtualClock, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recorder.pipecat.intake.MAX_WAITING_BYTES", 40 * FRAME * 2)
    async with talking(clock, recorder, started=False) as talk:
        await talk.say(user=noise(1))
        await talk.stage.push(EndFrame())
        await talk.over()
        assert talk.processor.errors == 10
    assert "SpoolFull" in repr(talk.named("on_upload_error")[0])


async def test_a_recording_that_cannot_be_started_is_tried_again(
    clock: VirtualClock,
    recorder: Recorder,
    store: FaultyStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording_module, "RETRY_SECONDS", 0.01)
    settings.spool_dir.parent.write_text("in the way")
    user = noise(1)
    async with talking(clock, recorder, started=False) as talk:
        await talk.say(user=user)
        await talk.until(lambda: talk.named("on_upload_error"))
        settings.spool_dir.parent.unlink()
        await talk.until(lambda: talk.named("on_recording_started"))
        await talk.stage.push(EndFrame())
        await talk.over()
    assert len(talk.named("on_upload_error")) == 1
    assert np.array_equal((await final_audio(store))[:, 0], user)


async def test_a_recording_that_was_never_started_is_told_to_have_failed(
    clock: VirtualClock, recorder: Recorder, settings: Settings
) -> None:
    settings.spool_dir.parent.write_text("in the way")
    async with talking(clock, recorder, started=False) as talk:
        await talk.say(user=noise(0.5))
        await talk.stage.push(EndFrame())
        await talk.over()
    ((result,),) = talk.named("on_recording_completed")
    assert result.state is State.FAILED
    assert "spool" in result.reason
    assert talk.processor.result is result
    assert not talk.named("on_recording_started")


async def test_every_recording_has_an_id_of_its_own(
    clock: VirtualClock, recorder: Recorder
) -> None:
    ids = []
    async with talking(clock, recorder, recording_id="call", auto_start_recording=False) as talk:
        for number in range(3):
            await talk.processor.start_recording()
            await talk.say(user=noise(0.1))
            await talk.until(lambda: talk.processor.recording_id)
            await talk.processor.stop_recording()
            await talk.until(lambda n=number: len(talk.named("on_recording_completed")) == n + 1)
            ids.append(talk.processor.recording_id)
    assert ids == ["call", "call-2", "call-3"]


async def test_an_id_that_is_taken_costs_no_audio(clock: VirtualClock, recorder: Recorder) -> None:
    for expected in ("call", "call-2"):
        async with talking(clock, recorder, recording_id="call") as talk:
            await talk.say(user=noise(0.1))
            await talk.stage.push(EndFrame())
            await talk.over()
        assert talk.processor.recording_id == expected


# -- events ----------------------------------------------------------------------------------------


async def test_blocks_have_one_length_and_are_the_recording(
    clock: VirtualClock, recorder: Recorder
) -> None:
    user, bot = noise(1.2, 1), noise(1.2, 2)
    async with talking(clock, recorder, num_channels=2, buffer_size=RATE) as talk:
        talk.listen("on_audio_data")
        talk.listen("on_track_audio_data")
        await talk.say(user=user, bot=bot)
        await talk.stage.push(EndFrame())
        await talk.over()
    blocks = talk.named("on_audio_data")
    assert [len(block[0]) // 4 for block in blocks] == [RATE // 2, RATE // 2, RATE // 5]
    assert {block[1:] for block in blocks} == {(RATE, 2)}
    stereo = np.frombuffer(b"".join(block[0] for block in blocks), "<i2").reshape(-1, 2)
    assert np.array_equal(stereo[:, 0], user)
    assert np.array_equal(stereo[:, 1], bot)
    tracks = talk.named("on_track_audio_data")
    assert b"".join(block[0] for block in tracks) == user.tobytes()
    assert b"".join(block[1] for block in tracks) == bot.tobytes()


async def test_without_a_buffer_size_all_audio_comes_at_the_end(
    clock: VirtualClock, recorder: Recorder
) -> None:
    user, bot = noise(1.2, 1), noise(1.2, 2)
    async with talking(clock, recorder) as talk:
        talk.listen("on_audio_data")
        await talk.say(user=user, bot=bot)
        await talk.stage.push(EndFrame())
        await talk.over()
    ((audio, rate, channels),) = talk.named("on_audio_data")
    assert (rate, channels) == (RATE, 1)
    assert np.array_equal(np.frombuffer(audio, "<i2"), user + bot)


async def test_a_recording_without_a_frame_hands_on_no_audio(
    clock: VirtualClock, recorder: Recorder
) -> None:
    async with talking(clock, recorder) as talk:
        talk.listen("on_audio_data")
        clock.advance(1)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not talk.named("on_audio_data")
    assert talk.named("on_recording_stopped")


async def test_handlers_are_called_in_order_one_at_a_time(
    clock: VirtualClock, recorder: Recorder
) -> None:
    order: list[str] = []
    async with talking(clock, recorder, buffer_size=RATE // 10) as talk:

        async def slow(_processor: RecorderProcessor, audio: bytes, *_: int) -> None:
            number = len(order) // 2
            order.append(f"{number} begins")
            await asyncio.sleep(0.002 * (10 - number))  # each is quicker than the one before
            order.append(f"{number} ends")
            if number == 3:
                raise ValueError("a handler's own error")

        talk.processor.add_event_handler("on_audio_data", slow)
        talk.processor.add_event_handler(
            "on_recording_stopped", lambda _processor: order.append("stopped")
        )
        talk.processor.add_event_handler(
            "on_recording_completed", lambda _processor, _result: order.append("completed")
        )
        await talk.say(user=noise(0.5))
        await talk.stage.push(EndFrame())
        await talk.over()
    expected = [f"{number} {what}" for number in range(10) for what in ("begins", "ends")]
    assert order == [*expected, "stopped", "completed"]


@pytest.mark.parametrize("name", ["on_audio_data", "on_user_turn_audio"])
async def test_audio_is_kept_until_slow_handlers_have_had_it(
    clock: VirtualClock,
    settings: Settings,
    store: FaultyStore,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("recorder.pipecat.blocks.MAX_READ_SECONDS", 0.1)
    user = noise(1)
    delivered = asyncio.Event()
    settings = settings.replace(chunk_seconds=0.1)
    async with (
        Recorder(settings, store=store, clock=clock) as recorder,
        talking(clock, recorder, buffer_size=RATE // 2, enable_turn_audio=True) as talk,
    ):
        deletes_of_the_probe = store.calls["delete"]
        talk.listen(name)
        talk.processor.add_event_handler(name, wait_for(delivered))
        for number in (1, 2):
            await talk.stage.push(UserStartedSpeakingFrame())
            await talk.say(user=user[(number - 1) * RATE // 2 : number * RATE // 2])
            await talk.stage.push(UserStoppedSpeakingFrame())
            await talk.stage.end_turn(number)
        await talk.stage.push(EndFrame())
        # The recording is complete, and its chunks are gone from the store: the spool is next.
        await talk.until(lambda: store.calls["delete"] == deletes_of_the_probe + 10)
        await asyncio.sleep(0.05)
        delivered.set()
        await talk.over()
    pieces = [arguments[0] for arguments in talk.named(name)]
    audio = [piece if isinstance(piece, bytes) else piece.audio for piece in pieces]
    assert len(audio) > 1
    assert b"".join(audio) == user.tobytes()
    assert not list(settings.spool_dir.iterdir())


async def test_turn_audio_leaves_out_pauses(clock: VirtualClock, recorder: Recorder) -> None:
    user, bot = noise(6, 1), noise(1, 2)
    async with talking(clock, recorder, enable_turn_audio=True) as talk:
        talk.listen("on_user_turn_audio")
        talk.listen("on_bot_turn_audio")
        await talk.say(user=user[: 2 * RATE])
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user[2 * RATE : 3 * RATE])
        await talk.stage.push(UserStoppedSpeakingFrame())
        await talk.say(user=user[3 * RATE : 5 * RATE])
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user[5 * RATE :])
        await talk.stage.push(UserStoppedSpeakingFrame())
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=bot)
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.stage.end_turn(5)
        await talk.until(lambda: talk.named("on_bot_turn_audio"))
        await talk.until(lambda: talk.named("on_user_turn_audio"))
    ((said,),) = talk.named("on_user_turn_audio")
    assert (said.turn_number, said.sample_rate, said.num_channels) == (5, RATE, 1)
    assert said.audio == user[RATE : 3 * RATE].tobytes() + user[4 * RATE :].tobytes()
    ((answered,),) = talk.named("on_bot_turn_audio")
    assert answered.audio == bot.tobytes()


async def test_a_turn_that_ends_after_the_recording_has_its_audio(
    clock: VirtualClock, recorder: Recorder, settings: Settings
) -> None:
    user = noise(2)
    async with talking(clock, recorder, enable_turn_audio=True) as talk:
        talk.listen("on_user_turn_audio")
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user)
        await talk.stage.push(EndFrame())
        await talk.over()
        await talk.until(lambda: not list(settings.spool_dir.iterdir()))
        await talk.stage.end_turn(1)
        await talk.until(lambda: talk.named("on_user_turn_audio"))
    assert talk.named("on_user_turn_audio")[0][0].audio == user.tobytes()


async def test_runs_of_speech_for_handlers_of_old(clock: VirtualClock, recorder: Recorder) -> None:
    bot = noise(1)
    async with talking(clock, recorder, enable_turn_audio=True) as talk:
        with pytest.warns(DeprecationWarning, match="on_bot_turn_audio"):
            talk.listen("on_bot_turn_audio_data")
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=bot)
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.until(lambda: talk.named("on_bot_turn_audio_data"))
    ((audio, rate, channels),) = talk.named("on_bot_turn_audio_data")
    assert isinstance(audio, bytearray)
    assert (bytes(audio), rate, channels) == (bot.tobytes(), RATE, 1)


async def test_no_turn_audio_unless_it_is_enabled(clock: VirtualClock, recorder: Recorder) -> None:
    async with talking(clock, recorder) as talk:
        talk.listen("on_bot_turn_audio")
        await talk.stage.push(BotStartedSpeakingFrame())
        await talk.say(bot=noise(0.5))
        await talk.stage.push(BotStoppedSpeakingFrame())
        await talk.stage.end_turn(1)
        await talk.stage.push(EndFrame())
        await talk.over()
    assert not talk.named("on_bot_turn_audio")


async def test_audio_that_no_block_has_handed_on(clock: VirtualClock, recorder: Recorder) -> None:
    user, bot = noise(1, 1), noise(1, 2)
    async with talking(clock, recorder, num_channels=2) as talk:
        assert not talk.processor.has_audio()
        assert talk.processor.merge_audio_buffers() == b""
        await talk.say(user=user, bot=bot)
        assert talk.processor.has_audio()
        merged = np.frombuffer(talk.processor.merge_audio_buffers(), "<i2").reshape(-1, 2)
        await talk.processor.stop_recording()
        assert not talk.processor.has_audio()
        assert talk.processor.merge_audio_buffers() == b""
    assert np.array_equal(merged[:, 0], user)
    assert np.array_equal(merged[:, 1], bot)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [EndFrame(), CancelFrame(), None])
async def test_every_end_is_an_end(
    clock: VirtualClock, recorder: Recorder, store: FaultyStore, last: EndFrame | None
) -> None:
    user = noise(1)
    async with talking(clock, recorder) as talk:
        await talk.say(user=user)
        if last is not None:
            await talk.stage.push(last)
            await talk.say(user=user)
        await talk.processor.cleanup()
        result = talk.processor.result
        assert result is not None
        assert result.state is State.COMPLETED
        await talk.processor.cleanup()
        await talk.stage.push(InputAudioRawFrame(user.tobytes(), RATE, 1))
    assert [name for name, _ in talk.told] == [
        "on_recording_started",
        "on_recording_stopped",
        "on_recording_completed",
    ]
    assert np.array_equal((await final_audio(store))[:, 0], user)


async def test_cleanup_without_a_setup(settings: Settings) -> None:
    await RecorderProcessor(settings=settings).cleanup()


async def test_a_store_that_refuses_does_not_keep_the_bot_from_ending(
    clock: VirtualClock,
    settings: Settings,
    store: FaultyStore,
) -> None:
    settings = settings.replace(drain_seconds=0.2)
    store.refuse("put", refusal(AccessDenied, "put"))
    async with (
        Recorder(settings, store=store, clock=clock, require_store=False) as recorder,
        talking(clock, recorder) as talk,
    ):
        await talk.say(user=noise(0.5))
        await talk.stage.push(EndFrame())
        await talk.processor.cleanup()
        ((result,),) = talk.named("on_recording_completed")
        assert result.state in (State.FAILED, State.PENDING)
        assert in_spool(result)
    failures = [failure for (failure,) in talk.named("on_upload_error")]
    assert any(isinstance(failure, UploadFailed) for failure in failures)


async def test_a_store_that_is_away_does_not_keep_the_bot_from_ending(
    clock: VirtualClock,
    settings: Settings,
    store: FaultyStore,
) -> None:
    settings = settings.replace(drain_seconds=0.2, start_timeout_seconds=0.1)
    async with Recorder(settings, store=store, clock=clock, require_store=False) as recorder:
        store.down = True
        async with talking(clock, recorder) as talk:
            await talk.say(user=noise(0.5))
            await talk.stage.push(EndFrame())
            await talk.processor.cleanup()
            ((result,),) = talk.named("on_recording_completed")
            assert result.state is State.PENDING
            assert in_spool(result)


@pytest.mark.parametrize("name", ["on_audio_data", "on_recording_stopped", "on_chunk_uploaded"])
async def test_a_handler_that_hangs_does_not_keep_the_bot_from_ending(
    clock: VirtualClock,
    settings: Settings,
    store: FaultyStore,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("recorder.pipecat.processor.HANDLER_SECONDS", 0.05)
    settings = settings.replace(drain_seconds=0.3)
    async with Recorder(settings, store=store, clock=clock) as recorder:
        before = asyncio.all_tasks()
        async with talking(clock, recorder) as talk:
            talk.processor.add_event_handler(name, wait_for(asyncio.Event()))
            await talk.say(user=noise(0.5))
            await talk.stage.push(EndFrame())
            await talk.processor.cleanup()
        assert asyncio.all_tasks() == before
    assert np.any(await final_audio(store))


async def test_completed_is_told_after_all_else(
    clock: VirtualClock, settings: Settings, store: FaultyStore
) -> None:
    settings = settings.replace(chunk_seconds=0.1)
    async with (
        Recorder(settings, store=store, clock=clock) as recorder,
        talking(clock, recorder) as talk,
    ):

        async def slow(*_: object) -> None:
            await until(lambda: not list(settings.spool_dir.iterdir()))

        talk.processor.add_event_handler("on_chunk_uploaded", slow)
        talk.listen("on_chunk_uploaded")
        await talk.say(user=noise(1))
        await talk.stage.push(EndFrame())
        await talk.over()
    assert len(talk.named("on_chunk_uploaded")) == 10
    assert talk.told[-1][0] == "on_recording_completed"


async def test_a_recorder_that_is_closed_too_early_does_not_break_the_bot(
    clock: VirtualClock, settings: Settings, store: FaultyStore
) -> None:
    user = noise(0.5)
    async with (
        Recorder(settings, store=store, clock=clock) as recorder,
        talking(clock, recorder, enable_turn_audio=True) as talk,
    ):
        talk.listen("on_audio_data")
        await talk.say(user=user)
        await recorder.close()
        await talk.stage.push(UserStartedSpeakingFrame())
        await talk.say(user=user)
        talk.processor.merge_audio_buffers()
        frame = EndFrame()
        await talk.stage.push(frame)
        assert talk.stage.behind.seen[-1] is frame
        await talk.processor.cleanup()


# -- sharing ---------------------------------------------------------------------------------------


async def test_processors_with_equal_settings_share_a_recorder(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    life: list[str] = []
    opened, closed = Recorder.__aenter__, Recorder.close

    async def open_(self: Recorder) -> Recorder:
        life.append("opened")
        return await opened(self)

    async def close(self: Recorder, *, wait_seconds: float | None = None) -> None:
        life.append("closed")
        assert wait_seconds is not None
        assert wait_seconds <= settings.drain_seconds
        await closed(self, wait_seconds=wait_seconds)

    monkeypatch.setattr(Recorder, "__aenter__", open_)
    monkeypatch.setattr(Recorder, "close", close)
    again = Settings(
        bucket=settings.bucket, spool_dir=settings.spool_dir, drain_seconds=settings.drain_seconds
    )
    first = RecorderProcessor(settings=settings, auto_start_recording=True)
    second = RecorderProcessor(settings=again, auto_start_recording=True)
    other = RecorderProcessor(settings=settings.replace(keep_chunks=True))
    async with on_stage(first):
        async with on_stage(second):
            async with on_stage(other):
                await asyncio.sleep(0)
                assert life == ["opened", "opened"]
            assert life == ["opened", "opened", "closed"]
        assert life == ["opened", "opened", "closed"]
        assert second.result is not None
        assert second.result.durable
    assert life == ["opened", "opened", "closed", "closed"]
    assert first.result is not None
    assert first.result.durable


async def test_a_recorder_that_could_not_be_opened_is_opened_by_the_next_try(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_module, "RETRY_SECONDS", 0.01)
    opened = Recorder.__aenter__
    tries = []

    async def open_(self: Recorder) -> Recorder:
        tries.append(self)
        if len(tries) < 3:
            raise OSError("no threads left")
        return await opened(self)

    monkeypatch.setattr(Recorder, "__aenter__", open_)
    processor = RecorderProcessor(settings=settings, auto_start_recording=True)
    async with on_stage(processor) as stage:
        await stage.push(InputAudioRawFrame(noise(0.02).tobytes(), RATE, 1))
        await until(lambda: processor.recording_id)
    assert len(tries) == 3
    assert processor.result is not None
    assert processor.result.durable
