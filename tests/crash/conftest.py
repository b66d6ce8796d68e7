"""Tells the figures of the crash tests at the end of a run, whatever the verbosity."""

from __future__ import annotations

import pytest
from figures import Figures

FIGURES = pytest.StashKey[list[Figures]]()


@pytest.fixture
def all_figures(request: pytest.FixtureRequest) -> list[Figures]:
    """A list to put figures into that are told at the end."""
    return request.config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(FIGURES, []):
        terminalreporter.section("kills")
        for figures in found:
            for line in figures.lines():
                terminalreporter.write_line(line)
