from math import gcd

import numpy as np
import pytest
import soxr

from recorder.grid import Grid
from recorder.resample import CONTEXT_SAMPLES, BlockResampler

PAIRS = [(16_000, 24_000), (8_000, 24_000), (48_000, 24_000), (44_100, 24_000), (11_025, 16_000)]
ODD_PAIRS = [(24_000, 8_000), (22_050, 24_000), (4_000, 48_000), (192_000, 4_000), (24_001, 24_000)]


def tone(rate, seconds, hertz, amplitude=12_000.0):
    time = np.arange(int(rate * seconds)) / rate
    return np.rint(amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def speech_like(rate, seconds, seed=3):
    """Noise with speech's falling spectrum (6 dB an octave), in bursts of syllable length."""
    count = int(rate * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    spectrum /= np.maximum(np.fft.rfftfreq(count, 1 / rate), 100.0)
    noise = np.fft.irfft(spectrum, count)
    noise *= 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(count) / rate)
    return np.rint(noise * (25_000 / np.abs(noise).max())).astype(np.int16)


class Source:
    """A run's input that remembers what was read of it."""

    def __init__(self, samples):
        self.samples = samples
        self.samples.flags.writeable = False
        self.reads = []

    def __call__(self, start, end):
        assert 0 <= start <= end <= len(self.samples)
        self.reads.append((start, end))
        return self.samples[start:end]


def rendered(samples, rate_in, rate_out):
    resampler = BlockResampler(Grid(rate_in, rate_out))
    length = resampler.grid.output(len(samples))
    return resampler.render(0, length, Source(samples), len(samples), True)


def one_shot(samples, rate_in, rate_out, silence=1):
    """Resample the whole run at once, `silence` seconds before and after it, and cut it out.

    Without silence, soxr's first samples are not those of its filter for some rates.
    """
    around = np.zeros(silence * rate_in)
    padded = np.concatenate([around, samples, around])
    resampled = soxr.resample(padded, rate_in, rate_out, quality="HQ")
    length = Grid(rate_in, rate_out).output(len(samples))
    return np.pad(resampled, (0, 1))[silence * rate_out :][:length]


def signal_to_noise(signal, noise):
    return 10 * np.log10(np.mean(signal**2) / max(np.mean(noise**2), 1e-12))


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS + ODD_PAIRS)
@pytest.mark.parametrize("seconds", [0, 0.02, 0.5, 1.23, 3.0])
def test_length_is_the_inputs_at_the_new_rate_to_the_sample(rate_in, rate_out, seconds):
    samples = speech_like(rate_in, seconds) if seconds else np.zeros(0, np.int16)
    output = rendered(samples, rate_in, rate_out)
    assert output.dtype == np.int16
    assert len(output) == int(len(samples) * rate_out / rate_in + 0.5)


