from functools import cache
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.grid import Grid
from recorder.resample import BlockResampler

RATES = st.sampled_from(
    [(16_000, 24_000), (8_000, 24_000), (48_000, 24_000), (44_100, 24_000), (11_025, 16_000)]
)
SECONDS = 2


@cache
def noise(rate):
    samples = np.random.default_rng(rate).integers(-20_000, 20_001, rate * SECONDS, dtype=np.int16)
    samples.flags.writeable = False
    return samples


def fetcher(rate):
    samples = noise(rate)
    return lambda start, end: samples[start:end]


@cache
def whole(rate_in, rate_out, n_in):
    resampler = BlockResampler(Grid(rate_in, rate_out))
    return resampler.render(0, resampler.grid.output(n_in), fetcher(rate_in), n_in, True)


@settings(max_examples=60, deadline=None)
@given(st.data(), RATES)
def test_any_partition_gives_the_same_samples_whatever_restarts_between(data, rates):
    n_in = data.draw(st.integers(0, rates[0] * SECONDS), "n_in")
    expected = whole(*rates, n_in)
    cuts = data.draw(st.lists(st.integers(0, len(expected)), max_size=8), "cuts")
    borders = sorted({0, len(expected), *cuts})
    ranges = data.draw(st.permutations(list(pairwise(borders))), "order")
    resampler = BlockResampler(Grid(*rates))
    output = np.zeros(len(expected), np.int16)
    for start, end in ranges:
        if data.draw(st.booleans(), "restart"):
            resampler = BlockResampler(Grid(*rates))
        output[start:end] = resampler.render(start, end, fetcher(rates[0]), n_in, True)
    np.testing.assert_array_equal(output, expected)


@settings(max_examples=60, deadline=None)
@given(st.data(), RATES)
def test_samples_rendered_while_the_run_grows_are_the_final_ones(data, rates):
    rate_in = rates[0]
    n_in = data.draw(st.integers(0, rate_in * SECONDS), "n_in")
    expected = whole(*rates, n_in)
    looks = sorted(data.draw(st.lists(st.integers(0, n_in), max_size=6), "looks"))
    resampler = BlockResampler(Grid(*rates))
    output, done = [], 0
    for seen in [*looks, n_in]:
        final = seen == n_in
        available = resampler.available_output(seen, final)
        assert done <= available <= len(expected)
        output.append(resampler.render(done, available, fetcher(rate_in), seen, final))
        done = available
    np.testing.assert_array_equal(np.concatenate(output), expected)


@given(st.integers(1, 192_000), st.integers(1, 192_000), st.integers(0, 10**10))
def test_lengths_hold_for_any_rates_and_any_run(rate_in, rate_out, n_in):
    resampler = BlockResampler(Grid(rate_in, rate_out))
    length = resampler.grid.output(n_in)
    assert abs(length * rate_in - n_in * rate_out) * 2 <= rate_in
    assert resampler.grid.block_in * rate_out == resampler.grid.block_out * rate_in
    available = resampler.available_output(n_in, False)
    assert 0 <= available <= length == resampler.available_output(n_in, True)
    first, last = resampler.needed_input(0, available, n_in)
    assert (first, last) == (0, 0) if not available else first == 0 < last <= n_in
    assert resampler.available_output(last, False) >= available
