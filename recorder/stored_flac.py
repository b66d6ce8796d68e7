"""A FLAC output of a finished recording, as samples: read whole, proved, and decoded.

A decoder goes back and forth in a file, so that the object is in a temporary one meanwhile, which
has no name. Its checksum is compared before the first sample is handed on.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import IO

import numpy as np
import soundfile

from recorder.at_rest import AtRest
from recorder.containers.codecs import Samples
from recorder.containers.flac import FLAC, HEAD_BYTES, InvalidFlac, parse_streaminfo
from uploader.checksum import crc64nvme
from uploader.errors import BotRecorderError

_PIECE_BYTES = 1024**2
_BLOCK = 65_536  # frames decoded at a time


class UnusableFlac(BotRecorderError):
    """An output is not what was recorded."""


async def flac_blocks(
    rest: AtRest, key: str, channels: int, checksum: int | None, start: int, end: int
) -> AsyncGenerator[memoryview, None]:
    """Yield an output's samples [start, end), interleaved, 16 bits, little-endian.

    Args:
        rest: The recording.
        key: Of the output.
        channels: It has.
        checksum: CRC-64/NVME of its bytes; None if the manifest does not tell.
        start: Sample of the output.
        end: The one behind the last.

    Raises:
        UnusableFlac: It has other bytes than were recorded, or holds something else.
        StoreError: It cannot be read.
    """
    with tempfile.TemporaryFile() as file:
        size, found = rest.objects[key].size, 0
        async with aclosing(rest.read(key, 0, size, _PIECE_BYTES)) as pieces:
            async for body in pieces:
                await asyncio.to_thread(file.write, body)
                found = crc64nvme(body, found)
        if checksum not in (None, found):
            raise UnusableFlac(
                f"{key} has other bytes than were recorded: its checksum differs",
                hint="restore it from an older version; nothing was replaced",
            )
        file.seek(0)
        try:
            info = parse_streaminfo(file.read(HEAD_BYTES))
        except InvalidFlac as error:
            raise UnusableFlac(f"{key} does not begin as it was recorded: {error}") from error
        expected = (rest.samples, rest.plan.sample_rate, channels)
        if (info.samples, info.sample_rate, info.channels) != expected:
            raise UnusableFlac(f"{key} does not begin as it was recorded: it is {FLAC.described}")
        while start < end:
            block = await asyncio.to_thread(_decoded, file, start, min(_BLOCK, end - start))
            if not len(block):
                raise UnusableFlac(f"{key} cannot be decoded from sample {start} on")
            yield block.data.cast("B")
            start += len(block)


def _decoded(file: IO[bytes], start: int, count: int) -> Samples:
    file.seek(0)
    with soundfile.SoundFile(file) as decoder:
        decoder.seek(start)
        block = decoder.read(count, dtype="int16", always_2d=True)
    return np.ascontiguousarray(block, dtype="<i2")