@pytest.mark.parametrize(("n_in", "length"), [(0, 0), (1, 2), (2, 3), (3, 5), (16_000, 24_000)])
def test_halves_of_a_sample_are_rounded_up(n_in, length):
    assert Grid(16_000, 24_000).output(n_in) == length


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS + ODD_PAIRS)
@pytest.mark.parametrize("kind", ["speech", "low tone", "high tone"])
def test_blocks_sound_as_the_whole_resampled_at_once(rate_in, rate_out, kind):
    lowest = min(rate_in, rate_out)
    samples = {
        "speech": lambda: speech_like(rate_in, 4.3),
        "low tone": lambda: tone(rate_in, 4.3, 220),
        "high tone": lambda: tone(rate_in, 4.3, 0.4 * lowest),
    }[kind]()
    output = rendered(samples, rate_in, rate_out).astype(np.float64)
    expected = one_shot(samples, rate_in, rate_out)
    # Rounding to 16 bits is half a step: what is beyond it is 32-bit floats against 64-bit ones.
    assert np.abs(output - expected).max() < 0.55
    assert signal_to_noise(expected, output - expected) > 80
    plain = one_shot(samples, rate_in, rate_out, silence=0)
    away = slice(rate_out // 50, -(rate_out // 50))
    assert np.abs(output - plain)[away].max() < 0.55


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)
def test_no_seam_can_be_heard_between_blocks(rate_in, rate_out):
    resampler = BlockResampler(Grid(rate_in, rate_out))
    samples = tone(rate_in, 5, 997)
    output = rendered(samples, rate_in, rate_out).astype(np.float64)
    time = np.arange(len(output)) / rate_out
    error = np.abs(output - 12_000 * np.sin(2 * np.pi * 997 * time))
    block = resampler.grid.block_out
    seams = range(block, len(output) - block, block)
    assert len(seams) >= 3
    for seam in seams:
        # Rounding of input and output: half a step each, and what the filter makes of the former.
        assert error[seam - 50 : seam + 50].max() < 2


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)
def test_there_is_no_delay(rate_in, rate_out):
    samples = speech_like(rate_in, 2)
    output = rendered(samples, rate_in, rate_out).astype(np.float64)
    times = np.arange(len(output)) * (rate_in / rate_out)
    reference = np.interp(times, np.arange(len(samples)), samples.astype(np.float64))
    size = 2 * len(output)
    product = np.fft.rfft(output, size) * np.conj(np.fft.rfft(reference, size))
    assert np.argmax(np.fft.irfft(product, size)) == 0


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)
def test_an_impulse_stays_where_it_was(rate_in, rate_out):
    resampler = BlockResampler(Grid(rate_in, rate_out))
    block = resampler.grid.block_in
    for at in (0, block - 1, block, 3 * block // 2):
        samples = np.zeros(2 * block + 7, np.int16)
        samples[at] = 20_000
        output = np.abs(rendered(samples, rate_in, rate_out).astype(np.int32))
        assert abs(int(np.argmax(output)) - at * rate_out / rate_in) <= 0.5


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS)
def test_what_is_too_loud_saturates_and_never_wraps(rate_in, rate_out):
    """A full-scale square overshoots at its edges by what the filter takes off its top."""
    square = np.where(tone(rate_in, 2, 100) >= 0, 32_767, -32_768).astype(np.int16)
    expected = one_shot(square, rate_in, rate_out)
    assert expected.max() > 33_000
    assert expected.min() < -33_000
    output = rendered(square, rate_in, rate_out).astype(np.float64)
    assert np.abs(output - np.clip(expected, -32_768, 32_767)).max() < 0.55
    assert output.max() == 32_767
    assert output.min() == -32_768


def test_a_run_is_heard_to_its_last_sample():
    samples = np.full(16_100, 10_000, np.int16)
    output = rendered(samples, 16_000, 24_000)
    assert len(output) == 24_150
    assert output[-3:].min() > 4_000
    assert output[:3].min() > 4_000


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS + ODD_PAIRS)
def test_only_blocks_whose_context_is_there_are_available(rate_in, rate_out):
    resampler = BlockResampler(Grid(rate_in, rate_out))
    block, context, out = resampler.grid.block_in, resampler.context, resampler.grid.block_out
    assert block * rate_out == out * rate_in
    assert resampler.available_output(0, False) == 0
    assert resampler.available_output(block + context - 1, False) == 0
    assert resampler.available_output(block + context, False) == out
    assert resampler.available_output(2 * block + context - 1, False) == out
    assert resampler.available_output(2 * block + context, False) == 2 * out
    assert resampler.available_output(block, True) == out
    assert resampler.available_output(1, True) == resampler.grid.output(1)


def test_a_block_is_about_half_a_second_and_its_context_what_the_filter_reaches():
    for rate_in, rate_out in PAIRS + ODD_PAIRS[:-1]:
        resampler = BlockResampler(Grid(rate_in, rate_out))
        assert 0.5 <= resampler.grid.block_in / rate_in < 0.54
        unit = rate_in // gcd(rate_in, rate_out)
        least = CONTEXT_SAMPLES * rate_in / min(rate_in, rate_out)
        assert least <= resampler.context < least + unit


@pytest.mark.parametrize(("rate_in", "rate_out"), PAIRS + ODD_PAIRS)
def test_more_context_changes_nothing(rate_in, rate_out, monkeypatch):
    """But the last bit, by the rounding of floats: of the loudest noise there is."""
    noise = np.random.default_rng(5).integers(0, 2, int(2.2 * rate_in))
    samples = (noise * 65_535 - 32_768).astype(np.int16)
    output = rendered(samples, rate_in, rate_out).astype(np.int32)
    monkeypatch.setattr("recorder.resample.CONTEXT_SAMPLES", 1000)
    difference = np.abs(output - rendered(samples, rate_in, rate_out))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) < 0.04 * len(difference)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 12_001), (12_000, 12_001)])
def test_a_range_that_is_not_available_is_refused(start, end):
    resampler = BlockResampler(Grid(16_000, 24_000))
    source = Source(speech_like(16_000, 1))
    n_in = resampler.grid.block_in + resampler.context
    with pytest.raises(ValueError, match="is available"):
        resampler.render(start, end, source, n_in, False)
    assert source.reads == []


