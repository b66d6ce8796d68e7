"""Clocks that run slow or fast: tracks stay in their place, by stretching that is not heard."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from timelines import FRAME, HOLD_BACK, RATE, Trace, ns

from recorder.drift import MAX_STRETCH
from recorder.grid import Grid
from recorder.resample import BlockResampler
from recorder.timeline import Run, Timeline


def drifting(
    ppm: float,
    seconds: float,
    *,
    jitter: float = 0.0,
    rate: int = RATE,
    frame: int = FRAME,
    seed: int = 5,
) -> tuple[Trace, Run]:
    """A microphone without a pause whose clock is so much slow."""
    trace = Trace()
    late = np.random.default_rng(seed).uniform(0, jitter, 2 * round(seconds * rate / frame))
    length = frame / rate * (1 + ppm / 1e6)
    written = 0.0
    for index in range(round(seconds / length)):
        due = (index + 1) * length
        written = max(written, due + late[index])
        trace.frame(due + late[index], count=frame, rate=rate, written=written)
        if index % 500 == 0:
            trace.timeline.advance(ns(written))
    trace.stop(seconds)
    [run] = trace.timeline.runs
    return trace, run


@pytest.mark.parametrize("ppm", [-500, -200, -50, 50, 200, 500])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
@pytest.mark.parametrize("rate", [8000, 16_000])
def test_speech_stays_within_half_a_frame_of_the_clock(ppm: int, jitter: float, rate: int) -> None:
    _, run = drifting(ppm, 240, jitter=jitter, rate=rate, frame=rate // 50)
    times = np.arange(0, run.count, rate // 2)
    spoken = times / rate * (1 + ppm / 1e6)
    placed = np.array([run.start + run.grid.output(int(count)) for count in times]) / RATE
    assert np.abs(placed - spoken).max() < 0.012


@pytest.mark.parametrize("ppm", [-300, 0, 100, 500])
def test_a_clock_is_followed_through_steps_of_a_way_that_gets_longer_and_shorter(ppm: int) -> None:
    """With timestamps: 30 ms more on each second of stretches of 20 s are the network's."""
    trace = Trace()
    late = np.random.default_rng(6).uniform(0, 0.02, 30_000)
    slow = 1 + ppm / 1e6
    written = 0.0
    for index in range(30_000):
        due = (index + 1) * 0.02 * slow
        written = max(written, due + late[index] + (0.03 if int(due / 20) % 2 else 0))
        trace.frame(written, pts=index * 0.02)
        if index % 500 == 0:
            trace.timeline.advance(ns(written))
    trace.stop(written)
    [run] = trace.timeline.runs
    times = np.arange(0, run.count, RATE // 2)
    placed = np.array([run.start + run.grid.output(int(count)) for count in times]) / RATE
    assert np.abs(placed - times / RATE * slow).max() < 0.02


def test_a_clock_that_is_right_is_left_alone() -> None:
    for ppm in (0, 15):  # of 4 ms that begin to count, 15 ppm make 3.6 in 240 s
        _, run = drifting(ppm, 240, jitter=0.05)
        assert run.grid.inserted == 0


def test_jitter_is_no_drift_however_few_frames_there_are() -> None:
    for seed in range(30):
        _, run = drifting(0, 120, jitter=0.04, frame=RATE // 10, seed=seed)
        # The first frame's own jitter is put right; it may be all of it.
        assert abs(run.grid.inserted) <= 0.04 * RATE
        stretches = np.diff([run.grid.before, *run.grid.totals])
        assert (stretches <= 0).all() or (stretches >= 0).all()  # no hunting


def test_sources_that_are_not_in_real_time_are_left_alone() -> None:
    trace = Trace()
    for index in range(3000):
        trace.frame(1 + index * 0.01)
    trace.stop(90)
    assert [run.grid.inserted for run in trace.timeline.runs] == [0]


def test_a_bot_that_is_ahead_is_not_slowed() -> None:
    trace = Trace("playout")
    for index in range(3000):
        trace.frame(1 + index * 0.02 - min(0.2, index * 0.001))
    trace.stop(90)
    assert [run.grid.inserted for run in trace.timeline.runs] == [0]


def test_a_restart_goes_on_the_same() -> None:
    arrivals = [(index + 1) * 0.02 * 1.0004 for index in range(4990)]
    whole, trace = Trace(), Trace()
    for index, at in enumerate(arrivals):
        whole.frame(at)
        trace.frame(at)
        if index % 700 == 699:
            trace.timeline.advance(ns(at))
            state = json.loads(json.dumps(trace.timeline.state()))
            trace.timeline = Timeline(RATE, HOLD_BACK)
            trace.timeline.restore(state)
            for undecided in arrivals[: index + 1]:
                if ns(undecided) > trace.timeline.decided_ns:
                    trace.frame(undecided)
    for one in (whole, trace):
        one.stop(100)
    assert whole.timeline.runs[0].grid.inserted > 0
    assert trace.timeline.runs == whole.timeline.runs


# -- what it does to the sound ---------------------------------------------------------------------


def rendered(samples: NDArray[np.int16], grid: Grid) -> NDArray[np.float64]:
    length = grid.output(len(samples))
    resampler = BlockResampler(grid)
    output = resampler.render(0, length, lambda a, b: samples[a:b], len(samples), True)
    return output.astype(np.float64)


@pytest.mark.parametrize("rates", [(24_000, 24_000), (16_000, 24_000), (8000, 8000)])
@pytest.mark.parametrize("hertz", [220.0, 997.0, 2900.0])
def test_a_stretched_tone_is_a_tone_without_a_seam(rates: tuple[int, int], hertz: float) -> None:
    """Against the tone as it would be at the very times the grid maps to: noise and clicks."""
    rate_in, rate_out = rates
    grid = Grid(*rates)
    most = int(MAX_STRETCH * grid.block_out)
    for block, added in enumerate([0, most, -most, 3, 0, -1, most, most, 0, 0]):
        grid.stretch(block, added)
    time = np.arange(10 * grid.block_in) / rate_in
    tone = np.rint(12_000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)
    output = rendered(tone, grid)
    borders = np.array([grid.block_start(block) for block in range(11)])
    moments = np.interp(np.arange(len(output)), borders, np.arange(11) * grid.block_in / rate_in)
    expected = 12_000 * np.sin(2 * np.pi * hertz * moments)
    away = slice(rate_out // 20, -rate_out // 20)  # a tone that begins or ends has no band limit
    error = (output - expected)[away]
    assert np.abs(error).max() < 2.5  # steps of 16 bits: a click would be hundreds
    assert 10 * np.log10(np.mean(expected[away] ** 2) / np.mean(error**2)) > 75


def test_what_is_not_stretched_is_bit_identical() -> None:
    grid = Grid(RATE, RATE)
    grid.stretch(3, 5)
    noise = np.random.default_rng(1).integers(-9000, 9000, 10 * grid.block_in, dtype=np.int16)
    output = rendered(noise, grid)
    np.testing.assert_array_equal(output[: 3 * grid.block_in], noise[: 3 * grid.block_in])
    np.testing.assert_array_equal(output[grid.block_start(4) :], noise[4 * grid.block_in :])


def test_any_range_is_the_same_samples_while_blocks_are_forgotten() -> None:
    def grid_of() -> Grid:
        grid = Grid(16_000, 24_000)
        for block in (0, 1, 3, 4, 7):
            grid.stretch(block, (-1) ** block * (block + 5))
        return grid

    noise = np.random.default_rng(2).integers(-9000, 9000, 80_000, dtype=np.int16)
    whole = rendered(noise, grid_of())
    grid = grid_of()
    resampler = BlockResampler(grid)
    parts, position = [], 0
    while position < len(whole):
        end = min(len(whole), position + 7_001)
        first, last = resampler.needed_input(position, end, len(noise))

        def fetch(start: int, stop: int, first: int = first, last: int = last) -> NDArray[np.int16]:
            assert first <= start <= stop <= last
            return noise[start:stop]

        parts.append(resampler.render(position, end, fetch, len(noise), True))
        position = end
        grid.forget_before(grid.block_of(position))
        assert grid.output(len(noise)) == len(whole)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not grid.blocks
