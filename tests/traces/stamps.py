"""Traces: sources that say when their frames were captured."""

from __future__ import annotations

from collections.abc import Iterator

from traces.arrivals import all_of, jitter, later, stall
from traces.call import Call, own_clock, whole_ms
from traces.sources import Format
from traces.trace import Trace


def traces() -> Iterator[Trace]:
    """Return them."""
    yield (
        Call("pts-plain", 8, "pts that say what arrivals say, from an origin of 1e6 s on")
        .mic(speech=((0.5, 3), (4, 7)), stamp=own_clock(1e6))
        .say(3, 2)
        .trace()
    )
    yield (
        Call(
            "pts-stall-hides-pause", 10, "a pause of 0.3 s without frames, within a stall of 0.8 s"
        )
        .mic(muted=((2.26, 2.56),), arrival=stall(2, 0.8), stamp=own_clock(7))
        .trace()
    )
    yield (
        Call("pts-stall-hides-pause-3s", 14, "a pause of 1 s without frames, within a stall of 3 s")
        .mic(muted=((2.6, 3.6),), arrival=stall(2, 3.0), stamp=own_clock(7))
        .trace()
    )
    yield (
        Call("pts-jitter", 10, "0 to 60 ms of jitter, and pts")
        .mic(arrival=jitter(0.06), stamp=own_clock(3))
        .trace()
    )
    yield (
        Call("pts-slower-network", 10, "the network becomes 150 ms slower in mid-speech; pts tell")
        .mic(arrival=later(0.15, 4), stamp=own_clock(3))
        .trace()
    )
    yield (
        Call("twilio", 12, "8 kHz mu-law, whole milliseconds, jitter, a stall and lost frames")
        .mic(
            speech=((0.5, 5), (5.8, 11)),
            form=Format(8000, encoding="mulaw"),
            arrival=all_of(jitter(0.03), stall(3, 0.8)),
            lost=((8.0, 8.1),),
            stamp=whole_ms,
        )
        .trace()
    )
    yield (
        Call("whole-ms-44100", 8, "44.1 kHz in frames of 441 samples, stamped in whole ms")
        .mic(form=Format(44_100, frame=0.01), stamp=whole_ms)
        .trace()
    )
    yield (
        Call("pts-stand-still-in-mute", 12, "a source whose clock stops while it is muted for 2 s")
        .mic(muted=((4, 6),), stamp=lambda _i, s: s if s < 5 else s - 2)
        .trace()
    )
    yield (
        Call("pts-reset", 10, "pts begin at 0 again in mid-speech")
        .mic(stamp=lambda _i, s: 50 + s if s < 4.999 else s - 5)
        .trace()
    )
    yield (
        Call("pts-jump", 10, "pts jump an hour ahead in mid-speech")
        .mic(stamp=lambda _i, s: s if s < 4.999 else s + 3600)
        .trace()
    )
    yield (
        Call("pts-come-and-go", 10, "only every other second of frames has pts")
        .mic(stamp=lambda _i, s: s if int(s) % 2 else None, arrival=stall(3.5, 0.8))
        .trace()
    )