def test_what_comes_later_changes_no_sample_that_was_available():
    samples = speech_like(16_000, 3)
    whole = rendered(samples, 16_000, 24_000)
    for n_in in (8_800, 9_000, 16_800, 40_001):
        resampler = BlockResampler(Grid(16_000, 24_000))
        available = resampler.available_output(n_in, False)
        early = resampler.render(0, available, Source(samples[:n_in]), n_in, False)
        np.testing.assert_array_equal(early, whole[:available])


def test_one_resampler_follows_a_growing_run_to_its_end():
    samples = speech_like(16_000, 2.7)
    resampler = BlockResampler(Grid(16_000, 24_000))
    parts, done = [], 0
    for n_in in [*range(0, len(samples), 320), len(samples)]:
        final = n_in == len(samples)
        available = resampler.available_output(n_in, final)
        parts.append(resampler.render(done, available, Source(samples[:n_in]), n_in, final))
        done = available
    np.testing.assert_array_equal(np.concatenate(parts), rendered(samples, 16_000, 24_000))


def test_a_block_cached_before_the_end_was_known_is_not_used_for_a_longer_run():
    resampler = BlockResampler(Grid(16_000, 24_000))
    samples = speech_like(16_000, 1)
    resampler.render(0, 6_000, Source(samples[:4_000]), 4_000, True)
    output = resampler.render(0, 6_000, Source(samples[:]), 16_000, True)
    np.testing.assert_array_equal(output, rendered(samples[:], 16_000, 24_000)[:6_000])


def test_small_ranges_in_a_row_compute_a_block_once():
    resampler = BlockResampler(Grid(16_000, 24_000))
    source = Source(speech_like(16_000, 2))
    for start in range(0, 24_000, 480):
        resampler.render(start, start + 480, source, 32_000, True)
    assert source.reads == [(0, 8_160), (7_840, 16_160)]


def test_a_cached_block_cannot_be_changed_by_who_got_it():
    resampler = BlockResampler(Grid(16_000, 24_000))
    source = Source(speech_like(16_000, 1))
    first = resampler.render(0, 12_000, source, 16_000, True)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(resampler.render(0, 12_000, source, 16_000, True), kept)


@pytest.mark.parametrize(("rate_in", "rate_out"), [(16_000, 24_000), (24_000, 24_000)])
@pytest.mark.parametrize("n_in", [0, 1, 50_000])
def test_needed_input_is_what_render_reads(rate_in, rate_out, n_in):
    samples = speech_like(rate_in, 4)[:n_in]
    length = Grid(rate_in, rate_out).output(n_in)
    block = Grid(rate_in, rate_out).block_out
    ranges = [(0, length), (length // 3, length // 2), (length, length), (0, 0)]
    ranges += [(block, 2 * block), (block - 1, block + 1)] if length > 2 * block else []
    for start, end in ranges:
        resampler = BlockResampler(Grid(rate_in, rate_out))
        source = Source(samples)
        resampler.render(start, end, source, n_in, True)
        first, last = resampler.needed_input(start, end, n_in)
        assert 0 <= first <= last <= n_in
        read = [(a, b) for a, b in source.reads if a < b]
        if read:
            # A little more at the front: what a stretched block behind this one would reach for.
            assert 0 <= min(a for a, _ in read) - first <= resampler.context
            assert last == max(b for _, b in read)
        else:
            assert first == last


def test_the_same_rate_is_the_same_samples_without_a_copy():
    samples = speech_like(24_000, 0.1)
    resampler = BlockResampler(Grid(24_000, 24_000))
    assert resampler.available_output(7, False) == 7
    assert resampler.grid.output(7) == 7
    output = resampler.render(100, 200, Source(samples), 2400, False)
    np.testing.assert_array_equal(output, samples[100:200])
    assert np.shares_memory(output, samples)


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_a_source_that_gives_another_number_of_samples_is_an_error(rate):
    resampler = BlockResampler(Grid(rate, 24_000))
    with pytest.raises(ValueError, match="were to be fetched"):
        resampler.render(0, 10, lambda start, end: np.zeros(3, np.int16), 16_000, True)


@pytest.mark.parametrize(("rate_in", "rate_out"), [(0, 24_000), (16_000, 0), (-1, 1)])
def test_a_rate_below_one_is_an_error(rate_in, rate_out):
    with pytest.raises(ValueError, match="1 Hz or more"):
        Grid(rate_in, rate_out)
