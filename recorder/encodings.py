"""Telephony's sample encodings as 16-bit PCM: by tables that libsndfile makes."""

from __future__ import annotations

import io
from functools import cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import soundfile

Encoding = Literal["pcm16", "mulaw", "alaw"]
"""`pcm16`: 16-bit little-endian. `mulaw`, `alaw`: ITU-T G.711, 8 bits a sample."""

ENCODINGS: tuple[str, ...] = get_args(Encoding)

_SUBTYPES = {"mulaw": "ULAW", "alaw": "ALAW"}


def decoded(data: bytes | memoryview, encoding: str) -> memoryview:
    """Return encoded samples as 16-bit little-endian PCM.

    Raises:
        KeyError: The encoding is not known.
    """
    samples = _table(encoding)[np.frombuffer(data, dtype=np.uint8)]
    return samples.data.cast("B")


@cache
def _table(encoding: str) -> npt.NDArray[np.int16]:
    """Return what each byte means."""
    every_byte = io.BytesIO(bytes(range(256)))
    samples, _ = soundfile.read(
        every_byte,
        dtype="int16",
        samplerate=8000,
        channels=1,
        format="RAW",
        subtype=_SUBTYPES[encoding],
    )
    return np.asarray(samples, dtype="<i2")
