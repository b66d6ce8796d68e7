"""Waveform data: against a plain loop, however the audio is cut; and the file's format."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.waveform import (
    DEFAULT_SAMPLES_PER_PIXEL,
    InvalidWaveform,
    Parsed,
    Shape,
    Waveform,
    extremes,
    pixel_count,
)

NOISE = np.random.default_rng(4).integers(-32768, 32768, (2000, 3), dtype=np.int16)


def plainly(frames: Any, per_pixel: int) -> list[list[list[int]]]:
    """Minima and maxima by a loop, 16 bits made 8 by dropping the fraction."""
    found = []
    for start in range(0, len(frames), per_pixel):
        part = frames[start : start + per_pixel]
        found.append(
            [[int(one.min() / 256), int(one.max() / 256)] for one in np.asarray(part, np.int32).T]
        )
    return found


@given(
    samples=st.integers(1, 2000),
    channels=st.integers(1, 3),
    per_pixel=st.integers(1, 700),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
)
def test_however_audio_is_cut_its_extremes_are_those_of_the_whole(
    samples: int, channels: int, per_pixel: int, cuts: list[int]
) -> None:
    frames = NOISE[:samples, :channels]
    waveform = Waveform(Shape(8000, channels, per_pixel, samples))
    edges = sorted({0, samples, *(cut for cut in cuts if cut < samples)})
    for start, end in itertools.pairwise(edges):
        waveform.add(frames[start:end], start)
    assert waveform.values.tolist() == plainly(frames, per_pixel)
    parsed = Parsed.from_json(waveform.to_json())
    assert parsed.values.tolist() == waveform.values.tolist()
    assert (parsed.length, parsed.channels) == (pixel_count(samples, per_pixel), channels)


def test_a_pixel_that_begins_in_the_middle_is_one_of_its_own() -> None:
    found = extremes(NOISE[:10, :1], 8, offset=5)
    assert found.tolist() == [*plainly(NOISE[:3, :1], 8), *plainly(NOISE[3:10, :1], 8)]


def test_full_scale_is_full_scale_and_a_whisper_is_nothing() -> None:
    frames = np.array([[-32768], [32767], [-255], [255]], np.int16)
    assert extremes(frames, 2).tolist() == [[[-128, 127]], [[0, 0]]]


def test_what_nothing_was_added_to_is_silent_and_what_lies_behind_the_end_does_not_count() -> None:
    waveform = Waveform(Shape(8000, 1, 10, 35))
    waveform.add(NOISE[:40, :1], 20)
    assert waveform.values[:2].tolist() == [[[0, 0]]] * 2
    assert waveform.values[2:].tolist() == plainly(NOISE[:20, :1], 10)


def test_the_file_is_as_the_format_says() -> None:
    """audiowaveform, doc/DataFormat.md: the fields, and pairs interleaved by channel."""
    waveform = Waveform(Shape(48_000, 2, 512, 1024))
    waveform.values[:] = [[[-65, 63], [-66, 64]], [[-40, 41], [-39, 45]]]
    assert json.loads(waveform.to_json()) == {
        "version": 2,
        "channels": 2,
        "sample_rate": 48_000,
        "samples_per_pixel": 512,
        "bits": 8,
        "length": 2,
        "data": [-65, 63, -66, 64, -40, 41, -39, 45],
    }


def test_of_nothing_there_is_an_empty_file() -> None:
    assert Parsed.from_json(Waveform(Shape(8000, 2, 100, 0)).to_json()).length == 0


def test_an_hour_of_the_loudest_noise_stays_below_a_megabyte() -> None:
    waveform = Waveform(Shape(24_000, 2, DEFAULT_SAMPLES_PER_PIXEL, 3600 * 24_000))
    waveform.values[..., 0], waveform.values[..., 1] = -128, 127
    assert len(waveform.to_json()) < 1_000_000


GOOD = {
    "version": 2,
    "channels": 1,
    "sample_rate": 8000,
    "samples_per_pixel": 100,
    "bits": 8,
    "length": 1,
    "data": [-1, 1],
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 1}, "version 1, not 2"),
        ({"version": None}, "version None, not 2"),
        ({"channels": 0}, "channels is 0"),
        ({"sample_rate": "8000"}, "sample_rate is '8000'"),
        ({"samples_per_pixel": True}, "samples_per_pixel is True"),
        ({"bits": 12}, "12 bits"),
        ({"length": 2}, "2 values, not 4"),
        ({"data": None}, "no values, not 2"),
        ({"data": [-129, 1]}, "no number of 8 bits"),
        ({"data": [0.5, 1]}, "no number of 8 bits"),
    ],
)
def test_what_is_no_waveform_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidWaveform, match=says):
        Parsed.from_json(json.dumps({**GOOD, **changes}).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidWaveform):
        Parsed.from_json(body)


def test_sixteen_bits_are_read_too() -> None:
    body = json.dumps({**GOOD, "bits": 16, "data": [-32768, 32767]}).encode()
    assert Parsed.from_json(body).values.tolist() == [[[-32768, 32767]]]
