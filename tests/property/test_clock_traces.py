"""True to the clock: calls with ground truth come out as they were heard, when they were heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces.catalogue import every_trace
from traces.through_session import (
    FEATURES,
    chunk_seconds,
    judge,
    record,
    settings_for,
    shortfalls,
)
from traces.trace import Trace

from recorder import Recorder, VirtualClock


def cases() -> list[object]:
    """All traces; those that need what sessions do not take yet wait for it."""
    found: list[object] = []
    for trace in every_trace(long=True):
        missing = ", ".join(sorted(trace.needs - FEATURES))
        marks = [pytest.mark.soak, pytest.mark.timeout(3600)] if trace.long else []
        if missing:
            marks.append(pytest.mark.skip(reason=f"sessions do not take {missing}"))
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
