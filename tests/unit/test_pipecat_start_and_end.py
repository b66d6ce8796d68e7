"""When the processor's recordings begin and end: no audio is lost, and no bot kept from ending."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from conversation import FRAME, RATE, final_audio, noise, talking, wait_for
from faulty_store import FaultyStore, refusal
from headless import until
from pipecat.frames.frames import (
    AudioBufferStartRecordingFrame,
    AudioBufferStopRecordingFrame,
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    UserStartedSpeakingFrame,
)

from recorder import Recorder, RecordingResult, Settings, State, VirtualClock
from recorder.events import UploadFailed
from recorder.pipecat import RecorderProcessor
from recorder.pipecat import recording as recording_module
from uploader.errors import AccessDenied


def in_spool(result: RecordingResult) -> bool:
    return result.spool is not None and Path(result.spool).exists()


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
