import io

import numpy as np
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from recorder.containers.wav import HEADER_BYTES, InvalidWav, WavInfo, parse_header, wav_header

RATES = st.integers(1, 192_000)
CHANNELS = st.integers(1, 64)


@given(st.integers(0, 2**55), RATES, CHANNELS)
def test_any_header_is_read_back_and_has_one_length(samples, rate, channels):
    header = wav_header(samples, rate, channels)
    assert len(header) == HEADER_BYTES
    assert parse_header(header) == WavInfo(samples, rate, channels, HEADER_BYTES)


@given(st.binary(max_size=200), RATES, st.integers(1, 8))
def test_libsndfile_reads_the_samples_of_any_file(data, rate, channels):
    samples = len(data) // (2 * channels)
    data = data[: samples * 2 * channels]
    file = io.BytesIO(wav_header(samples, rate, channels) + data)
    read, read_rate = soundfile.read(file, dtype="int16", always_2d=True)
    assert read_rate == rate
    assert read.shape == (samples, channels)
    assert np.ascontiguousarray(read, "<i2").tobytes() == data


@given(st.binary(max_size=300), st.integers(0, 80))
def test_no_bytes_do_more_than_be_refused(data, kept):
    for given_bytes in (data, wav_header(9, 8000, 2)[:kept] + data):
        try:
            info = parse_header(given_bytes)
        except InvalidWav:
            continue
        assert info.channels >= 1
        assert info.sample_rate >= 1
        assert info.samples >= 0
        assert info.data_offset <= len(given_bytes)
