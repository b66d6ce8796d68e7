import io
import struct
import subprocess
import wave
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from recorder.containers import container, format_names, output_format, wav
from recorder.containers.wav import HEADER_BYTES, InvalidWav, WavInfo, parse_header, wav_header

LIMIT = 0xFFFFFFFF
#: Samples of a mono file whose RIFF size is the last that 32 bits hold.
LARGEST_WAV = (LIMIT - (HEADER_BYTES - 8)) // 2


def noise(samples, channels):
    size = (samples, channels)
    return np.random.default_rng(samples).integers(-32768, 32768, size, dtype="<i2")


def chunks(header):
    """Take a header apart by the specification: name, size and payload of each chunk."""
    found, position = {}, 12
    while position < len(header):
        name, size = struct.unpack_from("<4sI", header, position)
        found[name] = (size, header[position + 8 : position + 8 + size])
        position += 8 + (0 if name == b"data" else size + size % 2)
    return found


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7, 24_001])
@pytest.mark.parametrize("channels", range(1, 9))
def test_header_has_the_true_sizes_of_its_file(samples, channels):
    header = wav_header(samples, 24_000, channels)
    data_bytes = samples * channels * 2
    assert len(header) == HEADER_BYTES == 80
    riff, riff_bytes, form = struct.unpack_from("<4sI4s", header)
    assert (riff, form) == (b"RIFF", b"WAVE")
    assert riff_bytes == HEADER_BYTES + data_bytes - 8
    parts = chunks(header)
    assert list(parts) == [b"JUNK", b"fmt ", b"data"]
    assert parts[b"JUNK"] == (28, bytes(28))
    assert parts[b"data"][0] == data_bytes
    fields = struct.unpack("<HHIIHH", parts[b"fmt "][1])
    assert fields == (1, channels, 24_000, 24_000 * channels * 2, channels * 2, 16)


@pytest.mark.parametrize("samples", [LARGEST_WAV - 1, LARGEST_WAV])
def test_a_file_whose_size_fits_is_a_wav(samples):
    header = wav_header(samples, 24_000, 1)
    assert header[:4] == b"RIFF"
    assert struct.unpack_from("<I", header, 4)[0] == HEADER_BYTES - 8 + samples * 2 <= LIMIT
    assert chunks(header)[b"data"][0] == samples * 2


@pytest.mark.parametrize("samples", [LARGEST_WAV + 1, 2**31, 2**40])
def test_a_larger_file_is_an_rf64(samples):
    header = wav_header(samples, 24_000, 1)
    assert len(header) == HEADER_BYTES
    assert struct.unpack_from("<4sI4s", header) == (b"RF64", LIMIT, b"WAVE")
    parts = chunks(header)
    assert list(parts) == [b"ds64", b"fmt ", b"data"]
    assert parts[b"data"][0] == LIMIT
    size, payload = parts[b"ds64"]
    assert size == 28
    riff_bytes, data_bytes, sample_count, table = struct.unpack("<QQQI", payload)
    assert riff_bytes == HEADER_BYTES - 8 + samples * 2 > LIMIT
    assert (data_bytes, sample_count, table) == (samples * 2, samples, 0)


@pytest.mark.parametrize("channels", range(1, 9))
def test_the_boundary_counts_bytes_not_samples(channels):
    last = (LIMIT - (HEADER_BYTES - 8)) // (2 * channels)
    assert wav_header(last, 48_000, channels)[:4] == b"RIFF"
    assert wav_header(last + 1, 48_000, channels)[:4] == b"RF64"


@pytest.mark.parametrize(
    ("samples", "rate", "channels"),
    [
        (-1, 24_000, 1),
        (0, 0, 1),
        (0, -1, 1),
        (0, 2**31, 1),
        (0, 24_000, 0),
        (0, 24_000, 32_768),
        (2**63, 24_000, 1),
    ],
)
def test_numbers_no_field_can_hold_are_refused(samples, rate, channels):
    with pytest.raises(ValueError, match=r"cannot|not"):
        wav_header(samples, rate, channels)


@pytest.mark.parametrize("samples", [0, 1, LARGEST_WAV, LARGEST_WAV + 1, 2**40])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_headers_are_read_back(samples, channels):
    header = wav_header(samples, 44_100, channels)
    expected = WavInfo(samples, 44_100, channels, HEADER_BYTES)
    assert parse_header(header) == expected
    assert parse_header(bytearray(header) + b"samples") == expected
    assert parse_header(memoryview(header)) == expected


@pytest.mark.parametrize("samples", [0, 1, 3, 24_001])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_python_and_libsndfile_read_what_was_written(samples, channels):
    given = noise(samples, channels)
    file = wav_header(samples, 24_000, channels) + given.tobytes()
    with wave.open(io.BytesIO(file)) as opened:
        assert opened.getparams()[:4] == (channels, 2, 24_000, samples)
        assert opened.readframes(samples + 1) == given.tobytes()
    read, rate = soundfile.read(io.BytesIO(file), dtype="int16", always_2d=True)
    assert rate == 24_000
    np.testing.assert_array_equal(read, given)


