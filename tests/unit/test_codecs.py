"""FLAC and Ogg Opus: what is encoded is decoded, by decoders that are not ours, as what it was."""

from __future__ import annotations

import builtins
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from decoders import by_ffmpeg, by_libsndfile, decibels, dialogue, length_by_ffmpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.containers import Codec, MissingCodec, output_format
from recorder.containers.codecs import Samples
from recorder.containers.flac import FLAC, InvalidFlac, parse_streaminfo
from recorder.containers.opus import (
    OPUS,
    TAIL_BYTES,
    InvalidOpus,
    last_granule,
    parse_opus_head,
)

BITRATE = 24_000
EVERY_RATE = [4_000, 8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000]


def encoded(
    codec: Codec,
    frames: Samples,
    rate: int,
    splits: list[int] | None = None,
    bitrate: int = BITRATE,
) -> bytes:
    """A file of frames, which are written in pieces that end at `splits`."""
    encoder = codec.encoder(rate, frames.shape[1], bitrate)
    ends = [*(splits or []), len(frames)]
    body = b"".join(
        encoder.write(frames[start:end]) for start, end in zip([0, *ends], ends, strict=False)
    )
    ending = encoder.close()
    encoder.abandon()
    body += ending.data
    return ending.head + body[len(ending.head) :]


def voices(rate: int, channels: int, seconds: float = 1.337) -> Samples:
    """Speech at a rate, in one channel, or in two at once."""
    said, at = dialogue()
    talk = said[:, 1] + said[:, 0]
    both = np.stack([talk[at // 2 :][: 2 * at], talk[at:][: 2 * at]], axis=1)
    found = soxr.resample(both, at, rate)[: round(seconds * rate), :channels]
    return np.ascontiguousarray(found)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", EVERY_RATE)
def test_flac_is_the_same_samples_with_their_number_and_md5(rate: int, channels: int) -> None:
    said = voices(rate, channels)
    body = encoded(FLAC, said, rate, [100, 5_000])
    found, at = by_libsndfile(body)
    assert at == rate
    np.testing.assert_array_equal(found, said)
    np.testing.assert_array_equal(by_ffmpeg(body, channels), said)
    info = parse_streaminfo(body)
    assert (info.samples, info.sample_rate, info.channels, info.bits) == (
        len(said),
        rate,
        channels,
        16,
    )
    assert info.md5 == hashlib.md5(said.tobytes(), usedforsecurity=False).digest()
    assert len(body) < 0.9 * said.nbytes


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", EVERY_RATE)
def test_opus_is_as_long_to_the_sample(rate: int, channels: int) -> None:
    said = voices(rate, channels)
    body = encoded(OPUS, said, rate)
    info = parse_opus_head(body)
    samples, coded_rate = OPUS.coded(len(said), rate)
    assert abs(samples / coded_rate - len(said) / rate) <= 0.5 / coded_rate
    assert (info.channels, info.input_rate) == (channels, coded_rate)
    length = last_granule(body[-TAIL_BYTES:], info.serial) - info.pre_skip
    assert length * coded_rate == samples * 48_000
    found, at = by_libsndfile(body)
    assert (len(found), at) == (samples, coded_rate)
    assert len(by_ffmpeg(body, channels)) == length
    wanted = soxr.resample(said, rate, coded_rate)[: len(found)]
    for channel in range(channels):
        one, other = wanted[:, channel].astype(float), found[: len(wanted), channel].astype(float)
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9


def test_speech_in_opus_is_what_was_said(tmp_path: Path) -> None:
    """Both voices at the default bitrate: 12 dB and more, at a fifteenth of the bytes."""
    said, rate = dialogue()
    body = encoded(OPUS, said, rate)
    found, _ = by_libsndfile(body)
    assert found.shape == said.shape
    assert decibels(said, found) > 12
    assert len(body) < said.nbytes / 15
    hundredths = len(said) * 100 // rate
    assert length_by_ffmpeg(body, tmp_path).startswith(f"00:00:{hundredths // 100:02d}.")
    again = by_ffmpeg(body, 2)  # at 48 kHz
    assert decibels(soxr.resample(said, rate, 48_000), again) > 12


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["flac", "opus"]),
    rate=st.sampled_from([8_000, 11_025, 48_000]),
    splits=st.lists(st.integers(0, 9_000), max_size=8).map(sorted),
)
def test_how_frames_are_split_changes_no_byte(name: str, rate: int, splits: list[int]) -> None:
    codec, said = output_format(name), voices(8_000, 2, 1.2)[:9_000]
    assert isinstance(codec, type(FLAC) | type(OPUS))
    assert encoded(codec, said, rate, splits) == encoded(codec, said, rate)


@pytest.mark.parametrize("channels", [1, 2])
def test_no_samples_are_a_file_too(channels: int) -> None:
    nothing = np.zeros((0, channels), np.int16)
    body = encoded(FLAC, nothing, 24_000)
    assert parse_streaminfo(body).samples == 0
    assert len(by_ffmpeg(body, channels)) == 0
    # Opus has no page to end with, without a packet: the shortest file has one sample.
    body = encoded(OPUS, nothing, 24_000)
    assert len(by_libsndfile(body)[0]) == OPUS.coded(0, 24_000)[0] == 1


def test_no_opus_packet_goes_on_in_the_next_page() -> None:
    """Not at the highest bitrate, with noise: libsndfile cannot seek behind such a page."""
    noise = np.random.default_rng(3).integers(-20_000, 20_000, (5 * 48_000, 2), dtype=np.int16)
    body = encoded(OPUS, noise, 48_000, bitrate=256_000)
    at, flags = 0, []
    while at < len(body):
        assert body[at : at + 4] == b"OggS"
        segments = body[at + 26]
        flags.append(body[at + 5])
        at += 27 + segments + sum(body[at + 27 : at + 27 + segments])
    assert flags == [2, *[0] * (len(flags) - 2), 4]  # the first, and the last, of the stream
    assert len(body) > 60_000 * 5  # or else it tells nothing


@pytest.mark.parametrize("rate", [65_536, 65_539, 100_001])
def test_what_flac_cannot_hold_is_refused(rate: int) -> None:
    assert "whole tens of hertz" in str(FLAC.refusal(rate))
    with pytest.raises(ValueError, match=f"{rate} is no rate"):
        FLAC.encoder(rate, 1, BITRATE)


@pytest.mark.parametrize("rate", [4_000, 65_535, 65_540, 88_200, 192_000])
def test_what_flac_can_hold_is_not(rate: int) -> None:
    assert FLAC.refusal(rate) is None
    assert parse_streaminfo(encoded(FLAC, voices(8_000, 1), rate)).sample_rate == rate


def test_without_pyav_opus_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingCodec) as raised:
        OPUS.encoder(24_000, 1, BITRATE)
    assert raised.value.hint == "pip install 'bot-recorder[opus]'"


