"""An object of the store as a file that a blocking library reads, wherever in it that library goes.

Bytes are fetched in blocks as they are asked for, and the last few are held: who reads from one end
to the other fetches each block once, and who goes to a place in the middle fetches what lies there.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict

from recorder.at_rest import AtRest
from uploader.checksum import combine, crc64nvme

BLOCK_BYTES = 512 * 1024
"""Fetched at a time: more would make a search in a file dearer, less a whole one slower."""

_HELD_BLOCKS = 3  # where a reader is, where it looks ahead, and the one it comes back to
HELD_BYTES = (_HELD_BLOCKS + 1) * BLOCK_BYTES
"""Most that is held, with the block that is on its way."""


class ObjectFile:
    """Has what `soundfile` asks of a file. For one worker thread, while the event loop runs.

    Nothing is raised into the library that reads, which would not pass it on: it reads as if the
    file ended, and `check` raises.

    Args:
        rest: The recording, in whose event loop this is made.
        key: The object.
        size: Its bytes.
    """

    def __init__(self, rest: AtRest, key: str, size: int) -> None:
        self._rest = rest
        self._key = key
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._at = 0
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._sums: dict[int, int] = {}
        self._error: BaseException | None = None
        self._fetching: asyncio.Task[bytes] | None = None
        self._stopped = False

    def readinto(self, target: memoryview) -> int:
        """Fill `target` from where the file is; return how many bytes there were."""
        filled = 0
        try:
            while filled < len(target) and self._at < self._size and self._error is None:
                index, begin = divmod(self._at, BLOCK_BYTES)
                part = self._block(index)[begin : begin + len(target) - filled]
                target[filled : filled + len(part)] = part
                filled += len(part)
                self._at += len(part)
        except BaseException as error:  # of whatever kind: `check` raises it
            self._error = error
        return filled

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere; see `io.IOBase.seek`."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        """Return where the file is."""
        return self._at

    def check(self) -> None:
        """Raise what kept bytes from being read, if anything did.

        Raises:
            BotRecorderError: The object has fewer bytes.
            StoreError: The store refuses, or does not answer.
        """
        if self._error is not None:
            raise self._error

    def checksum(self) -> int:
        """Return the CRC-64/NVME of the whole object, fetching what was not read so far.

        Raises:
            BotRecorderError: The object has fewer bytes.
            StoreError: The store refuses, or does not answer.
        """
        blocks = range(-(-self._size // BLOCK_BYTES))
        for index in blocks:
            if index not in self._sums:
                self._block(index)
        return combine((self._sums[index], self._length(index)) for index in blocks)

    def stop(self) -> None:
        """Let a read that waits for the store end at once; called in the event loop."""
        self._stopped = True
        if self._fetching is not None:
            self._fetching.cancel()

    def _length(self, index: int) -> int:
        return min(BLOCK_BYTES, self._size - index * BLOCK_BYTES)

    def _block(self, index: int) -> bytes:
        body = self._held.get(index)
        if body is None:
            body = asyncio.run_coroutine_threadsafe(self._fetch(index), self._loop).result()
            self._sums.setdefault(index, crc64nvme(body))
            self._held[index] = body
            if len(self._held) > _HELD_BLOCKS:
                self._held.popitem(last=False)
        self._held.move_to_end(index)
        return body

    async def _fetch(self, index: int) -> bytes:
        if self._stopped:
            raise asyncio.CancelledError
        begin = index * BLOCK_BYTES
        self._fetching = asyncio.ensure_future(
            self._rest.get(self._key, begin, begin + self._length(index))
        )
        return await self._fetching
