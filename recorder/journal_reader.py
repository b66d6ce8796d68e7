"""Reads the journal: the same beside a living writer and after its death."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recorder.journal_format import (
    END_OF_SEGMENT,
    HEADERS,
    MAGIC,
    SEGMENT_BYTES,
    SLOTS,
    TABLE_AT,
    Rows,
    fieldless,
    sound,
)
from recorder.mapped import Mapped
from recorder.quota import SpoolQuota
from recorder.records import Record, placed, record_of
from recorder.segments import SPARE, Segment, segment_path


class JournalReader:
    """Reads committed records in order, from wherever it left off.

    Args:
        folder: Where segments are.
        segment: Number of the segment to begin in.
        slot: Header in its table to begin at.
        mapped: What the writer in this process has mapped, if there is one.
    """

    def __init__(
        self, folder: Path, segment: int = 1, slot: int = 0, *, mapped: Mapped | None = None
    ) -> None:
        self._folder = folder
        self._mapped = mapped or Mapped()
        self.segment = segment
        self.slot = slot
        self._stopped = False

    def stop(self) -> None:
        """Read no further: what follows is damaged. Segments can still be viewed."""
        self._stopped = True

    def batches(self) -> Iterator[Rows]:
        """Yield the records committed since the last call, as rows of `recorder.records.PLACED`.

        Raises:
            ValueError: A segment is damaged; what comes before the damage was yielded.
        """
        while not self._stopped:
            view = self.view(self.segment)
            if view is None:
                return
            magic = bytes(view[: len(MAGIC)])
            if magic != MAGIC:
                if any(magic):
                    raise ValueError(f"segment {self.segment} is none of this version")
                return  # allocated, and no more
            rows, ended = _committed(view, self.slot)
            if count := len(rows):
                good = sound(rows, self.segment)
                whole = count if good.all() else int(good.argmin())
                first, self.slot = self.slot, self.slot + whole
                if whole:
                    yield placed(rows[:whole], self.segment, first)
                if whole < count:
                    raise ValueError(
                        f"damaged record in segment {self.segment}, number {self.slot}"
                    )
            if not ended or not segment_path(self._folder, self.segment + 1).exists():
                return
            self.segment += 1
            self.slot = 0

    def read(self) -> Iterator[Record]:
        """Yield the same one by one.

        Raises:
            ValueError: A segment is damaged.
        """
        for rows in self.batches():
            yield from map(record_of, rows)

    def view(self, number: int) -> memoryview | None:
        """Return the bytes of a segment, or None if it is not there (yet, or any more)."""
        segment = self._mapped.get(number)
        if segment is None:
            path = segment_path(self._folder, number)
            try:
                segment = Segment(path, create=False)
            except FileNotFoundError:
                return None
            self._mapped.add(number, segment)
        return segment.view

    def drop_before(self, number: int, quota: SpoolQuota, *, spares: int = 0) -> None:
        """Unmap the segments before `number`, and let them go: all in them is in sealed chunks.

        Args:
            number: The first that is still needed.
            quota: Gets back their bytes.
            spares: So many files, at most, are kept to be used again by the writer: to allocate
                one costs more than all that is copied into it.
        """
        spare = list(self._folder.glob(f"*{SPARE}"))
        for path in sorted(self._folder.glob("*.journal")):
            if int(path.stem) >= number:
                break
            if len(spare) < spares:
                spare.append(path.with_suffix(SPARE))
                self._mapped.spare(int(path.stem), spare[-1])  # before it can be taken again
                path.rename(spare[-1])
            else:
                self._mapped.drop(int(path.stem))
                path.unlink(missing_ok=True)
                quota.give(SEGMENT_BYTES)
        for path in spare[spares:]:
            if (mapping := self._mapped.take_spare(path)) is not None:
                mapping.close()
            with contextlib.suppress(FileNotFoundError):  # in use again
                path.unlink()
                quota.give(SEGMENT_BYTES)

    def close(self) -> None:
        """Unmap all segments. Idempotent, and from several threads at once."""
        self._mapped.close()


def _committed(view: memoryview, slot: int) -> tuple[Rows, bool]:
    """Return the headers in a segment from a slot on, and whether there will be no more."""
    table = np.frombuffer(view, HEADERS, SLOTS, TABLE_AT)[slot:]
    # The commit words first: what is committed then is whole in what is copied after.
    commit = table["commit"].copy()
    empty = (commit == 0) | (commit == END_OF_SEGMENT)
    count = int(empty.argmax()) if empty.any() else len(table)
    ended = count == len(table) or bool(commit[count] == END_OF_SEGMENT)
    return fieldless(table[:count]).copy().view(HEADERS), ended
