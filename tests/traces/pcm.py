"""Samples as the bytes a source sends."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from traces.trace import Encoding
from traces.voice import Signal

_BIAS, _CLIP = 132, 32635


def encode(signal: Signal, channels: int, encoding: Encoding, spread: Signal | None) -> bytes:
    """Return interleaved bytes; channels differ by `spread`, and their mean is the signal."""
    if channels == 1 or spread is None:
        frames = np.repeat(signal[:, None], channels, axis=1)
    else:
        sides = np.resize([1.0, -1.0], channels)
        sides[-1] *= 1 - channels % 2  # an odd one out is the signal itself
        frames = signal[:, None] + spread[:, None] * sides[None, :]
    samples = np.rint(frames).astype("<i2")
    if encoding == "pcm16":
        return samples.tobytes()
    return (_mulaw(samples) if encoding == "mulaw" else _alaw(samples)).tobytes()


def _mulaw(samples: NDArray[np.int16]) -> NDArray[np.uint8]:
    """G.711 mu-law."""
    wide = samples.astype(np.int32)
    sign = np.where(wide < 0, 0x80, 0)
    size = np.minimum(np.abs(wide), _CLIP) + _BIAS
    exponent = np.floor(np.log2(size)).astype(np.int32) - 7
    mantissa = (size >> (exponent + 3)) & 0x0F
    return (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)


def _alaw(samples: NDArray[np.int16]) -> NDArray[np.uint8]:
    """G.711 A-law."""
    wide = samples.astype(np.int32) >> 3
    sign = np.where(wide >= 0, 0x80, 0)
    size = np.minimum(np.where(wide >= 0, wide, -wide - 1), 0xFFF)
    exponent = np.maximum(np.floor(np.log2(np.maximum(size, 1))).astype(np.int32) - 4, 0)
    mantissa = np.where(exponent > 0, size >> exponent, size >> 1) & 0x0F
    return ((sign | (exponent << 4) | mantissa) ^ 0x55).astype(np.uint8)


def decode(pcm: bytes, encoding: Encoding) -> bytes:
    """Return bytes as 16-bit PCM, as a serializer of telephony hands them on."""
    if encoding == "pcm16":
        return pcm
    return _decoder(encoding)[np.frombuffer(pcm, np.uint8)].astype("<i2").tobytes()


@lru_cache
def _decoder(encoding: Encoding) -> NDArray[np.int16]:
    """Return the middle of the samples that each byte stands for."""
    samples = np.arange(-32768, 32768).astype("<i2")
    codes = _mulaw(samples) if encoding == "mulaw" else _alaw(samples)
    wide = samples.astype(np.float64)
    sums = np.bincount(codes, wide, 256) / np.maximum(np.bincount(codes, minlength=256), 1)
    return np.rint(sums).astype(np.int16)
