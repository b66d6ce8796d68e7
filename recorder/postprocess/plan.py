"""What is to be done with a recording, by what its record says was done: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorder.postprocess.steps.base import Step
from recorder.settings import Settings

DONE, FAILED, PUT_OFF = "done", "failed", "put off"
"""What the record says of a step: done, cannot be done, to be tried again."""


def todo(
    steps: Sequence[Step],
    entries: Mapping[str, Mapping[str, Any]],
    content: str,
    settings: Settings,
    *,
    again: bool = False,
) -> list[Step]:
    """Return the steps that are not done, in order.

    A step counts as done only for the content it was done on, and with the parameters of now.

    Args:
        steps: Those that are wanted.
        entries: What the record says, by step.
        content: What the recording consists of now.
        settings: Of now.
        again: Do all of them, done or not.
    """
    found: list[Step] = []
    for step in steps:
        entry = entries.get(step.name, {})
        done = is_done(entry, content) and entry.get("parameters") == step.parameters(settings)
        if again or not done or (step.of_all and any(one.makes for one in found)):
            found.append(step)
    return found


def is_done(entry: Mapping[str, Any], content: str) -> bool:
    """Whether an entry says that its step was done on this content."""
    return entry.get("state") == DONE and entry.get("content") == content


def of_content(entries: Mapping[str, Any], content: str) -> dict[str, Mapping[str, Any]]:
    """Return the entries that are about this content."""
    return {
        name: entry
        for name, entry in entries.items()
        if isinstance(entry, dict) and entry.get("content") == content
    }
