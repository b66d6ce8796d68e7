"""What libsndfile decodes to the sample: WAV and its kin, FLAC, AIFF, and MP3."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import soundfile

from recorder.imports.audio import broken
from recorder.layouts import Samples

_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"FORM", b"ID3")
"""What files begin with that are libsndfile's; MP3 may begin with a frame, too."""
#: Whole numbers of at most 16 bits, or what is defined as such: as they are.
_EXACT = ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW")
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""What programs write that do not know how long a file becomes."""


class SndfileAudio:
    """See `recorder.imports.audio.Audio`."""

    start_seconds = 0.0
    created: datetime | None = None

    def __init__(self, name: str, file: soundfile.SoundFile, claimed: int | None) -> None:
        self.sample_rate: int = file.samplerate
        self.channels: int = file.channels
        self.codec = f"{file.format} {file.subtype}".lower()
        self.claimed = claimed
        self._name = name
        self._file = file

    @classmethod
    def knows(cls, path: Path) -> bool:
        """Return whether a file begins as those do that are read here."""
        with path.open("rb") as raw:
            head = raw.read(4)
        # ISO/IEC 11172-3, section 2.4.1.3: eleven bits are set, and the layer is not 0 (ADTS').
        frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06
        return head.startswith(_MAGIC) or bool(frame)

    @classmethod
    def open(cls, path: Path, name: str) -> SndfileAudio:
        """Open a file.

        Raises:
            UnreadableSource: It is not in order.
        """
        try:
            file = soundfile.SoundFile(path)
        except soundfile.LibsndfileError as error:
            raise broken(name, error.error_string) from error
        return cls(name, file, _claimed(path, file))

    def blocks(self) -> Iterator[tuple[int, Samples]]:
        """See `Audio.blocks`; a second at a time."""
        exact = self._file.subtype in _EXACT
        position = 0
        while True:
            try:
                block = self._file.read(
                    self.sample_rate, dtype="int16" if exact else "float32", always_2d=True
                )
            except soundfile.LibsndfileError as error:
                raise broken(self._name, error.error_string) from error
            if not len(block):
                return
            yield position, block if exact else _whole(block)
            position += len(block)

    def close(self) -> None:
        """See `Audio.close`."""
        self._file.close()


def _whole(block: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Samples:
    """Return samples of -1 to 1 as 16-bit ones, rounded to the nearest."""
    scaled = np.rint(np.nan_to_num(block) * 32768)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _claimed(path: Path, file: soundfile.SoundFile) -> int | None:
    """Return how many samples a file's header names: libsndfile tells those that are there.

    WAV: Multimedia Programming Interface and Data Specifications 1.0, "Waveform Audio File Format".
    """
    if file.format not in ("WAV", "WAVEX"):
        return int(file.frames)
    with path.open("rb") as raw:
        if raw.read(4) != b"RIFF":
            return None
        raw.seek(12)
        frame = 0
        while len(head := raw.read(8)) == 8:
            chunk, size = struct.unpack("<4sI", head)
            if chunk == b"data":
                return None if size in _UNKNOWN_SIZES or not frame else size // frame
            body = raw.read(min(size, 16))
            if chunk == b"fmt " and len(body) >= 14:
                (frame,) = struct.unpack_from("<H", body, 12)
            raw.seek(size + size % 2 - len(body), 1)
    return None
