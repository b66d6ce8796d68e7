"""What a listener hears on which channel: tracks made into mono, stereo or one track.

Tracks come as planes, an array of 16-bit samples of shape (tracks, samples); interleaved frames
of shape (samples, tracks) serve as `frames.T`, without a copy. Sums saturate: where voices
together are too loud they are limited, never wrapped round to the other sign.

A result may be a view of the input, and is not to be written to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

BOT = "bot"
"""The track that stereo places on the right."""

_BLOCK = 65_536  # samples that are summed at a time: the 32-bit sums stay in the processor's cache


def mix(planes: Samples) -> Samples:
    """Return the sum of all tracks, shape (samples,); silence if there are none."""
    tracks, samples = _shape(planes)
    if tracks == 1:
        return planes[0, :]
    mixed = np.zeros(samples, np.int16)
    _mix_into(mixed, planes)
    return mixed


def stereo(planes: Samples, names: Sequence[str], declared: Sequence[str] = (BOT,)) -> Samples:
    """Return two channels, interleaved: shape (samples, 2).

    Right is the track called `bot`, left the sum of all others. Without a bot, left is the first
    track and right the sum of the rest. A side without a track is silent. A bot that joins when
    there are two tracks already, and was not declared, is one of the rest: nobody who is heard on
    one side moves to the other.

    Args:
        planes: Shape (tracks, samples).
        names: The tracks', in the order they joined.
        declared: The tracks that were known from the beginning.

    Raises:
        ValueError: Not one name for each track.
    """
    tracks, samples = _shape(planes)
    _check_names(tracks, names)
    frames = np.zeros((samples, 2), np.int16)
    left, right = frames[:, 0], frames[:, 1]
    if BOT in names and (BOT in declared or BOT in names[:2]):
        bot = list(names).index(BOT)
        right[:] = planes[bot]
        if bot == tracks - 1:
            _mix_into(left, planes[:bot])
        elif bot == 0:
            _mix_into(left, planes[1:])
        else:
            _mix_into(left, np.delete(planes, bot, axis=0))
    elif tracks:
        left[:] = planes[0]
        _mix_into(right, planes[1:])
    return frames


def stereo_sides(
    names: Sequence[str], declared: Sequence[str] = (BOT,)
) -> tuple[list[int], list[int]]:
    """Return which tracks `stereo` puts on the left and on the right: their indices."""
    if BOT in names and (BOT in declared or BOT in names[:2]):
        bot = list(names).index(BOT)
        return [index for index in range(len(names)) if index != bot], [bot]
    return list(range(len(names)))[:1], list(range(len(names)))[1:]


def is_stereo(names: Sequence[str]) -> bool:
    """Return whether the frames of these tracks, as they are, are what `stereo` makes of them."""
    return len(names) == 2 and names[0] != BOT


def track(planes: Samples, names: Sequence[str], name: str) -> Samples:
    """Return one track, shape (samples,).

    Raises:
        ValueError: Not one name for each track, or none of them is `name`.
    """
    tracks, _ = _shape(planes)
    _check_names(tracks, names)
    if name not in names:
        raise ValueError(f"no track is called {name!r}; there is {', '.join(names) or 'none'}")
    return planes[list(names).index(name), :]


def downmix(frames: Samples) -> Samples:
    """Return the mean of a frame's channels: shape (samples, channels) becomes (samples,).

    Rounded to the nearest, halves to even: no offset is added to the signal.

    Raises:
        ValueError: Not two dimensions, or no channels.
    """
    if frames.ndim != 2 or frames.shape[1] == 0:
        raise ValueError(f"frames have the shape (samples, channels), not {frames.shape}")
    channels = frames.shape[1]
    if channels == 1:
        return frames[:, 0]
    if channels == 2:
        total: npt.NDArray[np.int32] = np.add(frames[:, 0], frames[:, 1], dtype=np.int32)
        total += (total >> 1) & 1  # a half, 0.5 above an odd number, goes up: to the even one
        total >>= 1
        return total.astype(np.int16)
    mean: npt.NDArray[np.float64] = frames.mean(axis=1, dtype=np.float64)
    return np.rint(mean).astype(np.int16)


def _mix_into(output: Samples, planes: Samples) -> None:
    """Write the saturated sum of `planes` to `output`, which is zero before."""
    if len(planes) == 1:
        output[:] = planes[0]
        return
    for start in range(0, output.shape[0] if len(planes) else 0, _BLOCK):
        block = planes[:, start : start + _BLOCK]
        total = np.add(block[0], block[1], dtype=np.int32)
        for plane in block[2:]:
            total += plane
        np.clip(total, -32768, 32767, out=total)
        output[start : start + _BLOCK] = total


def _shape(planes: Samples) -> tuple[int, int]:
    if planes.ndim != 2:
        raise ValueError(f"planes have the shape (tracks, samples), not {planes.shape}")
    return planes.shape[0], planes.shape[1]


def _check_names(tracks: int, names: Sequence[str]) -> None:
    if len(names) != tracks:
        raise ValueError(f"{tracks} tracks, but {len(names)} names: {', '.join(names)}")
