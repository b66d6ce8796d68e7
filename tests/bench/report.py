"""The table: one row for each goal, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Row:
    """One thing that was measured.

    Attributes:
        what: What.
        unit: Of `incumbent` and `ours`.
        incumbent: What Pipecat's recorder takes; None where it has nothing like it.
        ours: What this recorder takes.
        goal: The goal, in words.
        met: Whether it is met; None where that cannot be said.
        limit: The goal's ratio, or value where there is nothing to compare with; for the plot.
        note: What is in the figures, and what is not.
        details: Further figures.
        more_is_better: Whether it is.
    """

    what: str
    unit: str
    incumbent: float | None
    ours: float
    goal: str
    met: bool | None
    limit: float | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours / self.incumbent if self.incumbent else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def by_ratio(
    what: str,
    unit: str,
    incumbent: float,
    ours: float,
    limit: float,
    *,
    note: str = "",
    **details: Any,
) -> Row:
    """A row whose goal is a ratio."""
    met = ours <= limit * incumbent
    goal = f"ratio {limit:g}"
    return Row(what, unit, incumbent, ours, goal, met, limit, note, details)


@dataclass(slots=True)
class Floor:
    """What the work cannot cost less than, measured by itself."""

    what: str
    value: float
    unit: str = "CPU s/h"


def as_text(rows: Sequence[Row], floors: Sequence[Floor], machine: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
        f"load average {machine['load_before']:.2f} before, {machine['load_after']:.2f} after; "
        f"other programs used {machine['others_cores']:.2f} cores meanwhile"
        + (": BUSY, figures are only indicative" if machine["disturbed"] else ""),
        "",
    ]
    head = ("what", "incumbent", "ours", "unit", "ratio", "goal", "met")
    table = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    lines += ["", "floors"]
    lines += [f"  {floor.what}: {_number(floor.value)} {floor.unit}" for floor in floors]
    lines += ["", "in the figures"]
    lines += [f"  {row.what}: {row.note}" for row in rows if row.note]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: "-"}[row.met]
    return (
        row.what,
        "none" if row.incumbent is None else _number(row.incumbent),
        _number(row.ours),
        row.unit,
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        row.goal,
        met,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
