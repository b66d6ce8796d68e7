"""Records that are not decided on yet: as columns for many, as objects where one is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from recorder.journal_format import Rows, fieldless
from recorder.records import PLACED, Record, record_of, row_of

KEPT = 256
"""So many records that are decided on may be kept: to drop each would cost more."""


class Pending:
    """A queue of records, in journal order."""

    def __init__(self) -> None:
        self._rows: Rows = np.empty(0, PLACED)
        self._records: list[Record | None] = []
        self._payloads: list[Any] = []
        self._first = 0
        self._fresh: list[Rows | Record] = []
        """What came after `_rows`, which are made when they are asked for."""

    def append(self, record: Record, payload: Any) -> None:
        """Add one record with its decoded payload."""
        self._fresh.append(record)
        self._records.append(record)
        self._payloads.append(payload)

    def extend(self, rows: Rows, payloads: dict[int, Any]) -> None:
        """Add rows of `recorder.records.PLACED`, with payloads by their index."""
        self._fresh.append(rows)
        self._records += [None] * len(rows)
        before = len(self._payloads)
        self._payloads += [None] * len(rows)
        for index, payload in payloads.items():
            self._payloads[before + index] = payload

    def __len__(self) -> int:
        return len(self._records) - self._first

    @property
    def rows(self) -> Rows:
        """All of them, oldest first. Not to be changed."""
        if self._fresh:
            self._settle()
        return self._rows[self._first :]

    def __getitem__(self, index: int) -> Record:
        """Return the record so far behind the oldest."""
        at = self._first + index
        record = self._records[at]
        if record is None:
            if self._fresh:
                self._settle()
                at = index
            record = self._records[at] = record_of(self._rows[at])
        return record

    def payload(self) -> Any:
        """Return the oldest one's payload."""
        return self._payloads[self._first]

    def later(self) -> Iterator[Record]:
        """Yield the records behind the oldest."""
        if self._fresh:
            self._settle()
        records = self._records
        for at in range(self._first + 1, len(records)):
            record = records[at]
            if record is None:
                record = records[at] = record_of(self._rows[at])
            yield record

    def drop(self, count: int) -> None:
        """Drop so many of the oldest."""
        self._first += count
        most = self._first > KEPT and 2 * self._first > len(self._records)
        if most and not self._fresh:
            self._rows = self._rows[self._first :].copy()  # a view would keep all of them
            self._let_go()

    def copy(self) -> Self:
        """Return another queue of the same records."""
        other = type(self)()
        other._rows = self.rows  # which is never changed
        other._records = self._records[self._first :]
        other._payloads = self._payloads[self._first :]
        return other

    def _settle(self) -> None:
        """Make rows of what is new, and let go of what was dropped."""
        parts, singles = [self._rows], list[tuple[int, ...]]()
        for one in [*self._fresh, None]:
            if isinstance(one, Record):
                singles.append(row_of(one))
                continue
            if singles:
                parts.append(np.array(singles, PLACED))
                singles = []
            if one is not None:
                parts.append(one)
        self._rows = np.concatenate([fieldless(rows) for rows in parts]).view(PLACED)[self._first :]
        self._let_go()
        self._fresh = []

    def _let_go(self) -> None:
        del self._records[: self._first], self._payloads[: self._first]
        self._first = 0
