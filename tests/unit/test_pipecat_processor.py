"""The processor as a class: arguments and members, as Pipecat's has them; sharing of a recorder."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from conversation import RATE, noise
from headless import on_stage, until
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.processors.audio.audio_buffer_processor import AudioBufferProcessor
from pipecat.processors.frame_processor import FrameProcessor

from recorder import Recorder, Settings, SettingsError
from recorder.names import InvalidName
from recorder.pipecat import RecorderProcessor
from recorder.pipecat import recording as recording_module

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
