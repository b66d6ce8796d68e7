"""What an object should be, and what is learned of it from its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recorder.containers import Codec
from recorder.containers.wav import InvalidWav, WavInfo, parse_header
from recorder.outputs import OutputSpec
from recorder.render import Samples
from recorder.verification.report import Kind, Proof
from recorder.waveform import Waveform
from uploader.checksum import combine, crc64nvme, encode

_HEADER_BYTES = 4096  # a header, whatever other programs put before the samples


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object as its manifest describes it; None is what the manifest does not tell.

    Attributes:
        kind: What it is of.
        key: Where it is.
        bytes: Its size.
        checksum: CRC-64/NVME of its bytes.
        samples: Of each channel.
        channels: How many.
        sample_rate: Hz.
        metadata: What is told beside it. What an object lacks is passed over, but for its
            recording's id.
        spec: What its samples are made of; None for a chunk.
        first_sample: Its place among the recording's samples.
        silent: Ranges of its samples that must be digital silence.
        codec: Its format, if it is compressed.
    """

    kind: Kind
    key: str
    bytes: int | None
    checksum: int | None
    samples: int | None
    channels: int
    sample_rate: int
    metadata: Mapping[str, str]
    spec: OutputSpec | None = None
    first_sample: int = 0
    silent: Sequence[tuple[int, int]] = ()
    codec: Codec | None = None

    @property
    def kind_of_file(self) -> str:
        """What its header must be one of."""
        return "a WAV file of 16-bit PCM" if self.codec is None else self.codec.described

    @property
    def coded_samples(self) -> int | None:
        """Samples of each channel, as the file counts them."""
        if self.codec is None or self.samples is None:
            return self.samples
        return self.codec.coded(self.samples, self.sample_rate)[0]

    @property
    def coded_rate(self) -> int:
        """The rate at which the file counts them, Hz."""
        return self.codec.coded(0, self.sample_rate)[1] if self.codec else self.sample_rate


@dataclass
class Scan:
    """What is learned of an object from its bytes, in the order they come.

    Attributes:
        silent: Ranges of samples that must be digital silence.
        size: Bytes so far.
        checksum: CRC-64/NVME of them.
        info: Its header; None if that is none.
        problem: Why it is none.
        sounds: The first sample that should be silent and is not.
        samples: Whole frames so far.
        waveform: Has all frames added, if there is one.
        undecoded: Why what is behind the header is not what it says; empty if it is.
    """

    silent: Sequence[tuple[int, int]] = ()
    size: int = 0
    checksum: int = 0
    info: WavInfo | None = None
    problem: str = "there are no bytes"
    sounds: int | None = None
    samples: int = 0
    waveform: Waveform | None = None
    undecoded: str = ""
    _header: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> Samples | None:
        """Take the next bytes; return their frames, shape (frames, channels), if it is audio."""
        body = memoryview(data)
        if self.size == 0:
            try:
                self.info = parse_header(data[:_HEADER_BYTES])
                self._header = crc64nvme(data[: self.info.data_offset])
                body = body[self.info.data_offset :]
            except InvalidWav as error:
                self.problem = str(error)
        self.size += len(data)
        self.checksum = crc64nvme(data, self.checksum)
        if self.info is None:
            return None
        width = 2 * self.info.channels
        joined = self._rest + bytes(body) if self._rest else body
        whole = len(joined) // width * width
        self._rest = bytes(joined[whole:])
        frames = np.frombuffer(joined[:whole], dtype="<i2").reshape(-1, self.info.channels)
        self._hear(frames)
        return frames

    def holds(self, checksum: int, length: int) -> bool:
        """Return whether its samples are the `length` bytes that have this checksum."""
        if self.info is None:
            return True  # that it is no such file is told elsewhere
        whole = combine([(self._header, self.info.data_offset), (checksum, length)])
        return whole == self.checksum

    def decode(self) -> None:
        """Take note that all bytes have come."""

    def close(self) -> None:
        """Let go of what is held."""

    def proof(self, wanted: Wanted, *, rendered: bool = False) -> Proof:
        """Return what is proved of an object that is what it should be."""
        return Proof(
            key=wanted.key,
            kind=wanted.kind,
            bytes=self.size,
            samples=self.samples,
            sample_rate=wanted.coded_rate,
            checksum=encode(self.checksum),
            compared=wanted.checksum is not None,
            rendered=rendered,
        )

    def _hear(self, frames: Samples) -> None:
        """Take note of the next frames."""
        self._listen(frames)
        channels = frames.shape[1]
        if self.waveform is not None and self.waveform.shape.channels == channels:
            self.waveform.add(frames, self.samples)
        self.samples += len(frames)

    def _listen(self, frames: Samples) -> None:
        for start, end in self.silent:
            if self.sounds is not None:
                return
            first = max(start, self.samples)
            heard = frames[first - self.samples : max(0, end - self.samples)].any(axis=1)
            if heard.any():
                self.sounds = first + int(heard.argmax())
