"""Traces: clocks that are not the host's."""

from __future__ import annotations

from collections.abc import Iterator

from traces.arrivals import jitter, stall
from traces.call import Call, own_clock
from traces.sources import Format, Span
from traces.trace import Trace

EVERY = 1.0


def sentences(
    seconds: float, first: float = 1.0, spoken: float = 6.0, pause: float = 2.0
) -> list[Span]:
    """Return sentences with pauses, for so long."""
    spans, at = [], first
    while at + spoken < seconds:
        spans.append((at, at + spoken))
        at += spoken + pause
    return spans


def drifting(seconds: float, ppm: float, *, unbroken: bool, long: bool = False) -> Trace:
    """Return a call in which the user's clock is fast by `ppm` and the bot's slow by as much."""
    kind, speech = ("unbroken", "unbroken speech") if unbroken else ("pauses", "sentences")
    length = f"{seconds / 60:g}-min" if seconds < 3600 else f"{seconds / 3600:g}-h"
    clock = "fast" if ppm > 0 else "slow"
    name = f"drift-{length}-{clock}-{abs(ppm):g}ppm-{kind}"
    about = f"user's clock {ppm:+g} ppm, bot's {-ppm:+g}, {speech}"
    call = Call(name, seconds, about, every=EVERY, long=long)
    call.mic(speech=None if unbroken else sentences(seconds), ppm=ppm, form=Format(8000))
    if unbroken:
        # Slow as it may be, it ends before the call: of a chunk that still plays nobody would know.
        call.say(0.5, seconds * 0.999 - 2, ppm=-ppm)
    else:
        for start, end in sentences(seconds, first=3):
            call.say(start, end - start, ppm=-ppm)
    return call.trace()


def traces() -> Iterator[Trace]:
    """Return them."""
    # Either sign is in each: the bot's clock is off the other way.
    yield drifting(600, 500, unbroken=True)
    yield drifting(600, -500, unbroken=False)
    yield drifting(600, -200, unbroken=True)
    yield drifting(600, 50, unbroken=False)
    yield (
        Call("drift-2-min-jitter", 120, "+300 ppm under 40 ms of jitter", every=EVERY)
        .mic(ppm=300, arrival=jitter(0.04))
        .trace()
    )
    yield (
        Call("drift-2-min-stall", 120, "-300 ppm, and a stall of 3 s", every=EVERY)
        .mic(ppm=-300, arrival=stall(60, 3.0))
        .trace()
    )
    yield (
        Call("drift-2-min-pts", 120, "+400 ppm, with pts of the source's clock", every=EVERY)
        .mic(ppm=400, stamp=own_clock(12.5))
        .trace()
    )


def long_traces() -> Iterator[Trace]:
    """Return those of hours."""
    yield drifting(10_800, 500, unbroken=True, long=True)
    yield drifting(10_800, -500, unbroken=False, long=True)
    yield drifting(10_800, -200, unbroken=True, long=True)
    for ppm in (500, 200, 50):
        for sign in (1, -1):
            for unbroken in (True, False):
                trace = drifting(600, sign * ppm, unbroken=unbroken, long=True)
                if trace.name not in {short.name for short in traces()}:
                    yield trace
