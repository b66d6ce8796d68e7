"""All traces, by name."""

from __future__ import annotations

from functools import lru_cache

from traces import clocks, formats, network, playback, silence, stamps
from traces.trace import Trace


@lru_cache
def every_trace(*, long: bool = False) -> tuple[Trace, ...]:
    """Return all traces; also those for long runs, if asked for."""
    found = [
        trace
        for group in (silence, network, playback, formats, stamps, clocks)
        for trace in group.traces()
    ]
    if long:
        found += clocks.long_traces()
    names = [trace.name for trace in found]
    if len(set(names)) != len(names):
        raise ValueError("two traces have one name")
    return tuple(found)
