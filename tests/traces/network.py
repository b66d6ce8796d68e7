"""Traces: what a network does to audio on its way."""

from __future__ import annotations

from collections.abc import Iterator

from traces.arrivals import all_of, jitter, later, stall
from traces.call import Call, own_clock
from traces.sources import Span
from traces.trace import Bounds, Trace

SENTENCES = ((0.6, 3.1), (3.9, 7.2), (8.4, 11.4))


def traces() -> Iterator[Trace]:
    """Return them."""
    yield (
        Call("three-stalls", 8, "3 stalls of 0.8 s, each followed by its burst")
        .mic(arrival=all_of(stall(1, 0.8), stall(3.5, 0.8), stall(6, 0.8)))
        .trace()
    )
    for seconds in (0.3, 0.8, 3.0, 8.0):
        for drain in (float("inf"), 4.0, 2.0):
            speed = "at once" if drain == float("inf") else f"at {drain:g}x real time"
            late = stall(2, seconds, drain)
            length = 2 + 2.5 * seconds + 3
            name = f"stall-{seconds:g}s-{'burst' if drain == float('inf') else f'{drain:g}x'}"
            about = f"user: {seconds:g} s stall, then all of it {speed}"
            yield Call(name, length, about).mic(arrival=late).trace()
    for seconds in (0.8, 3.0):
        spoken = 4 + seconds
        stalled = stall(1.5, seconds)
        yield (
            Call(f"stall-{seconds:g}s-bot", 3 + spoken, "bot, paced: a stall, then its burst")
            .mic(speech=[])
            .say(1, spoken, handover=lambda _first, last, stalled=stalled: stalled(last))
            .trace()
        )
        yield (
            Call(f"stall-{seconds:g}s-both", 3 + spoken, "both at once: a stall, then its burst")
            .mic(arrival=stall(2.5, seconds))
            .say(1, spoken, handover=lambda _first, last, stalled=stalled: stalled(last))
            .trace()
        )
    sentences = (*SENTENCES, (12.0, 13.5))
    yield (
        Call("stall-over-pauses", 15, "a stall of 3 s that begins and ends in mid-sentence")
        .mic(speech=sentences, arrival=stall(2.5, 3.0))
        .trace()
    )
    yield (
        Call("stall-at-start", 8, "the first 0.8 s come in one burst")
        .mic(arrival=stall(0, 0.8))
        .trace()
    )
    yield (
        Call("stalls-in-a-row", 14, "8 stalls of 0.4 s, one each 1.2 s")
        .mic(arrival=all_of(*(stall(1 + 1.2 * n, 0.4, 4) for n in range(8))))
        .trace()
    )
    yield from _jittered()
    yield from _lossy()


def _jittered() -> Iterator[Trace]:
    for shape in ("uniform", "heavy"):
        for name, speech in (("", None), ("-pauses", SENTENCES)):
            yield (
                Call(f"jitter-{shape}{name}", 12, f"0 to 60 ms of {shape} jitter, order kept")
                .mic(speech=speech, arrival=jitter(0.06, shape))  # type: ignore[arg-type]
                .say(2, 4)
                .trace()
            )
    yield (
        Call("jitter-150ms", 12, "0 to 150 ms of jitter, mostly little, order kept")
        .mic(arrival=jitter(0.15, "heavy"))
        .trace()
    )
    yield (
        Call("jitter-and-stalls", 12, "30 ms of jitter, and two stalls of 0.8 s")
        .mic(arrival=all_of(jitter(0.03), stall(3, 0.8), stall(7, 0.8, 4)))
        .trace()
    )
    yield (
        Call("late-first-frame", 8, "the first frame is 0.5 s late; those after it are not")
        .mic(arrival=later(0.5, 0, 0.021))
        .trace()
    )


def _lossy() -> Iterator[Trace]:
    small: tuple[Span, ...] = ((2.0, 2.04), (5.0, 5.04))
    large: tuple[Span, ...] = ((2.0, 2.5),)
    yield (
        Call("loss-40ms", 8, "two frames are lost, twice; no pts")
        .mic(lost=small)
        .trace(
            Bounds(
                placement=100,
                why="two lost frames look like a network that has become 40 ms slower",
            )
        )
    )
    yield Call("loss-500ms", 8, "half a second is lost; no pts").mic(lost=large).trace()
    yield (
        Call("loss-and-stall", 8, "half a second is lost in a stall of 0.8 s; no pts")
        .mic(lost=((2.4, 2.9),), arrival=stall(2, 0.8))
        .trace(
            Bounds(
                placement=520,
                inserted=520,
                why="where in a stall frames were lost, only pts can tell",
            )
        )
    )
    for name, lost in (("40ms", small), ("500ms", large)):
        yield (
            Call(f"loss-{name}-pts", 8, f"{name} of frames are lost; pts tell")
            .mic(lost=lost, stamp=own_clock(100))
            .trace()
        )
    yield (
        Call("loss-and-stall-pts", 8, "half a second is lost in a stall of 0.8 s; pts tell")
        .mic(lost=((2.4, 2.9),), arrival=stall(2, 0.8), stamp=own_clock(100))
        .trace()
    )