def test_an_encoder_that_is_given_up_leaves_nothing_open() -> None:
    for codec in (FLAC, OPUS):
        encoder = codec.encoder(24_000, 2, BITRATE)
        encoder.write(voices(24_000, 2))
        encoder.abandon()
        encoder.abandon()


# -- files that are none -------------------------------------------------------------------------


def test_a_flac_head_cut_anywhere_is_refused() -> None:
    head = encoded(FLAC, voices(8_000, 1), 8_000)[:42]
    for length in range(len(head)):
        with pytest.raises(InvalidFlac):
            parse_streaminfo(head[:length])
    with pytest.raises(InvalidFlac, match="begin with STREAMINFO"):
        parse_streaminfo(head[:4] + b"\4" + head[5:])


def test_an_opus_head_cut_anywhere_is_refused() -> None:
    head = encoded(OPUS, voices(8_000, 1), 8_000)[:47]
    for length in range(len(head)):
        with pytest.raises(InvalidOpus):
            parse_opus_head(head[:length])


def test_the_end_of_an_opus_file_is_its_last_page_and_nothing_else() -> None:
    body = encoded(OPUS, voices(8_000, 1), 8_000)
    serial = parse_opus_head(body).serial
    good = last_granule(body, serial)
    last = body.rfind(b"OggS")
    assert good == struct.unpack_from("<q", body, last + 6)[0]
    for damaged in (b"", body[:-1], body + b"\0", body[:last], body[:last] + body[last + 1 :]):
        with pytest.raises(InvalidOpus):
            last_granule(damaged, serial)
    with pytest.raises(InvalidOpus):
        last_granule(body, serial + 1)
    # A page's mark within a packet is no page.
    assert last_granule(body[:last] + b"OggS" + body[last:], serial) == good
