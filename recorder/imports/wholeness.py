"""Whether a container ends where one of its own elements does: decoders do not mind if not.

EBML: RFC 8794, sections 4 to 6; Matroska and WebM: RFC 9559, section 5. Ogg: RFC 3533, section 6.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_OGG = b"OggS"
_OGG_HEADER = 27
_OGG_LONGEST = _OGG_HEADER + 255 + 255 * 255
_BUFFER_BYTES = 256 * 1024


def is_cut_off(path: Path) -> bool:
    """Return whether a WebM, Matroska or Ogg file ends within an element; False of any other.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        size = path.stat().st_size
        magic = file.read(4)
        file.seek(0)
        if magic == _EBML:
            return _ends_in_element(file, size)
        if magic == _OGG:
            return _ends_in_page(file, size)
    return False


def _ends_in_element(file: BinaryIO, size: int) -> bool:
    """Walk over all elements; into segment and clusters, whose size may be open."""
    position = 0
    while position < size:
        file.seek(position)
        found = _vint(file, keep_marker=True)
        length = _vint(file, keep_marker=False) if found is not None else None
        if found is None or length is None:
            return True
        element, id_bytes, _ = found
        amount, length_bytes, unknown = length
        position += id_bytes + length_bytes
        if element in (_SEGMENT, _CLUSTER):
            if not unknown and position + amount > size:
                return True
            continue
        if unknown:  # only these two may have no size
            return True
        position += amount
    return position > size


def _vint(file: BinaryIO, *, keep_marker: bool) -> tuple[int, int, bool] | None:
    """Return a variable-size integer, its length, and whether all of its bits are set."""
    head = file.read(1)
    if not head or not head[0]:
        return None
    length = 9 - head[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(head + rest, "big")
    bare = value & ((1 << 7 * length) - 1)
    return (value if keep_marker else bare), length, bare == (1 << 7 * length) - 1


def _ends_in_page(file: BinaryIO, size: int) -> bool:
    """Look at the last page: what follows its head must be all of it."""
    file.seek(max(0, size - 2 * _OGG_LONGEST))
    tail = file.read()
    at = tail.rfind(_OGG)
    while at >= 0:
        head = tail[at : at + _OGG_HEADER]
        if len(head) < _OGG_HEADER:
            return True
        table = tail[at + _OGG_HEADER : at + _OGG_HEADER + head[26]]
        if head[4] == 0:  # the version: or else it is four bytes of audio that look so
            end = at + _OGG_HEADER + head[26] + sum(table)
            return len(table) < head[26] or end > len(tail)
        at = tail.rfind(_OGG, 0, at)
    return True
