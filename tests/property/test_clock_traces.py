"""True to the clock: calls with ground truth come out as they were heard, when they were heard."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces.catalogue import every_trace
from traces.random_calls import calls
from traces.through_session import (
    chunk_seconds,
    judge,
    record,
    settings_for,
    shortfalls,
)
from traces.trace import Trace

from recorder import Recorder, VirtualClock


def cases() -> list[object]:
    """All traces; the longest are for long runs."""
    found: list[object] = []
    for trace in every_trace(long=True):
        marks = [pytest.mark.soak, pytest.mark.timeout(3600)] if trace.long else []
        found.append(pytest.param(trace, id=trace.name, marks=marks))
    return found


@pytest.mark.parametrize("trace", cases())
async def test_the_recording_is_what_was_heard_when_it_was_heard(
    trace: Trace, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, chunk_seconds=chunk_seconds(trace))
    clock = VirtualClock()
    async with Recorder(settings, clock=clock) as recorder:
        recorded = await record(trace, recorder, clock)
    assert shortfalls(trace, judge(trace, recorded)) == [], trace.bounds.why or trace.about


def check(trace: Trace) -> None:
    async def run(folder: Path) -> list[str]:
        clock = VirtualClock()
        async with Recorder(settings_for(folder), clock=clock) as recorder:
            return shortfalls(trace, judge(trace, await record(trace, recorder, clock)))

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(run(Path(folder))) == []


@settings(max_examples=25, deadline=None)
@given(trace=calls())
def test_random_calls_come_out_as_they_were_heard(trace: Trace) -> None:
    check(trace)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_many_random_calls_come_out_as_they_were_heard(data: st.DataObject) -> None:
    check(data.draw(calls(longest=60)))
