"""What is said of settings that are refused, and what must never be said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from recorder.settings import Settings, SettingsError

MIB = 1024**2
SECRET = "-".join(["wJalrXUtnFEMI", "K7MDENG"])


def problems(**arguments: Any) -> list[str]:
    """Return what is said of settings, a line each."""
    with pytest.raises(SettingsError) as caught:
        Settings(**arguments)
    error = caught.value
    assert str(error).splitlines() == list(error.problems)
    assert error.__cause__ is None
    assert not isinstance(error.__context__, ValidationError)  # its text can hold a secret
    assert all(line.isprintable() and len(line) < 500 for line in error.problems)
    return list(error.problems)


def problem(**arguments: Any) -> str:
    """Return the one line that is said of settings."""
    (line,) = problems(**arguments)
    return line
