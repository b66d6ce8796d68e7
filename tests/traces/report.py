"""Tables of what recorders were off by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from traces.measure import Errors
from traces.trace import FRAME_MS

ROUNDING_MS = 0.05
"""A sample at 24 kHz."""

WHO = ("session", "processor", "pipecat")
_COLUMNS = ("length", "place", "insert", "lost", "phantom")

HEADLINES = (
    "conversation",
    "conversation-24k",
    "three-stalls",
    "stall-3s-burst",
    "stall-8s-4x",
    "stall-0.8s-both",
    "jitter-heavy",
    "loss-500ms",
    "mute",
    "ends-in-silence",
    "starts-in-silence",
    "no-user",
    "no-bot",
    "two-microphones",
    "blocks-of-1s",
    "interrupted-unpaced",
    "interrupted-sentences",
    "queue-of-1s-interrupted",
    "paced-40ms",
    "resampled-16000",
    "resampled-8000",
    "rate-changes",
    "stereo",
    "telephony-mulaw",
    "drift-10-min-fast-500ppm-unbroken",
    "drift-10-min-slow-500ppm-pauses",
)
"""Traces of the short table."""


@dataclass
class Row:
    """One trace's.

    Attributes:
        name: The trace's.
        about: What is special about it.
        why: Why it may be off by more than a frame.
        session: This recorder, fed directly; None if the trace cannot be told to it.
        processor: This recorder's processor.
        pipecat: Pipecat's.
        short: Where this recorder misses what is asked of it.
    """

    name: str
    about: str
    why: str = ""
    session: Errors | None = None
    processor: Errors | None = None
    pipecat: Errors | None = None
    short: list[str] = field(default_factory=list)


def right(errors: Errors) -> bool:
    """Return whether a recording is right to within a frame."""
    return (
        abs(errors.length) <= FRAME_MS + ROUNDING_MS
        and abs(errors.placement) <= FRAME_MS + ROUNDING_MS
        and errors.inserted < 1
        and errors.lost < 1
        and errors.phantom <= FRAME_MS + ROUNDING_MS
    )


def as_text(rows: Sequence[Row]) -> str:
    """Return a table with all columns, for a wide terminal."""
    wide = max((len(row.name) for row in rows), default=5)
    titles = "".join(f"| {who:^43} " for who in WHO)
    names = " ".join(f"{name:>8}" for name in _COLUMNS)
    lines = [f"{'ms':{wide}} {titles}", f"{'trace':{wide}} " + f"| {names} " * len(WHO)]
    for row in rows:
        cells = "".join(f"| {_numbers(getattr(row, who))} " for who in WHO)
        lines.append(f"{row.name:{wide}} {cells}" + (" *" if row.why else ""))
    lines.append("")
    for who in WHO:
        told = [errors for row in rows if (errors := getattr(row, who)) is not None]
        good = sum(right(errors) for errors in told)
        lines.append(f"{who}: right to within {FRAME_MS:g} ms on {good} of {len(told)}")
    lines += [f"* {row.name}: {row.why}" for row in rows if row.why]
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """Return a short table of the rows in `HEADLINES`, for a README."""
    lines = [
        "| call | bot-recorder | Pipecat's AudioBufferProcessor |",
        "|---|---|---|",
    ]
    for row in rows:
        if row.name in HEADLINES:
            ours = row.processor or row.session
            lines.append(f"| {row.about} | {_brief(ours)} | {_brief(row.pipecat)} |")
    lines.append("")
    lines.append(
        "Length error, worst placement error, inserted silence, lost speech, sound that was not "
        "heard; ms."
    )
    return "\n".join(lines) + "\n"


def _numbers(errors: Errors | None) -> str:
    if errors is None:
        return f"{'cannot be told to it':^44}"
    values = (errors.length, errors.placement, errors.inserted, errors.lost, errors.phantom)
    return " ".join(f"{value + 0.0:8.0f}" for value in map(round, values))


def _brief(errors: Errors | None) -> str:
    if errors is None:
        return "-"
    values = (errors.length, errors.placement, errors.inserted, errors.lost, errors.phantom)
    return (
        " / ".join(f"{round(value):+d}" for value in values[:2])
        + " / "
        + (" / ".join(f"{round(value)}" for value in values[2:]))
    )