def decoded_by_ffmpeg(path: Path) -> tuple[bytes, str]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    done = subprocess.run([*command, "-f", "s16le", "-"], capture_output=True, check=True)
    return done.stdout, done.stderr.decode()


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_ffmpeg_reads_what_was_written(tmp_path, channels):
    given = noise(4801, channels)
    path = tmp_path / "call.wav"
    path.write_bytes(wav_header(4801, 24_000, channels) + given.tobytes())
    samples, log = decoded_by_ffmpeg(path)
    assert samples == given.tobytes()
    assert "24000 Hz" in log
    assert "Invalid" not in log


def test_rf64_is_read_by_libsndfile_and_ffmpeg(tmp_path):
    """A small file with the large file's header: its ds64 chunk names sizes that do fit."""
    given = noise(4801, 2)
    header = bytearray(wav_header(2**31, 24_000, 2))
    struct.pack_into("<QQQ", header, 20, HEADER_BYTES - 8 + given.nbytes, given.nbytes, 4801)
    path = tmp_path / "call.wav"
    path.write_bytes(header + given.tobytes())
    read, rate = soundfile.read(path, dtype="int16")
    assert (rate, soundfile.info(path).format) == (24_000, "RF64")
    np.testing.assert_array_equal(read, given)
    assert decoded_by_ffmpeg(path)[0] == given.tobytes()
    assert parse_header(bytes(header)) == WavInfo(4801, 24_000, 2, HEADER_BYTES)


def test_a_file_over_4_gib_has_its_whole_length_for_others(tmp_path):
    """The file is sparse: only its header and its last samples are on the disk."""
    samples = LARGEST_WAV + 100_000
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(wav_header(samples, 24_000, 1))
        file.truncate(HEADER_BYTES + 2 * samples)
        file.seek(-2, io.SEEK_END)
        file.write(struct.pack("<h", -12345))
    with soundfile.SoundFile(path) as opened:
        assert opened.frames == samples
        opened.seek(samples - 2)
        assert opened.read(5, dtype="int16").tolist() == [0, -12345]


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_of_others_are_read(form, channels):
    file = io.BytesIO()
    soundfile.write(file, noise(77, channels), 16_000, format=form, subtype="PCM_16")
    info = parse_header(file.getvalue())
    assert (info.samples, info.sample_rate, info.channels) == (77, 16_000, channels)
    assert file.getvalue()[info.data_offset :][: 154 * channels] == noise(77, channels).tobytes()


def riff(*parts):
    """Build a file of chunks, each padded to an even length."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in parts
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


FMT = struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16)


def test_chunks_of_others_are_skipped_with_their_padding():
    file = riff((b"LIST", b"odd"), (b"fmt ", FMT), (b"fact", b"1234"), (b"data", b"\1\2\3\4"))
    info = parse_header(file)
    assert info.samples == 2
    assert file[info.data_offset :] == b"\1\2\3\4"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"ID3\4" + bytes(100),
        b"RIFF\0\0\0\0AVI " + bytes(100),
        wav_header(5, 8000, 1)[:-1],
        riff((b"data", b"1234")),
        riff((b"fmt ", FMT[:-2]), (b"data", b"1234")),
        riff((b"fmt ", FMT)),
        riff((b"fmt ", FMT), (b"LIST", b"")),
        riff((b"fmt ", struct.pack("<HHIIHH", 3, 1, 8000, 32_000, 4, 32)), (b"data", b"")),
        riff((b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 24_000, 3, 24)), (b"data", b"")),
        riff((b"fmt ", struct.pack("<HHIIHH", 7, 1, 8000, 8_000, 1, 8)), (b"data", b"")),
        riff((b"fmt ", struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16)), (b"data", b"")),
        riff((b"fmt ", struct.pack("<HHIIHH", 1, 1, 0, 0, 2, 16)), (b"data", b"")),
        riff((b"fmt ", struct.pack("<HHIIHH", 1, 2, 8000, 0, 2, 16)), (b"data", b"")),
        b"RF64" + wav_header(5, 8000, 1)[4:76] + b"\xff\xff\xff\xff",
    ],
)
def test_what_is_no_16_bit_wav_is_refused(data):
    with pytest.raises(InvalidWav) as caught:
        parse_header(data)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).isprintable()


def test_a_header_cut_anywhere_is_refused():
    header = wav_header(2**40, 24_000, 2)
    for length in range(len(header)):
        with pytest.raises(InvalidWav):
            parse_header(header[:length])


def test_wav_is_a_container():
    chosen = container("wav")
    assert (chosen.name, chosen.extension, chosen.media_type) == ("wav", "wav", "audio/wav")
    assert chosen.header_bytes == HEADER_BYTES
    assert chosen.header(5, 8000, 3) == wav.wav_header(5, 8000, 3)


def test_a_container_that_is_not_there_is_named():
    assert format_names() == ("wav", "flac", "opus")
    with pytest.raises(ValueError, match="'flac'; there is wav"):
        container("flac")  # none that holds samples as they are
    with pytest.raises(ValueError, match="'mp3'; there is wav, flac, opus"):
        output_format("mp3")
