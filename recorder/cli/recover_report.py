"""What `recorder recover` says of the recordings it came across."""

from __future__ import annotations

import json
from collections import Counter

from rich.text import Text

from recorder.cli import output
from recorder.recovered import Outcome, Recovered
from recorder.result import Gap
from recorder.settings import Settings

_STYLES = {
    Outcome.RECOVERED: "green",
    Outcome.CONTINUED: "green",
    Outcome.CLEANED: "green",
    Outcome.PENDING: "yellow",
    Outcome.FAILED: "red",
    Outcome.ALIVE: "cyan",
    Outcome.TAKEN: "cyan",
}
_DONE = (Outcome.RECOVERED, Outcome.CONTINUED, Outcome.CLEANED)
_UNDONE = (Outcome.PENDING, Outcome.FAILED)
_ALWAYS_TOLD = (Outcome.RECOVERED, Outcome.FAILED)
_SHOWN_GAPS = 20


class Report:
    """Prints recordings as they are done, and what they come to.

    Args:
        settings: Where they are looked for.
        searches: Whether the bucket is searched, too.
        dry_run: Whether nothing is done.
        as_json: Whether to print JSON, for programs.

    Attributes:
        watching: Whether the same recordings come again and again: only what is new is printed,
            and nothing of those that are being recorded.
    """

    def __init__(
        self, settings: Settings, *, searches: bool, dry_run: bool = False, as_json: bool = False
    ) -> None:
        self.watching = False
        self._places = [f"in {settings.spool_dir}"]
        self._places += [f"at {settings.location}"] if searches else []
        self._dry_run = dry_run
        self._as_json = as_json
        self._console = output.stdout()
        self._done: Counter[Outcome] = Counter()
        self._open: dict[str, Recovered] = {}
        self._before: dict[str, Recovered] = {}

    def begin_look(self) -> None:
        """Another look begins: what is not met again is nobody's concern any more."""
        self._before, self._open = self._open, {}

    def take(self, one: Recovered) -> None:
        """Take note of a recording, and print it."""
        name = one.recording_id
        if one.outcome in _DONE:
            self._open.pop(name, None)
            self._done[one.outcome] += 1
            self._print(one)
            return
        if one.outcome is Outcome.ALIVE and (self.watching or name in self._open):
            return  # in the bucket, too: its spool has said all there is to say
        before = self._before.get(name)
        self._open[name] = one
        if before is None or (before.outcome, before.reason) != (one.outcome, one.reason):
            self._print(one)

    @property
    def undone(self) -> str:
        """How many are pending or failed; empty if none is."""
        counts = self._counts()
        return ", ".join(f"{counts[one]} {one}" for one in _UNDONE if counts[one])

    def sum_up(self) -> None:
        """Print how many came to what."""
        if self._as_json:
            return
        counts = self._counts()
        if not counts and not self.watching:
            self._say(f"nothing to recover {' or '.join(self._places)}")
            return
        told = [one for one in Outcome if counts[one] or one in _ALWAYS_TOLD]
        dry = "dry run, nothing was changed: would be " if self._dry_run else ""
        self._say(dry + ", ".join(f"{one} {counts[one]}" for one in told))

    def _counts(self) -> Counter[Outcome]:
        return self._done + Counter(one.outcome for one in self._open.values())

    def _print(self, one: Recovered) -> None:
        if self._as_json:
            print(json.dumps(one.to_dict(), allow_nan=False), flush=True)
            return
        would = "would be " if self._dry_run and one.outcome in _DONE else ""
        line = Text.assemble(
            output.clean(f"{one.recording_id}  "),
            (f"{would}{one.outcome}", _STYLES[one.outcome]),
            f"  from {one.source}",
        )
        if one.result is not None:
            length = output.seconds(one.result.duration_seconds)
            line.append(f"  {length}  ").append(output.state_text(one.result.state))
            line.append(output.clean(f"  {one.result.url}"))
        self._console.print(line, soft_wrap=True)
        for remark in (one.reason, one.hint):
            if remark:
                self._say(f"  {remark}")
        if one.result is not None:
            self._print_gaps(one.result.gaps, one.result.sample_rate)

    def _print_gaps(self, gaps: tuple[Gap, ...], rate: int) -> None:
        for gap in gaps[:_SHOWN_GAPS]:
            start = output.seconds(gap.start / rate)
            end = "nobody knows when" if gap.end is None else output.seconds(gap.end / rate)
            self._say(f"  missing of {gap.track}, from {start} to {end}: {gap.reason}")
        if len(gaps) > _SHOWN_GAPS:
            self._say(f"  and {len(gaps) - _SHOWN_GAPS} more gaps; recorder show lists all")

    def _say(self, line: str) -> None:
        self._console.print(output.clean(line), soft_wrap=True)
