"""The program `recorder` as it is typed, and what it prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from recorder.cli.app import app

PROGRAM = Path(sys.executable).with_name("recorder")
"""For a process of its own."""

Run = Callable[..., Result]


def typed(*words: object, env: Mapping[str, str] | None = None) -> Result:
    """Run the program with words in this process."""
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def typed_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs it there, with bucket and spool in the folder; so do processes from now."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RECORDER_BUCKET", (folder / "bucket").as_uri())
    monkeypatch.setenv("RECORDER_SPOOL_DIR", str(folder / "spool"))
    monkeypatch.setenv("COLUMNS", "200")
    return typed


def squeezed(line: str) -> str:
    """A line with single spaces: what it says, wherever a table puts it."""
    return " ".join(line.split())


def squeezed_lines(text: str) -> list[str]:
    """All lines that are not empty, likewise."""
    return [squeezed(line) for line in text.splitlines() if line.strip()]
