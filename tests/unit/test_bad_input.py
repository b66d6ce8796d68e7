"""What a caller can get wrong: one clear error each, and the recording goes on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recorder import (
    InvalidFrame,
    InvalidName,
    Recorder,
    Settings,
    SettingsError,
    State,
    Track,
    VirtualClock,
)

RATE = 24000
PCM = np.arange(480, dtype=np.int16).tobytes()


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    settings = Settings(bucket=(tmp_path / "bucket").as_uri(), spool_dir=tmp_path / "spool")
    async with Recorder(settings, clock=VirtualClock(1000.0)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoding": "opus"}, "encoding='opus': must be pcm16, mulaw, alaw"),
        ({"pts": float("nan")}, "pts=nan: must be seconds"),
        ({"pts": 1e10}, "pts=10000000000.0"),
        ({"sample_rate": 0}, "sample_rate=0: must be a whole number of hertz from 4000"),
        ({"sample_rate": 16000.0}, "sample_rate=16000.0: must be a whole number"),
        ({"sample_rate": -16000}, "sample_rate=-16000"),
        ({"sample_rate": True}, "sample_rate=True"),
        ({"num_channels": 1.0}, "num_channels=1.0"),
        ({"num_channels": 0}, "num_channels=0: must be 1 to 32"),
        ({"num_channels": 33}, "num_channels=33"),
        ({"at": 1e10}, "same clock as time.monotonic()"),
        ({"at": float("nan")}, "at=nan"),
        ({"track": "../x"}, "'../x'"),
        ({"track": "User Name"}, "'User Name'"),
        ({"track": "x" * 33}, "xxx"),
        ({"track": "audio"}, "'audio'"),
        ({"track": "a\x00b"}, "x00"),
    ],
)
async def test_a_bad_frame_is_one_clear_error_and_costs_nothing(
    recorder: Recorder, arguments: dict[str, Any], message: str
) -> None:
    call = await recorder.start()
    call.write("user", PCM, RATE)
    call.write("user", b"", 16000)
    good = {"track": "user", "pcm": PCM, "sample_rate": RATE}
    with pytest.raises((InvalidFrame, InvalidName), match=re.escape(message)) as raised:
        call.write(**{**good, **arguments})
    assert "\n" not in str(raised.value)
    call.write("user", PCM, RATE)
    result = await call.stop()
    assert (result.state, result.samples) == (State.COMPLETED, 960)


async def test_tracks_are_limited(recorder: Recorder) -> None:
    call = await recorder.start()
    for index in range(62):
        call.write(f"guest-{index}", PCM, RATE)
    with pytest.raises(InvalidName, match="at most 64"):
        call.write("one-too-many", PCM, RATE)
    call.end(discard_unheard=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recording_id": "../../etc/passwd"}, "recording id"),
        ({"recording_id": "a/b"}, "recording id"),
        ({"recording_id": ""}, "recording id"),
        ({"recording_id": "a\nb"}, "recording id"),
        ({"recording_id": "x" * 101}, "recording id"),
        ({"metadata": {"name": "Zoë"}}, "metadata"),
        ({"metadata": {"long": "x" * 2048}}, "metadata"),
        ({"metadata": {"recorder-sequence": "1"}}, "metadata"),
        ({"tags": {str(index): "x" for index in range(11)}}, "tags"),
        ({"tracks": ["user", "../bot"]}, "track"),
        ({"tracks": ["user", "user"]}, "named twice"),
        ({"outputs": ["quadro"]}, "outputs"),
        ({"sample_rate": 7}, "sample_rate"),
    ],
)
async def test_a_bad_start_is_one_clear_error_and_leaves_nothing(
    recorder: Recorder, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises((InvalidName, SettingsError), match=message) as raised:
        await recorder.start(**arguments)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "spool").glob("*"))
    assert not list((tmp_path / "bucket").glob("dt=*"))


async def test_an_empty_frame_does_nothing(recorder: Recorder) -> None:
    call = await recorder.start()
    call.write("user", b"", RATE)
    assert call.frames == 0
    assert (await call.stop()).samples == 0


async def test_frames_after_the_end_are_ignored_and_counted(recorder: Recorder) -> None:
    call = await recorder.start()
    call.write("user", PCM, RATE)
    first = await call.stop()
    call.write("user", PCM, RATE)
    call.pause()
    call.interrupt()
    call.start_turn("user")
    assert call.ignored == 1
    assert await call.stop() == first


async def test_any_buffer_of_bytes_is_taken(recorder: Recorder) -> None:
    call = await recorder.start()
    samples = np.frombuffer(PCM, dtype=np.int16)
    for pcm in (PCM, bytearray(PCM), memoryview(PCM), samples.data):
        call.write("user", pcm, RATE)
    planes = await call.read(0, 4 * 480)
    np.testing.assert_array_equal(planes.samples[0], np.tile(samples, 4))
    await call.stop()


async def test_a_recorder_that_is_not_open_says_so(tmp_path: Path) -> None:
    settings = Settings(bucket=tmp_path.as_uri(), spool_dir=tmp_path / "spool")
    with pytest.raises(RuntimeError, match="async with Recorder"):
        await Recorder(settings).start()


def test_no_bucket_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="RECORDER_BUCKET"):
        Recorder()


@pytest.mark.parametrize(
    "track", [Track("../x"), Track("user", participant=""), Track("user", participant="a\nb")]
)
async def test_a_track_that_is_added_is_checked(recorder: Recorder, track: Track) -> None:
    async with recorder.start() as call:
        with pytest.raises(InvalidName):
            call.add_track(track)
        call.write("user", PCM, RATE)
    assert call.result is not None
    assert call.result.state is State.COMPLETED
