"""What several files of recordings begin with; those that need something else have their own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from calls import Make, settings_in
from faulty_store import FaultyStore

from uploader.local import LocalStore


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that makes settings, with the bucket that `store` has."""
    return partial(settings_in, tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    """Opened and closed by the recorder."""
    return FaultyStore(LocalStore(tmp_path / "bucket"))
