"""What recordings can be exported as, and how ffmpeg is told so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

FormatName = Literal["mp3", "m4a", "opus", "flac", "wav"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)


@dataclass(frozen=True, slots=True)
class Format:
    """One of them.

    Attributes:
        name: Also the extension of its files.
        media_type: For Content-Type.
        codec: ffmpeg's options of the encoder; none for WAV, which is written without ffmpeg.
        muxer: ffmpeg's options of the container.
        seekable: Whether its header is written last: then the file is made on disk first, so that
            it tells its exact length, and a player can seek in it.
        max_channels: How many it can hold that no decoder takes for surround sound to be mixed.
        min_samples: How few it can hold.
        bitrate: Bits per second for each channel, where that is what a lossy encoder is told.
    """

    name: FormatName
    media_type: str
    codec: tuple[str, ...] = ()
    muxer: tuple[str, ...] = ()
    seekable: bool = False
    max_channels: int = 2
    min_samples: int = 1
    bitrate: int = 0

    @property
    def lossy(self) -> bool:
        """Whether a bit rate can be chosen."""
        return self.name in ("mp3", "m4a", "opus")

    def encoder(self, channels: int, bitrate: int | None) -> Sequence[str]:
        """Return ffmpeg's options of encoder and container."""
        rate = bitrate or self.bitrate * channels
        chosen = ("-b:a", str(rate)) if rate else ()
        if self.name == "mp3" and not rate:
            chosen = ("-q:a", "4")  # variable: what a bit rate may be depends on the sample rate
        return (*self.codec, *chosen, *self.muxer)


FORMATS: dict[FormatName, Format] = {
    one.name: one
    for one in (
        # The Xing header, which tells length, delay and padding, is filled in at the end.
        Format("mp3", "audio/mpeg", ("-c:a", "libmp3lame"), ("-f", "mp3"), seekable=True),
        # The index is written last, and moved to the front.
        Format(
            "m4a",
            "audio/mp4",
            ("-c:a", "aac"),
            ("-movflags", "+faststart", "-f", "ipod"),
            seekable=True,
            bitrate=64_000,
        ),
        # Each page tells its own position, the last one where the audio ends (RFC 7845, section 4).
        Format("opus", "audio/ogg", ("-c:a", "libopus"), ("-f", "opus"), bitrate=32_000),
        # STREAMINFO has the number of samples and their MD5 (RFC 9639, section 8.2), and blocks of
        # 16 samples at least.
        Format(
            "flac",
            "audio/flac",
            ("-c:a", "flac"),
            ("-f", "flac"),
            seekable=True,
            max_channels=8,
            min_samples=16,
        ),
        Format("wav", "audio/wav", max_channels=16),
    )
}
