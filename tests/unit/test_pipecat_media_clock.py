"""Timestamps of frames: their unit is found, and what cannot be right is not believed."""

from __future__ import annotations

import headless  # noqa: F401 - imports Pipecat without its warning
import pytest

from recorder.pipecat.media_clock import FRAMES, MediaClock

FRAME = 0.02


def told(
    clock: MediaClock, unit: float, frames: int, *, first: float = 0.0, at: float = 100.0
) -> list[float | None]:
    """Hand over frames of a microphone whose first sample was at `first` on its clock."""
    return [
        clock.seconds(round((first + number * FRAME) * unit), FRAME, at + (number + 1) * FRAME)
        for number in range(frames)
    ]


@pytest.mark.parametrize("unit", [1e9, 1e6, 1e3, 48_000, 90_000, 44_100, 24_000, 16_000, 8_000])
def test_the_unit_is_found(unit: float) -> None:
    found = told(MediaClock(), unit, 50, first=3.0)
    assert found[:FRAMES] == [None] * FRAMES
    for number, seconds in enumerate(found[FRAMES:], FRAMES):
        assert seconds == pytest.approx(3.0 + number * FRAME, abs=0.001)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
@pytest.mark.parametrize(("unit", "delay"), [(48_000, 16), (8_000, 32), (16_000, 16)])
def test_audio_that_was_resampled_keeps_its_decoders_units(
    unit: int, delay: int, rate: int
) -> None:
    """A resampler holds back the beginning: its first frame is shorter than the others."""
    clock, found = MediaClock(), []
    for number in range(30):
        samples = rate // 50 - (delay if number == 0 else 0)
        found.append(clock.seconds(number * unit // 50, samples / rate, 100 + number * FRAME))
    assert found[-1] == pytest.approx(29 * FRAME)


def test_lost_packets_are_a_gap() -> None:
    clock = MediaClock()
    told(clock, 48_000, 20)
    assert clock.seconds(96_000, FRAME, 102.02) == pytest.approx(2.0)


def test_a_stall_and_its_burst() -> None:
    clock = MediaClock()
    told(clock, 48_000, 20)
    late = [clock.seconds(number * 960, FRAME, 103.0) for number in range(20, 145)]
    assert late == pytest.approx([number * FRAME for number in range(20, 145)])
    assert not clock.useless


def test_frames_that_were_one() -> None:
    clock = MediaClock()
    found = [clock.seconds(number // 2 * 480, FRAME / 4, 100.0) for number in range(60)]
    assert found[-2:] == pytest.approx([29 * FRAME / 2, 29 * FRAME / 2 + FRAME / 4])


def test_a_clock_that_is_off_is_believed_for_hours() -> None:
    clock, at = MediaClock(), 100.0
    for number in range(3 * 3600 * 50 // 5):  # frames of 100 ms
        at += 0.1 * (1 + 500e-6)
        found = clock.seconds(number * 4_800, 0.1, at)
    assert found == pytest.approx(3 * 3600, abs=0.2)


@pytest.mark.parametrize("unit", [11_025, 37_000, 3.3e9, 50])
def test_an_unknown_unit_is_not_guessed(unit: float) -> None:
    assert told(MediaClock(), unit, 100) == [None] * 100


def test_times_of_arrival_are_no_timestamps() -> None:
    clock, now = MediaClock(), 0
    for number in range(100):
        now += 20_000_000 + (number * 7919 % 13 - 6) * 1_000_000  # ns, up to 6 ms of jitter
        assert clock.seconds(now, FRAME, 100 + now / 1e9) is None


@pytest.mark.parametrize("pts", [None, "1", 1.5, True])
def test_what_is_no_number_is_no_timestamp(pts: object) -> None:
    clock = MediaClock()
    told(clock, 48_000, 20)
    assert clock.seconds(pts, FRAME, 100.42) is None
    assert not clock.useless


def test_a_constant_is_no_timestamp() -> None:
    clock = MediaClock()
    assert [clock.seconds(0, FRAME, 100 + number) for number in range(50)] == [None] * 50


@pytest.mark.parametrize(
    "pts", [0, 20 * 960 + (1 << 32), 20 * 960 + 10 * 48_000], ids=["back", "wrapped", "ahead"]
)
def test_timestamps_that_have_gone_wrong_are_ignored_for_good(pts: int) -> None:
    clock = MediaClock()
    told(clock, 48_000, 20)
    assert clock.seconds(pts, FRAME, 100.42) is None
    assert told(clock, 48_000, 50, first=30, at=130) == [None] * 50


def test_a_clock_that_stood_still_while_muted_is_not_believed() -> None:
    clock = MediaClock()
    told(clock, 48_000, 50)
    after = told(clock, 48_000, 200, first=1.0, at=111.0)
    assert after[-1] is None
    assert clock.useless
