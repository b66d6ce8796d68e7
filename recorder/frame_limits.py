"""What a frame of audio must be: the rates, channel counts and times that are possible."""

from __future__ import annotations

from recorder.encodings import ENCODINGS
from uploader.errors import BotRecorderError

MIN_RATE, MAX_RATE = 4_000, 384_000
MAX_CHANNELS = 32
MAX_PTS_SECONDS = 9e9
"""Media times are kept as ns in 64 bits."""

MAX_AHEAD_SECONDS = 3600.0
"""How far `at` may lie from now: more is a time of another clock, not of this one."""


class InvalidFrame(BotRecorderError, ValueError):
    """A frame that cannot be audio: an impossible rate, a time of another clock."""


def check_format(sample_rate: int, num_channels: int) -> None:
    """Check a rate and a channel count.

    Raises:
        InvalidFrame: They are not possible.
    """
    if type(sample_rate) is not int or not MIN_RATE <= sample_rate <= MAX_RATE:
        raise InvalidFrame(
            f"sample_rate={sample_rate!r}: must be a whole number of hertz from {MIN_RATE} "
            f"to {MAX_RATE}"
        )
    if type(num_channels) is not int or not 1 <= num_channels <= MAX_CHANNELS:
        raise InvalidFrame(f"num_channels={num_channels!r}: must be 1 to {MAX_CHANNELS}")


def check_encoding(encoding: str) -> None:
    """Check an encoding's name.

    Raises:
        InvalidFrame: There is none of that name.
    """
    if encoding not in ENCODINGS:
        raise InvalidFrame(f"encoding={encoding!r}: must be {', '.join(ENCODINGS)}")


def check_times(now: float, at: float | None, pts: float | None) -> None:
    """Check when a frame is said to have come, and its media time; seconds.

    Raises:
        InvalidFrame: `at` is more than an hour from `now`, or `pts` is no time.
    """
    if at is not None and not abs(at - now) <= MAX_AHEAD_SECONDS:
        raise InvalidFrame(
            f"at={at!r} is not within an hour of now ({now:.3f}): it must be seconds on the "
            "same clock as time.monotonic()"
        )
    if pts is not None and not abs(pts) <= MAX_PTS_SECONDS:
        raise InvalidFrame(f"pts={pts!r}: must be seconds, at most {MAX_PTS_SECONDS:g}")


def check_played(seconds: float) -> None:
    """Check how much was played, seconds.

    Raises:
        InvalidFrame: It is negative, or no number.
    """
    if not 0 <= seconds <= MAX_PTS_SECONDS:
        raise InvalidFrame(f"seconds={seconds!r}: must be 0 or more")
