"""Which bytes of an object are which part. Pure.

Every part but the last has the same size (some S3 implementations demand it). Part 1 holds the
object's header, which states the final length, so it can be sent only when the length is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from uploader.errors import BotRecorderError
from uploader.store import MAX_PARTS


class TooManyParts(BotRecorderError):
    """The object needs more parts than S3 allows at this part size."""


class PartDiffers(BotRecorderError):
    """Under a part's number the store holds other bytes: the upload must be made anew.

    Some servers join the older of two bodies that were sent under one number.
    """


@dataclass(frozen=True, slots=True)
class PartRange:
    """Part `number` is the object's bytes [start, end)."""

    number: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def part_range(number: int, part_bytes: int, total: int | None = None) -> PartRange:
    """Return the range of part `number` (from 1); `total` cuts off the last.

    Raises:
        TooManyParts: `number` is above S3's limit.
    """
    if number > MAX_PARTS:
        raise TooManyParts(
            f"the object is longer than {MAX_PARTS} parts of {part_bytes} bytes",
            hint="set RECORDER_PART_BYTES higher for recordings this long",
        )
    end = number * part_bytes
    return PartRange(number, (number - 1) * part_bytes, end if total is None else min(end, total))


def part_count(total: int, part_bytes: int) -> int:
    """Return how many parts an object of `total` bytes has; an empty one has one, empty."""
    return max(1, -(-total // part_bytes))


def whole_parts(available: int, part_bytes: int, after: int) -> list[PartRange]:
    """Return the parts behind part `after` (and behind part 1) that are whole already.

    Args:
        available: Bytes of the object, from its beginning, that will not change any more.
        part_bytes: Size of every part but the last.
        after: Highest part number handed out before; 1 at the beginning.
    """
    last = available // part_bytes
    return [part_range(number, part_bytes) for number in range(max(1, after) + 1, last + 1)]


def tail_parts(total: int, part_bytes: int, after: int) -> list[PartRange]:
    """Return what is left when the length is known: the parts behind `after`, then part 1."""
    last = part_count(total, part_bytes)
    rest = [part_range(number, part_bytes, total) for number in range(max(1, after) + 1, last + 1)]
    return [*rest, part_range(1, part_bytes, total)]
