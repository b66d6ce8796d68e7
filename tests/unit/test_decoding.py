"""Compressed objects under verification: whatever contradicts itself in them is found."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from recorder.containers import Codec
from recorder.containers.flac import FLAC
from recorder.containers.opus import OPUS
from recorder.verification.decoding import EncodedScan
from uploader.checksum import crc64nvme

RATE, SAMPLES = 8_000, 70_000
NOISE = np.random.default_rng(6).integers(-9_000, 9_000, (SAMPLES, 2), dtype=np.int16)
NOISE[20_000:24_000] = 0


def made(codec: Codec) -> bytes:
    encoder = codec.encoder(RATE, 2, 24_000)
    body, ending = encoder.write(NOISE), encoder.close()
    body += ending.data
    return ending.head + body[len(ending.head) :]


@pytest.fixture
def scans() -> Iterator[list[EncodedScan]]:
    """To be closed."""
    found: list[EncodedScan] = []
    yield found
    for scan in found:
        scan.close()


def scanned(
    scans: list[EncodedScan], codec: Codec, body: bytes, silent: tuple[tuple[int, int], ...] = ()
) -> EncodedScan:
    scan = EncodedScan(codec, silent)
    scans.append(scan)
    for start in range(0, len(body), 10_000):
        assert scan.feed(body[start : start + 10_000]) is None
    scan.decode()
    return scan


@pytest.mark.parametrize("codec", [FLAC, OPUS])
def test_a_good_object_tells_what_it_is(scans: list[EncodedScan], codec: Codec) -> None:
    body = made(codec)
    scan = scanned(scans, codec, body)
    assert scan.info is not None
    assert (scan.info.samples, scan.info.sample_rate, scan.info.channels) == (SAMPLES, RATE, 2)
    assert (scan.samples, scan.undecoded, scan.problem) == (SAMPLES, "", "there are no bytes")
    assert (scan.size, scan.checksum) == (len(body), crc64nvme(body))


def test_samples_are_compared_with_what_the_chunks_make(scans: list[EncodedScan]) -> None:
    scan = scanned(scans, FLAC, made(FLAC))
    assert scan.holds(crc64nvme(NOISE.tobytes()), NOISE.nbytes)
    assert not scan.holds(crc64nvme(NOISE[1:].tobytes()), NOISE.nbytes)
    found = np.concatenate(list(scan.frames(100, 69_000)))
    np.testing.assert_array_equal(found, NOISE[100:69_000])


def test_samples_that_are_not_those_of_the_md5_are_found(scans: list[EncodedScan]) -> None:
    body = bytearray(made(FLAC))
    body[30] ^= 1
    assert "MD5" in scanned(scans, FLAC, bytes(body)).undecoded
    body[26:42] = bytes(16)  # not computed: that is allowed, and nothing to compare with
    assert scanned(scans, FLAC, bytes(body)).undecoded == ""


@pytest.mark.parametrize("codec", [FLAC, OPUS])
def test_a_cut_off_object_does_not_hold_what_its_header_tells(
    scans: list[EncodedScan], codec: Codec
) -> None:
    body = made(codec)
    scan = scanned(scans, codec, body[: len(body) // 2])
    whole = scan.info is not None and not scan.undecoded and scan.samples == SAMPLES
    assert not whole


@pytest.mark.parametrize("codec", [FLAC, OPUS])
def test_another_kind_of_file_is_none(scans: list[EncodedScan], codec: Codec) -> None:
    other = made(OPUS if codec is FLAC else FLAC)
    for body in (other, b"", b"RIFF"):
        scan = scanned(scans, codec, body)
        assert scan.info is None
        assert scan.problem


def test_flac_of_other_bits_is_none_of_ours(scans: list[EncodedScan]) -> None:
    file = io.BytesIO()
    soundfile.write(file, NOISE, RATE, format="FLAC", subtype="PCM_24")
    assert "24 bits" in scanned(scans, FLAC, file.getvalue()).problem


def test_what_was_lost_must_be_silent(scans: list[EncodedScan]) -> None:
    assert scanned(scans, FLAC, made(FLAC), ((20_000, 24_000),)).sounds is None
    assert scanned(scans, FLAC, made(FLAC), ((20_000, 24_001),)).sounds == 24_000
    # Of what is lossy, nobody can tell.
    assert scanned(scans, OPUS, made(OPUS), ((20_000, 24_001),)).sounds is None
