"""What several files of unit tests begin with; those that need something else have their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from damaged import Record, record_in
from faulty_store import FaultyStore

from recorder import Recorder, Settings, VirtualClock
from uploader.local import LocalStore


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "state" / "spool",
        drain_seconds=20,
    )


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(LocalStore(tmp_path / "bucket"))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def recorder(
    settings: Settings, store: FaultyStore, clock: VirtualClock
) -> AsyncIterator[Recorder]:
    async with Recorder(settings, store=store, clock=clock, require_store=False) as recorder:
        yield recorder


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A function that records a call, to be damaged."""
    return partial(record_in, tmp_path)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine, no `.env` of the folder the tests were started in."""
    for name in list(os.environ):
        if name.startswith(("RECORDER_", "AWS_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
