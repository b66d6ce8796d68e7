"""True to the clock through Pipecat's frames, where no session is fed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces.catalogue import every_trace
from traces.through_pipecat import record, told_in_frames
from traces.through_session import chunk_seconds, judge, settings_for, shortfalls
from traces.trace import Trace

from recorder import Recorder, VirtualClock

NAMES = (
    "conversation",
    "mute",
    "no-user-unpaced",
    "three-come-and-go",
    "three-stalls",
    "stall-3s-burst",
    "stall-0.8s-both",
    "jitter-heavy",
    "interrupted-unpaced",
    "queue-of-1s-interrupted",
    "unpaced-500ms-chunks",
    "paced-40ms",
    "paced-40ms-as-it-plays",
    "rate-changes",
    "channel-changes",
    "stereo",
)
TRACES = {trace.name: trace for trace in every_trace() if told_in_frames(trace)}


@pytest.mark.parametrize("trace", [TRACES[name] for name in NAMES], ids=str)
async def test_a_pipelines_frames_are_placed_where_they_were_heard(
    trace: Trace, tmp_path: Path
) -> None:
    clock = VirtualClock()
    settings = settings_for(tmp_path, chunk_seconds=chunk_seconds(trace))
    async with Recorder(settings, clock=clock) as recorder:
        recorded = await record(trace, recorder, clock)
    assert shortfalls(trace, judge(trace, recorded)) == [], trace.bounds.why or trace.about
