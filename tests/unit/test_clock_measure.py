"""The ruler: known errors in a recording are measured as what they are."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from traces.call import Call
from traces.measure import Errors, measure
from traces.pcm import decode, encode
from traces.trace import Trace
from traces.voice import Voice

RATE = 24_000
TINY = 0.01  # ms, of interpolation
CALL = Call("ruler", 10, "two sentences").mic(speech=((1, 4), (5, 9))).trace()
Samples = NDArray[np.int16]


def true_recording(trace: Trace = CALL, rate: int = RATE) -> Samples:
    truth = trace.tracks["user"]
    track = np.zeros(round(trace.seconds * rate), np.int16)
    for heard in truth.heard:
        start, end = round(heard.start * rate), round(heard.end * rate)
        signal = truth.voice.samples(heard.content, end - start, rate / heard.pace)
        track[start:end] = np.rint(signal)
    return track


def errors_of(track: Samples, trace: Trace = CALL) -> Errors:
    return measure(track, RATE, [trace.tracks["user"]], trace.every)


def cut(track: Samples, start: float, end: float) -> Samples:
    return np.concatenate([track[: round(start * RATE)], track[round(end * RATE) :]])


def put(track: Samples, at: float, more: Samples) -> Samples:
    place = round(at * RATE)
    return np.concatenate([track[:place], more, track[place:]])


def test_a_true_recording_has_no_errors() -> None:
    errors = errors_of(true_recording())
    assert errors.placement == pytest.approx(0, abs=TINY)
    assert errors.inserted == errors.lost == errors.phantom == 0


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_resampling_is_no_error(rate: int) -> None:
    low = true_recording(rate=rate).astype(np.float32)
    track = np.rint(soxr.resample(low, rate, RATE)).astype(np.int16)
    errors = errors_of(track)
    assert abs(errors.placement) < 0.02
    assert errors.lost == errors.inserted == errors.phantom == 0


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_telephony_is_no_error(encoding: str) -> None:
    signal = true_recording(rate=8000).astype(np.float32)
    pcm = decode(encode(signal, 1, encoding, None), encoding)  # type: ignore[arg-type]
    low = np.frombuffer(pcm, "<i2").astype(np.float32)
    errors = errors_of(np.rint(soxr.resample(low, 8000, RATE)).astype(np.int16))
    assert abs(errors.placement) < 0.02
    assert errors.lost == errors.inserted == errors.phantom == 0


@pytest.mark.parametrize("samples", [-240_000, -2400, -3, 0, 1, 480, 7200, 24_000])
def test_a_shift_is_found_to_a_fraction_of_a_sample_at_8_khz(samples: int) -> None:
    track = np.roll(np.pad(true_recording(), 240_000), samples)[240_000:-240_000]
    if samples == -240_000:  # nothing is left of it
        assert errors_of(track).lost == pytest.approx(7000)
        return
    errors = errors_of(track)
    assert errors.placement == pytest.approx(samples / RATE * 1e3, abs=0.02)
    assert errors.lost == errors.inserted == 0


@pytest.mark.parametrize("ms", [3, 20, 60, 800])
def test_silence_inside_speech_is_inserted_silence_and_late_speech(ms: int) -> None:
    errors = errors_of(put(true_recording(), 2.033, np.zeros(ms * RATE // 1000, np.int16)))
    assert errors.inserted == pytest.approx(ms, abs=1)
    assert errors.placement == pytest.approx(ms, abs=0.02)
    assert errors.lost <= 10  # a block of 10 ms that was torn


@pytest.mark.parametrize("ms", [20, 60, 500])
def test_what_was_cut_out_is_lost_and_the_rest_early(ms: int) -> None:
    errors = errors_of(cut(true_recording(), 2.033, 2.033 + ms / 1000))
    assert errors.lost == pytest.approx(ms, abs=11)
    assert errors.placement == pytest.approx(-ms, abs=0.02)
    assert errors.inserted == 0


def test_silence_over_speech_is_inserted_and_lost() -> None:
    track = true_recording()
    track[2 * RATE : 2 * RATE + 480] = 0
    errors = errors_of(track)
    assert errors.placement == pytest.approx(0, abs=TINY)
    assert errors.inserted == pytest.approx(20, abs=1)
    assert errors.lost == pytest.approx(20, abs=1)


@pytest.mark.parametrize("ms", [40, 300])
def test_other_sound_over_speech_is_lost_speech_and_phantom(ms: int) -> None:
    track, count = true_recording(), ms * RATE // 1000
    track[2 * RATE : 2 * RATE + count] = Voice(99).samples(0, count, RATE)
    errors = errors_of(track)
    assert errors.lost == pytest.approx(ms, abs=10)
    assert errors.phantom == pytest.approx(ms, abs=20)


def test_speech_that_is_there_twice_is_phantom() -> None:
    track = true_recording()
    track[round(9.2 * RATE) : round(9.7 * RATE)] = track[2 * RATE : round(2.5 * RATE)]
    errors = errors_of(track)
    assert errors.phantom == pytest.approx(500, abs=10)
    assert errors.placement == pytest.approx(0, abs=TINY)
    assert errors.lost == 0


def test_two_frames_that_changed_places_are_noticed() -> None:
    track = true_recording()
    first, second = slice(2 * RATE, 2 * RATE + 480), slice(2 * RATE + 480, 2 * RATE + 960)
    track[first], track[second] = track[second].copy(), track[first].copy()
    assert errors_of(track).lost == pytest.approx(40, abs=1)


def test_drift_is_followed_to_its_end() -> None:
    trace = Call("drifting-ruler", 60, "", every=1.0).mic().trace()
    heard = trace.tracks["user"].voice.samples(0, 60 * RATE, RATE * (1 + 500e-6))
    errors = errors_of(np.rint(heard).astype(np.int16), trace)
    assert errors.placement == pytest.approx(30, abs=0.2)
    assert errors.lost == pytest.approx(30, abs=1)  # the end of it did not come to be played
    assert errors.inserted == errors.phantom == 0


def test_two_voices_at_once_are_told_apart() -> None:
    trace = Call("duet", 6, "").mic("user").mic("user-2", speech=((2, 5),)).trace()
    first, second = trace.tracks["user"], trace.tracks["user-2"]
    track = first.voice.samples(0, 6 * RATE, RATE).copy()
    track[2 * RATE + 240 : 5 * RATE + 240] += second.voice.samples(2, 3 * RATE, RATE)
    errors = measure(np.rint(track).astype(np.int16), RATE, [first, second])
    assert errors.placement == pytest.approx(10, abs=0.05)
    assert errors.inserted == errors.phantom == 0
    assert errors.lost <= 100


def test_one_voice_is_like_no_other_and_like_itself_nowhere_else() -> None:
    voice, other = Voice(1), Voice(2)
    length = 8000 // 5
    needle = voice.samples(3, length, 8000)
    for hay in (other.samples(0, 480_000, 8000), voice.samples(4, 480_000, 8000)):
        size = 1 << 19
        spectrum = np.fft.rfft(hay, size) * np.conj(np.fft.rfft(needle, size))
        peak = np.abs(np.fft.irfft(spectrum)).max()
        assert peak < 0.3 * np.linalg.norm(needle) ** 2


def test_a_voice_is_the_same_however_it_is_taken() -> None:
    voice = Voice(5)
    whole = voice.samples(2.0, 24_000, 24_000)
    assert np.array_equal(voice.samples(2.5, 1000, 24_000), whole[12_000:13_000])
    between = voice.samples(2.0 + 1e-3 / 24_000, 24_000, 24_000)
    assert np.abs(between - whole).max() < 10
    fine = soxr.resample(whole.astype(np.float64), 24_000, 44_100)
    noise = (voice.samples(2.0, 44_100, 44_100) - fine)[4410:-4410]
    assert noise.std() < 1e-3 * whole.std()


def test_errors_side_by_side_are_the_worst_and_the_sums() -> None:
    one, other = Errors(1, -9, 1, 2, 3), Errors(-5, 3, 10, 20, 30)
    assert astuple(one.beside(other)) == (-5, -9, 11, 22, 33)
