"""What many trials came to: counted, checked, and told in a few lines."""

from __future__ import annotations

from collections import Counter
from typing import Any

from watch import AFTER_THE_END

KINDS = {
    "unrecovered": "recordings unrecovered",
    "lost": "with accepted audio lost",
    "moved": "with samples twice or elsewhere",
    "orphan": "with orphans",
    "wrong": "wrong otherwise",
}


class Figures:
    """The trials of one kind.

    Args:
        title: For people.
        command: Repeats a trial, with its scenario and number.
    """

    def __init__(self, title: str, command: str) -> None:
        self.title = title
        self._command = command
        self._trials: list[dict[str, Any]] = []
        self._bad: list[dict[str, Any]] = []

    def add(self, answer: dict[str, Any]) -> None:
        """Count one trial."""
        if answer["problems"]:
            self._bad.append(answer)
        if "number" in answer:
            self._trials.append(answer)

    def check(self, size: tuple[int, int]) -> None:
        """Fail if anything went wrong, or less was tried than was meant to be."""
        scenarios, kills = size
        assert not self._bad, self._told_bad()
        assert self._killed() >= scenarios * kills, f"only {self._killed()} were killed in time"

    def lines(self) -> list[str]:
        """Return the figures, for people."""
        phases = Counter(trial["phase"] for trial in self._trials)
        again = Counter(phase for trial in self._trials for phase in trial["recovery_kills"])
        kinds = Counter(
            kind for bad in self._bad for kind in {one.partition(":")[0] for one in bad["problems"]}
        )
        told = ", ".join(f"{kinds[kind]} {meaning}" for kind, meaning in KINDS.items())
        lines = [
            f"{self.title}: {self._killed()} SIGKILLs of recordings, "
            f"{again.total()} of recoveries: {told}",
            f"  recordings were at: {_counted(phases)}",
            f"  recoveries were at: {_counted(again)}",
        ]
        for resampled in (False, True):
            lossy = [one for one in self._trials if one["resampled"] is resampled]
            if lossy := [one for one in lossy if one.get("lost_seconds")]:
                worst = max(lossy, key=lambda one: one["lost_seconds"])
                chunks = max(one["lost_chunks"] for one in lossy)
                lines.append(
                    f"  worst loss {'with' if resampled else 'without'} resampling: "
                    f"{worst['lost_seconds']} s, of chunks of {worst['chunk_seconds']} s and a "
                    f"hold-back of {worst['hold_back']} s; "
                    f"of all losses, at most {chunks} of a chunk"
                )
        return lines

    def _killed(self) -> int:
        return sum(trial["phase"] != AFTER_THE_END for trial in self._trials)

    def _told_bad(self) -> str:
        lines = [f"{len(self._bad)} of {len(self._trials)} trials failed"]
        for bad in self._bad[:10]:
            lines.append(
                f"{self._command} --scenarios {bad.get('scenario')} --kill {bad.get('number')}"
            )
            lines += [f"    {name}: {value}" for name, value in bad.items()]
        return "\n".join(lines)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "nothing"
