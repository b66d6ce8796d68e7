"""Two decoders that are not ours, which must agree: libsndfile and ffmpeg."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SAMPLES = Path(__file__).parents[1] / "recorder" / "demo" / "samples"
"""Speech that the demo's bot and user say."""

Samples = NDArray[np.int16]


def by_libsndfile(body: bytes) -> tuple[Samples, int]:
    """Return samples, shape (samples, channels), and their rate."""
    audio, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    return np.asarray(audio, np.int16), int(rate)


def by_ffmpeg(body: bytes, channels: int) -> Samples:
    """Return samples, shape (samples, channels), at the rate ffmpeg decodes at; no word of trouble.

    Its raw writer may say that the last frame, of which next to nothing is left, is as late as the
    one before: that is no word about the file.
    """
    command = [FFMPEG, "-v", "error", "-i", "-", "-f", "s16le", "-"]
    run = subprocess.run(command, input=body, capture_output=True, check=True)
    said = [one for one in run.stderr.decode().splitlines() if "non monotonically" not in one]
    assert not said, said
    return np.frombuffer(run.stdout, "<i2").reshape(-1, channels)


def length_by_ffmpeg(body: bytes, folder: Path) -> str:
    """Return the duration that ffmpeg reads from a file's headers, as it says it."""
    path = folder / "file"
    path.write_bytes(body)
    run = subprocess.run([FFMPEG, "-i", str(path)], capture_output=True, check=False)
    found = re.search(r"Duration: ([\d:.]+)", run.stderr.decode())
    assert found is not None, run.stderr
    return found[1]


def dialogue() -> tuple[Samples, int]:
    """Return real speech in two channels, the user's and the bot's, shape (samples, 2); and Hz."""
    said, rate = [], 24_000
    for number in range(1, 4):
        for channel, name in ((1, "bot"), (0, "user")):
            audio, at = soundfile.read(SAMPLES / f"{name}-{number}.wav", dtype="float32")
            spoken = soxr.resample(audio, at, rate)
            turn = np.zeros((len(spoken), 2), np.int16)
            turn[:, channel] = np.clip(np.rint(spoken * 32768), -32768, 32767)
            said.append(turn)
    return np.concatenate(said), rate


def decibels(wanted: Samples, found: Samples) -> float:
    """Return the ratio of a signal to its error."""
    error = wanted.astype(float) - found
    return float(10 * np.log10((wanted.astype(float) ** 2).sum() / (error**2).sum()))
