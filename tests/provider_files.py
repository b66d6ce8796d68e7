"""Recordings as providers make them, made here: by ffmpeg, whose decoder is not the one tested."""

from __future__ import annotations

import json
import subprocess
import wave
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]

ALICE = "12f0b87c-97d4-4dd3-a65c-cee1f854a79c"
BOB = "52f7f48b-fbab-431f-9a50-87b9abfc8255"
START_MS = 1_700_000_000_000
"""2023-11-14T22:13:20Z."""


def noise(samples: int, seed: int, channels: int = 1) -> Pcm:
    shape = (samples, channels)
    return np.random.default_rng(seed).integers(-9000, 9000, shape).astype(np.int16)


def speech(rate: int, seconds: float, seed: int) -> Pcm:
    """A sweep with pauses: what lossy codecs keep, and correlation finds the place of."""
    time = np.arange(round(rate * seconds)) / rate
    sweep = np.sin(2 * np.pi * (200 + 60 * seed + 90 * time) * time)
    envelope = np.clip(np.sin(2 * np.pi * (0.9 + 0.13 * seed) * time) + 0.4, 0, 1)
    return (9000 * sweep * envelope).astype(np.int16).reshape(-1, 1)


def write_wav(path: Path, pcm: Pcm, rate: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(pcm.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())
    return path


def read_wav(path: Path) -> Pcm:
    with wave.open(str(path), "rb") as file:
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return found.reshape(-1, file.getnchannels())


def encode(path: Path, pcm: Pcm, rate: int, *words: str) -> Path:
    """Write samples as ffmpeg's `words` say, to `path`, whatever it is called."""
    source = write_wav(path.with_name(f".{path.name}.source"), pcm, rate)
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-y", "-i", str(source), *words, str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    source.unlink()
    return path


def raw_track(
    folder: Path, who: str, pcm: Pcm, begins: float, *, media: str = "cam-audio", clock: bool = True
) -> Path:
    """Write one of Daily's raw tracks: Opus in WebM, as a recorder that streams writes it.

    Args:
        folder: Where to.
        who: The participant.
        pcm: At 48 kHz.
        begins: Seconds after the recording's start; the name says so to within some ms.
        media: Which of the participant's tracks.
        clock: Whether times in the file count from the recording's start.
    """
    name = f"{START_MS}-{who}-{media}-{START_MS + round(begins * 1000) + 13}"
    shift = ["-output_ts_offset", f"{begins:.3f}"] if clock else []
    words = ["-c:a", "libopus", "-b:a", "96k", *shift, "-live", "1", "-f", "webm"]
    return encode(folder / name, pcm, 48_000, *words)


def egress(folder: Path, media: Path, started: float, **also: Any) -> Path:
    """Write the manifest that LiveKit's Egress leaves beside a file; `started` is Unix time."""
    told = {
        "egress_id": f"EG_{media.stem}",
        "room_id": "RM_1",
        "room_name": "doctor",
        "started_at": round(started * 1e9),
        "ended_at": round((started + 10) * 1e9),
        "files": [{"filename": f"out/{media.name}", "location": f"https://b.example/{media.name}"}],
        **also,
    }
    path = folder / f"EG_{media.stem}.json"
    path.write_text(json.dumps(told))
    return path


def lag(heard: Pcm, said: Pcm) -> tuple[int, float]:
    """Return where in `heard` `said` begins, samples, and how alike they are there, up to 1."""
    one, other = heard.astype(np.float64), said.astype(np.float64)
    size = 1 << (len(one) + len(other)).bit_length()
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    at = int(np.fft.irfft(spectrum, size).argmax())
    at = at if at < size // 2 else at - size
    there = one[max(0, at) : max(0, at) + len(other)]
    return at, float(np.corrcoef(there, other[: len(there)])[0, 1])
