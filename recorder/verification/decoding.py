"""Compressed objects: what their headers say, and what becomes of them when they are decoded.

Decoded by libsndfile, whatever encoded them. A decoder wants to go back and forth in a file, so
that an object's bytes are kept in a temporary one, without a name, while it is looked at.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import soundfile

from recorder.containers import Codec
from recorder.containers.flac import InvalidFlac, parse_streaminfo
from recorder.containers.opus import (
    CLOCK,
    TAIL_BYTES,
    InvalidOpus,
    last_granule,
    parse_opus_head,
)
from recorder.containers.wav import WavInfo
from recorder.render import Samples
from recorder.verification.scan import Scan
from recorder.waveform import Waveform
from uploader.checksum import crc64nvme

_BLOCK = 65_536  # frames decoded at a time


class EncodedScan(Scan):
    """A `Scan` of a compressed object: its frames are there when all of its bytes are.

    Args:
        codec: Its format.
        silent: Ranges of samples that must be digital silence, where that can be told.
        waveform: To be filled, where it can be.
    """

    def __init__(
        self,
        codec: Codec,
        silent: Sequence[tuple[int, int]] = (),
        waveform: Waveform | None = None,
    ) -> None:
        super().__init__(
            silent if codec.lossless else (), waveform=waveform if codec.lossless else None
        )
        self._codec = codec
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._md5 = b""
        self._sum = 0

    def feed(self, data: bytes) -> Samples | None:
        """Take the next bytes; their frames come later."""
        self._file.write(data)
        self.size += len(data)
        self.checksum = crc64nvme(data, self.checksum)
        return None

    def decode(self) -> None:
        """Take note that all bytes have come: read the header, and decode what is behind it."""
        try:
            self.info = self._told()
        except (InvalidFlac, InvalidOpus) as error:
            self.problem = str(error)
            return
        md5 = hashlib.md5(usedforsecurity=False)
        try:
            for frames in self.frames(0, self.info.samples):
                self._hear(frames)
                self._sum = crc64nvme(frames.data.cast("B"), self._sum)
                md5.update(frames.data)
        except soundfile.LibsndfileError as error:
            self.undecoded = str(error)
            return
        if self._md5 not in (b"", bytes(16), md5.digest()):
            self.undecoded = f"samples of MD5 {md5.hexdigest()} instead of {self._md5.hex()}"

    def frames(self, start: int, end: int) -> Iterator[Samples]:
        """Yield decoded frames [start, end), in blocks of shape (frames, channels).

        Raises:
            LibsndfileError: They cannot be decoded.
        """
        if start >= end:
            return
        self._file.seek(0)
        with soundfile.SoundFile(self._file) as file:
            file.seek(start)
            while start < end:
                block = file.read(min(_BLOCK, end - start), dtype="int16", always_2d=True)
                if not len(block):
                    return
                yield np.ascontiguousarray(block, dtype="<i2")
                start += len(block)

    def holds(self, checksum: int, length: int) -> bool:
        """Return whether its samples are the `length` bytes that have this checksum."""
        return self.info is None or self._sum == checksum

    def close(self) -> None:
        """Let go of the bytes. Idempotent."""
        self._file.close()

    def _told(self) -> WavInfo:
        """Return what the file's beginning, and its end, say of it.

        Raises:
            InvalidFlac: They are not those of such a file.
            InvalidOpus: Likewise.
        """
        self._file.seek(0)
        head = self._file.read(TAIL_BYTES)
        if self._codec.lossless:
            flac = parse_streaminfo(head)
            if flac.bits != 16:
                raise InvalidFlac(f"a FLAC file of {flac.bits} bits")
            self._md5 = flac.md5
            return WavInfo(flac.samples, flac.sample_rate, flac.channels, 0)
        opus = parse_opus_head(head)
        self._file.seek(max(0, self.size - TAIL_BYTES))
        length = last_granule(self._file.read(), opus.serial) - opus.pre_skip
        return WavInfo(length * opus.input_rate // CLOCK, opus.input_rate, opus.channels, 0)
