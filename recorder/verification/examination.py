"""What an object should be, what its bytes say it is, and whether that is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from recorder.containers.wav import InvalidWav, WavInfo, parse_header
from recorder.outputs import OutputSpec
from recorder.render import Samples
from recorder.verification.objects import Objects, pieces
from recorder.verification.report import Kind, Ledger, Proof
from recorder.waveform import Waveform
from uploader.checksum import combine, crc64nvme, encode
from uploader.store import ObjectInfo
from uploader.upload import RECORDING_ID

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


@dataclass(slots=True)
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
    """

    silent: Sequence[tuple[int, int]] = ()
    size: int = 0
    checksum: int = 0
    info: WavInfo | None = None
    problem: str = "there are no bytes"
    sounds: int | None = None
    samples: int = 0
    waveform: Waveform | None = None
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
        self._listen(frames)
        if self.waveform is not None and self.waveform.shape.channels == self.info.channels:
            self.waveform.add(frames, self.samples)
        self.samples += len(frames)
        return frames

    def followed_by(self, checksum: int, length: int) -> int:
        """Return the checksum there is if behind this header come `length` other bytes."""
        if self.info is None:
            return 0
        return combine([(self._header, self.info.data_offset), (checksum, length)])

    def proof(self, wanted: Wanted, *, rendered: bool = False) -> Proof:
        """Return what is proved of an object that is what it should be."""
        return Proof(
            key=wanted.key,
            kind=wanted.kind,
            bytes=self.size,
            samples=self.samples,
            sample_rate=wanted.sample_rate,
            checksum=encode(self.checksum),
            compared=wanted.checksum is not None,
            rendered=rendered,
        )

    def _listen(self, frames: Samples) -> None:
        for start, end in self.silent:
            if self.sounds is not None:
                return
            first = max(start, self.samples)
            heard = frames[first - self.samples : max(0, end - self.samples)].any(axis=1)
            if heard.any():
                self.sounds = first + int(heard.argmax())


class Examiner:
    """Compares objects with what is wanted.

    Args:
        objects: Reads them.
        ledger: Where comparisons are entered.
        listed: The keys that are there: no others are asked for, whatever a manifest names.
        like: Objects by the checksum they should have, to tell of one in another's place.
    """

    def __init__(
        self,
        objects: Objects,
        ledger: Ledger,
        listed: Container[str],
        like: Mapping[int, str],
    ) -> None:
        self._objects = objects
        self._ledger = ledger
        self._listed = listed
        self._like = like

    async def heads(self, wanted: Sequence[Wanted]) -> dict[str, ObjectInfo]:
        """Return what the store says of the objects that are there and worth reading, by key."""
        there = [one for one in wanted if one.key in self._listed]
        found = await asyncio.gather(*(self._objects.head(one.key) for one in there))
        infos = {info.key: info for info in found if info is not None}
        return {
            one.key: infos[one.key] for one in wanted if self._is_there(one, infos.get(one.key))
        }

    def _is_there(self, wanted: Wanted, info: ObjectInfo | None) -> bool:
        ledger, size = self._ledger, wanted.bytes
        expected = "an object" if size is None else f"an object of {size} bytes"
        if not ledger.holds(info is not None, wanted.key, "object", expected, "no object"):
            return False
        if info is None or not (size is None or self._same_size(wanted, info)):
            return False
        for name, value in wanted.metadata.items():
            if name in info.metadata or name == RECORDING_ID:
                ledger.equal(wanted.key, f"metadata {name}", value, info.metadata.get(name))
        return True

    def _same_size(self, wanted: Wanted, info: ObjectInfo) -> bool:
        return self._ledger.equal(wanted.key, "size", wanted.bytes, info.size, "bytes")

    async def scan(
        self, wanted: Wanted, info: ObjectInfo, waveform: Waveform | None = None
    ) -> Scan:
        """Read an object.

        Args:
            wanted: What it should be.
            info: What the store says of it.
            waveform: To be filled on the way.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        scan = Scan(wanted.silent, waveform=waveform)
        async with aclosing(self._objects.stream(pieces(wanted.key, info.size))) as stream:
            async for _, data in stream:
                await asyncio.to_thread(scan.feed, data)
        return scan

    def judge(self, wanted: Wanted, info: ObjectInfo, scan: Scan, where: str = "") -> bool:
        """Enter what an object that was read should be; return whether it is that.

        Args:
            wanted: What it should be.
            info: What the store says of it.
            scan: What was read.
            where: Where its bytes differ, if they do and that is known.
        """
        ledger, key = self._ledger, wanted.key
        if not ledger.equal(key, "bytes read", info.size, scan.size):
            return False
        if not self._checksums(wanted, info, scan, where):
            return False
        header = scan.info
        if header is None:
            return ledger.holds(False, key, "header", "a WAV file of 16-bit PCM", scan.problem)
        good = ledger.equal(key, "header's sample rate", wanted.sample_rate, header.sample_rate)
        good &= ledger.equal(key, "header's channels", wanted.channels, header.channels)
        if wanted.samples is not None:
            good &= ledger.equal(key, "header's samples", wanted.samples, header.samples)
        good &= ledger.equal(key, "samples behind the header", header.samples, scan.samples)
        if scan.silent:
            good &= ledger.holds(
                scan.sounds is None,
                key,
                "samples of lost chunks",
                "silence",
                f"sound at sample {scan.sounds}",
            )
        return good

    def _checksums(self, wanted: Wanted, info: ObjectInfo, scan: Scan, where: str) -> bool:
        said = {"the manifest": wanted.checksum, "the store": info.checksum}
        told = {who: checksum for who, checksum in said.items() if checksum is not None}
        wrong = [who for who, checksum in told.items() if checksum != scan.checksum]
        expected = f"{encode(told[wrong[0]])} of {' and '.join(wrong)}" if wrong else ""
        if len({told[who] for who in wrong}) > 1:
            expected = " and ".join(f"{encode(told[who])} of {who}" for who in wrong)
        found = encode(scan.checksum)
        other = self._like.get(scan.checksum)
        if other is not None and other != wanted.key:
            found += f", which is that of {other}"
        found += f", {where}" if where else ""
        return self._ledger.holds(not wrong, wanted.key, "checksum", expected, found)
