"""CRC-64/NVME: the checksum S3 keeps for whole objects, combined here from the parts' own.

Amazon S3 User Guide, "Checking object integrity": CRC-64/NVME is always a full-object checksum,
sent base64-encoded, big-endian. awscrt computes and combines it in native code.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from awscrt import checksums


def crc64nvme(data: bytes | bytearray | memoryview, previous: int = 0) -> int:
    """Return the CRC-64/NVME of `data`, going on from `previous`."""
    return int(checksums.crc64nvme(data, previous))


def combine(parts: Iterable[tuple[int, int]]) -> int:
    """Return the checksum of a whole from `(checksum, length in bytes)` of its parts, in order."""
    total = 0
    for checksum, length in parts:
        total = int(checksums.combine_crc64nvme(total, checksum, length))
    return total


def encode(checksum: int) -> str:
    """Return a checksum as S3's header and manifest carry it: base64 of eight big-endian bytes."""
    return base64.b64encode(checksum.to_bytes(8, "big")).decode("ascii")


def decode(text: str) -> int:
    """Return the checksum that `encode` wrote.

    Raises:
        ValueError: Not the base64 of eight bytes.
    """
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 8:
        raise ValueError(f"a CRC-64 has 8 bytes, this has {len(raw)}: {text!r}")
    return int.from_bytes(raw, "big")
