"""Sound files decoded in blocks: 16-bit samples, each where the file's own clock has it.

What libsndfile reads to the sample (WAV, FLAC, AIFF, MP3) is read by it. Everything else (WebM,
MP4, Ogg, ...) is FFmpeg's, through PyAV of the extra `import`, with the time of each packet: a
microphone that was muted leaves a hole in such a file, not silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from recorder.frame_limits import MAX_CHANNELS, MAX_RATE, MIN_RATE
from recorder.imports.wholeness import is_cut_off
from recorder.layouts import Samples
from recorder.names import shown
from uploader.errors import BotRecorderError

SHORT_SECONDS = 0.5
"""How much less than a file promises may be in it: encoders round up to whole packets."""

MAX_SECONDS = 72 * 3600.0
"""Longest file: what lies further apart are times that make no sense."""

_HINT = "get the file anew, or see what `ffmpeg -v error -i FILE -f null -` says of it"


class UnreadableSource(BotRecorderError, ValueError):
    """A file cannot be imported: it is no audio, damaged, cut off, or empty."""


class Audio(Protocol):
    """An open sound file.

    Attributes:
        sample_rate: Hertz.
        channels: How many.
        codec: As its decoder calls it.
        start_seconds: Where its first sample is on the file's own clock.
        created: When it says it was made.
        claimed: Samples of each channel that it says it has; None if it does not say.
    """

    sample_rate: int
    channels: int
    codec: str
    start_seconds: float
    created: datetime | None
    claimed: int | None

    def blocks(self) -> Iterator[tuple[int, Samples]]:
        """Yield samples of shape (samples, channels), and how many samples behind the first.

        Positions never go back; where one is ahead of the block before, nothing is between them.
        """
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a file came to, decoded from its beginning to its end.

    Attributes:
        sample_rate: Hertz.
        channels: How many.
        codec: As its decoder calls it.
        samples: Of each channel, holes included.
        start_seconds: Where its first sample is on the file's own clock.
        created: When it says it was made.
    """

    sample_rate: int
    channels: int
    codec: str
    samples: int
    start_seconds: float
    created: datetime | None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples / self.sample_rate


def open_audio(path: Path, name: str) -> Audio:
    """Open a sound file.

    Args:
        path: Where it is.
        name: What messages call it.

    Raises:
        UnreadableSource: It is none that can be read.
    """
    from recorder.imports.sndfile_audio import SndfileAudio

    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadableSource(f"cannot read {shown(name, 4096)}: {error.strerror}") from error
    if not size:
        raise UnreadableSource(f"{shown(name, 4096)} is empty", hint="get the file anew")
    audio: Audio | None = None
    if SndfileAudio.knows(path):
        audio = SndfileAudio.open(path, name)
    if audio is None:
        try:
            from recorder.imports.av_audio import AvAudio
        except ModuleNotFoundError as error:
            raise UnreadableSource(
                f"{shown(name, 4096)} is no WAV, FLAC, AIFF or MP3 file",
                hint="for WebM, MP4, Ogg and others: pip install 'bot-recorder[import]'",
            ) from error
        audio = AvAudio.open(path, name)
    rate, channels = audio.sample_rate, audio.channels
    if not MIN_RATE <= rate <= MAX_RATE or not 1 <= channels <= MAX_CHANNELS:
        audio.close()
        raise UnreadableSource(
            f"{shown(name, 4096)} has {channels} channels at {rate} Hz",
            hint=f"allowed are 1 to {MAX_CHANNELS} channels at {MIN_RATE} to {MAX_RATE} Hz",
        )
    return audio


def measure(path: Path, name: str) -> Measured:
    """Decode a file to its end and return what is in it: nothing is begun for one that is broken.

    Raises:
        UnreadableSource: It cannot be decoded, ends before it says it does, or is empty.
    """
    audio = open_audio(path, name)
    try:
        if is_cut_off(path):
            raise UnreadableSource(f"{shown(name, 4096)} is cut off", hint=_HINT)
        end = 0
        for position, block in audio.blocks():
            end = position + len(block)
            if end > MAX_SECONDS * audio.sample_rate:
                hours = f"{MAX_SECONDS / 3600:g} hours"
                raise broken(name, f"the times in it go beyond {hours}")
        if not end:
            raise UnreadableSource(f"{shown(name, 4096)} has no audio in it", hint=_HINT)
        missing = (audio.claimed or 0) - end
        if missing > SHORT_SECONDS * audio.sample_rate:
            raise UnreadableSource(
                f"{shown(name, 4096)} is cut off: the last {missing / audio.sample_rate:.2f} s "
                "that it names are not there",
                hint=_HINT,
            )
        return Measured(
            audio.sample_rate,
            audio.channels,
            audio.codec,
            end,
            audio.start_seconds,
            audio.created,
        )
    finally:
        audio.close()


def broken(name: str, reason: object) -> UnreadableSource:
    """Return the error for a file that a decoder refuses."""
    return UnreadableSource(f"{shown(name, 4096)} cannot be decoded: {reason}", hint=_HINT)
