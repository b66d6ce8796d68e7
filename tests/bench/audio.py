"""The calls that are recorded: two tracks, 20 ms frames, of audio that is never silent."""

from __future__ import annotations

import warnings

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pipecat's imports of what Python drops
    from pipecat.frames.frames import InputAudioRawFrame, TTSAudioRawFrame

FRAMES_PER_SECOND = 50
RATE = 24_000
"""Of the recording and of what the bot says; the user's varies."""

DIFFERENT = 64
"""Frames are made ahead, so that making them costs nothing: so many different ones."""


def pcm(sample_rate: int, seed: int) -> list[bytes]:
    """Frames of one speaker."""
    rng = np.random.default_rng(seed)
    size = sample_rate // FRAMES_PER_SECOND
    made = [rng.integers(-3000, 3000, size, dtype=np.int16) for _ in range(DIFFERENT)]
    return [one.astype("<i2").tobytes() for one in made]


def user_frames(sample_rate: int) -> list[InputAudioRawFrame]:
    """What a transport's input sends."""
    return [InputAudioRawFrame(one, sample_rate, 1) for one in pcm(sample_rate, 1)]


def bot_frames() -> list[TTSAudioRawFrame]:
    """What a transport's output hands on."""
    return [TTSAudioRawFrame(one, RATE, 1) for one in pcm(RATE, 2)]
