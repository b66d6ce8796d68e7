"""Parts of an upload that another owner, or an earlier process, began: what there is of use.

Nothing is sent under a number before what the store holds there has been compared with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping

from uploader.parts import PartDiffers, PartRange
from uploader.source import ManyFoldSource, Source
from uploader.store import Body, Part

_MD5 = re.compile(r"[0-9a-f]{32}")


class FoundParts:
    """What the store holds of an adopted upload, and is still to be compared.

    Args:
        key: The object's key.
        part_bytes: Size of every part but the last.
        source: The object's bytes.
    """

    def __init__(self, key: str, part_bytes: int, source: Source) -> None:
        self._key = key
        self._part_bytes = part_bytes
        self._source = source
        self._parts: dict[int, Part] = {}

    def sort(self, listed: Iterable[Part], known: Mapping[int, Part]) -> dict[int, Part]:
        """Return the parts that count as sent, and keep the others to be compared.

        Known parts that are still there count, but for part 1 and what is not a whole part: those
        depend on a length that may not have been the last word.

        Args:
            listed: Parts the store holds.
            known: Parts that were acknowledged, with ETags and checksums.
        """
        held = {part.number: part for part in listed}
        for number, part in known.items():
            if number in held and held[number].etag == part.etag:
                held[number] = part
        sent = {
            number: part
            for number, part in held.items()
            if part is known.get(number) and number > 1 and part.size == self._part_bytes
        }
        self._parts = {number: part for number, part in held.items() if number not in sent}
        return sent

    async def compare(self, part: PartRange, body: Body, checksum: int) -> Part | None:
        """Return what the store holds under a part's number, if it is this; None to send it.

        Raises:
            PartDiffers: It is something else, or might be.
        """
        found = self._parts.get(part.number)
        if found is None:
            return None
        same = await asyncio.to_thread(_is_same, found, body, checksum)
        whole = part.number > 1 and part.size == self._part_bytes
        if same is None and whole and not isinstance(self._source, ManyFoldSource):
            return None  # a whole part is the same bytes whoever sent it: sent again, no harm
        if not same:
            raise PartDiffers(f"part {part.number} of {self._key} in the store has other bytes")
        return found

    def settle(self, number: int) -> None:
        """Take note that a part is acknowledged: what was found under its number is no matter."""
        self._parts.pop(number, None)

    def clear(self) -> None:
        """Forget all: another upload takes this one's place."""
        self._parts = {}


def _is_same(found: Part, body: Body, checksum: int) -> bool | None:
    """Return whether a part in the store is these bytes; None where it does not tell."""
    if found.size != len(body):
        return False
    if found.checksum is not None:
        return found.checksum == checksum
    if _MD5.fullmatch(found.etag):
        # Not for a part that is encrypted with a key of KMS: its ETag is no digest, and differs.
        return found.etag == hashlib.md5(body, usedforsecurity=False).hexdigest() or None
    return None
