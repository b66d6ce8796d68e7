"""Random calls, of everything whose truth can be told from what arrives."""

from __future__ import annotations

from typing import Any

from hypothesis import note
from hypothesis import strategies as st

from traces.arrivals import Arrival, all_of, jitter, on_time, stall
from traces.call import Call, Handover, ahead, all_at_once, own_clock, played_out, whole_ms
from traces.sources import Format, Span
from traces.trace import Trace

TICK = 0.02
MAX_STALL = 3.0
PACED: tuple[tuple[float, Handover], ...] = ((0.04, played_out), (0.02, played_out))
AHEAD: tuple[tuple[float, Handover], ...] = (
    (0.02, ahead(1.0)),
    (0.02, all_at_once),
    (0.5, all_at_once),
)
RATES = (8_000, 16_000, 24_000, 44_100, 48_000)


@st.composite
def calls(draw: st.DrawFn, *, longest: int = 14) -> Trace:
    """Return a call of a user or two and a bot.

    Args:
        draw: Hypothesis's.
        longest: Seconds.
    """
    seconds = float(draw(st.integers(5, longest)))
    call = Call("random", seconds, "random")
    for track in ("user", "user-2")[: draw(st.sampled_from([0, 1, 1, 1, 2]))]:
        _microphone(draw, call, track, seconds)
    _bot(draw, call, seconds)
    return call.trace()


def _ticks(least: float, most: float) -> st.SearchStrategy[float]:
    return st.integers(round(least / TICK), round(most / TICK)).map(lambda ticks: ticks * TICK)


def _microphone(draw: st.DrawFn, call: Call, track: str, seconds: float) -> None:
    has_pts = draw(st.booleans())
    start = draw(st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.02]))
    stalls, mutes, lost = [], [], []
    arrivals: list[Arrival] = []
    at = start + draw(_ticks(0.5, 2))
    while at < seconds - 1.5:
        event = draw(st.sampled_from(["stall", "mute", "mute-in-stall", "loss", "nothing"]))
        length = draw(_ticks(0.3, min(MAX_STALL, max(0.3, (seconds - at) / 3))))
        end = at + length
        if event in ("stall", "mute-in-stall"):
            drain = draw(st.sampled_from([float("inf"), 4.0, 2.0]))
            end = at + length * drain / (drain - 1) if drain < 100 else end
            if end > seconds - 0.5:
                break
            stalls.append((at, end))
            arrivals.append(stall(at, length, drain))
            if event == "mute-in-stall" and has_pts:
                mutes.append((at + 0.1, at + length - 0.1))
        elif event == "mute":
            mutes.append((at, end))
        elif event == "loss" and has_pts:
            lost.append((at, at + draw(_ticks(0.02, 0.4))))
        at = end + draw(_ticks(0.4, 2))
    worst = draw(st.sampled_from([0.0, 0.0, 0.02, 0.04]))
    if worst:
        arrivals.append(jitter(worst, draw(st.sampled_from(["uniform", "heavy"]))))
    options: dict[str, Any] = {}
    if has_pts:
        options["stamp"] = draw(st.sampled_from([own_clock(), own_clock(1e5), whole_ms]))
    speech = _speech(draw, start, seconds)
    form = Format(draw(st.sampled_from(RATES)), draw(st.sampled_from([1, 1, 2])))
    note(f"{track} from {start}: {speech} {form} {stalls=} {mutes=} {lost=} jitter={worst}")
    call.mic(
        track,
        speech,
        start=start,
        form=form,
        arrival=all_of(*arrivals) if arrivals else on_time,
        muted=mutes,
        lost=lost,
        **options,
    )


def _speech(draw: st.DrawFn, start: float, seconds: float) -> list[Span] | None:
    if draw(st.booleans()):
        return None
    spans = []
    at = start + draw(_ticks(0, 2))
    while at < seconds - 0.5:
        end = min(seconds, at + draw(_ticks(0.3, 4)))
        spans.append((at, end))
        at = end + draw(_ticks(0.1, 3))
    return spans


def _bot(draw: st.DrawFn, call: Call, seconds: float) -> None:
    at = draw(_ticks(0.1, 3))
    modes = draw(st.sampled_from([PACED, AHEAD]))  # a transport paces, or does not
    rate = draw(st.sampled_from([16_000, 24_000, 48_000]))
    while at < seconds - 1:
        length = min(draw(_ticks(0.6, 5)), seconds - at - 0.2)
        chunk, handover = draw(st.sampled_from(modes))
        cut = at + draw(_ticks(0.3, length)) if draw(st.integers(0, 2)) == 0 else None
        form = Format(rate)
        note(f"bot at {at:.2f}: {length:.2f} s, {chunk} {handover} {rate} Hz, cut off at {cut}")
        call.say(at, length, form=form, chunk=chunk, handover=handover, interrupted=cut)
        at = (at + length if cut is None else cut) + draw(_ticks(0.4, 3))
