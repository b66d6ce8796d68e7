"""Whether objects are what they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from contextlib import aclosing

from recorder.verification.decoding import EncodedScan
from recorder.verification.objects import Objects, pieces
from recorder.verification.report import Ledger
from recorder.verification.scan import Scan, Wanted
from recorder.waveform import Waveform
from uploader.checksum import encode
from uploader.completion import RECORDING_ID
from uploader.store import ObjectInfo


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
        """Read an object. What is returned is to be closed.

        Args:
            wanted: What it should be.
            info: What the store says of it.
            waveform: To be filled on the way.

        Raises:
            StoreError: The store refuses, or does not answer.
        """
        scan = Scan(wanted.silent, waveform=waveform)
        if wanted.codec is not None:
            scan = EncodedScan(wanted.codec, wanted.silent, waveform)
        try:
            async with aclosing(self._objects.stream(pieces(wanted.key, info.size))) as stream:
                async for _, data in stream:
                    await asyncio.to_thread(scan.feed, data)
            await asyncio.to_thread(scan.decode)
        except BaseException:
            scan.close()
            raise
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
            return ledger.holds(False, key, "header", wanted.kind_of_file, scan.problem)
        good = ledger.equal(key, "header's sample rate", wanted.coded_rate, header.sample_rate)
        good &= ledger.equal(key, "header's channels", wanted.channels, header.channels)
        if wanted.samples is not None:
            good &= ledger.equal(key, "header's samples", wanted.coded_samples, header.samples)
        good &= ledger.equal(key, "samples behind the header", header.samples, scan.samples)
        if wanted.codec is not None:
            what, broken = "all that the header tells", scan.undecoded
            good &= ledger.holds(not broken, key, "decoded", what, broken)
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
