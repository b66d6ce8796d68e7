"""Frames taken by the many are placed exactly as one by one: for random calls, after each look."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.records import NO_TRACK, PLACED, Kind, Record, row_of
from recorder.timeline import NS, Timeline

RATE = 8000
MS = NS // 1000
ONE_BY_ONE = 1 << 30

Fed = tuple[Record, Any]


@dataclass(frozen=True)
class Phase:
    """So many frames of one form; the pause before them, and what their way does to them."""

    frames: int
    pause: int  # samples
    rate: int
    millis: int
    channels: int
    jitter_ms: int
    stall_ms: int  # all at once, behind the first third
    stamped: bool
    early_ms: int  # handed over so much before the time it is given for, or after
    together: bool  # all at once, as from a source that does not pace what it sends


phases = st.builds(
    Phase,
    frames=st.sampled_from([1, 3, 20, 60, 60, 400]),
    pause=st.sampled_from([0, 0, 0, 240, 479, 480, 481, 800, 2000, 2001, 5600, 20_000]),
    rate=st.sampled_from([8000, 8000, 8000, 16000, 11025]),
    millis=st.sampled_from([20, 20, 20, 10, 100, 250, 1200]),
    channels=st.sampled_from([1, 1, 1, 2]),
    jitter_ms=st.sampled_from([0, 0, 5, 40, 70]),
    stall_ms=st.sampled_from([0, 0, 0, 90, 250, 251, 600, 2200]),
    stamped=st.sampled_from([False, False, True]),
    early_ms=st.sampled_from([0, 0, 0, 40, 200, -300, -1500]),
    together=st.sampled_from([False, False, False, True]),
)
marks = st.tuples(
    st.integers(0, 30_000),
    st.sampled_from([Kind.CLEAR, Kind.PAUSE, Kind.TURN_START, Kind.TURN_END, Kind.PLAYED]),
    st.integers(0, 2),
)


def frames_of(track: int, spoken: list[Phase], ppm: int, chance: random.Random) -> list[Record]:
    """A track's frames, from a clock that is off by so much."""
    now, stamp, made = 0, 7 * NS, list[Record]()
    segment, offset = 1, 0
    for phase in spoken:
        now += phase.pause * NS // RATE
        samples = phase.rate * phase.millis // 1000
        length_ns = samples * NS // phase.rate
        start, stalled = now, 0
        for index in range(phase.frames):
            now = start + (index + 1) * length_ns * (1_000_000 + ppm) // 1_000_000
            late = chance.randrange(phase.jitter_ms * MS + 1)
            if phase.stall_ms and index == phase.frames // 3:
                stalled = now + phase.stall_ms * MS
            at = start if phase.together else max(now + late, stalled)
            written = max(0, at - phase.early_ms * MS)
            if chance.random() < 0.03:  # another extent, or another segment
                segment, offset = segment + chance.randrange(2), offset + chance.choice([0, 2048])
            length = 2 * samples * phase.channels
            time_ns = stamp if phase.stamped else None
            made.append(
                Record(
                    Kind.AUDIO,
                    track,
                    at,
                    written,
                    phase.rate,
                    phase.channels,
                    segment,
                    offset,
                    length,
                    time_ns,
                )
            )
            offset += length
            stamp += length_ns + (chance.random() < 0.01) * chance.choice([7, 9, 40]) * MS
        now = max(now, stalled)
        if chance.random() < 0.5:
            stamp += phase.pause * NS // RATE
    return made


def call(
    spoken: list[list[Phase]], ppms: list[int], marked: list[tuple[int, Kind, int]], seed: int
) -> list[list[Fed]]:
    """Records in journal order, in the portions that a reader finds."""
    chance = random.Random(seed)
    records: list[Fed] = []
    for track, source in enumerate(("capture", "playout", "capture")):
        told = {"name": f"t{track}", "source": source}
        records.append((Record(Kind.TRACK, track, 0, 0, 0, 0, 1, 0, 0), told))
    rest: list[Fed] = []
    for track, (phases_of, ppm) in enumerate(zip(spoken, ppms, strict=True)):
        rest += [(frame, None) for frame in frames_of(track, phases_of, ppm, chance)]
    paused = False
    for at_ms, kind, track in sorted(marked):
        at, body, time_ns = at_ms * MS, None, None
        if kind is Kind.PAUSE:
            kind, track = (Kind.RESUME if paused else Kind.PAUSE), NO_TRACK
            paused = not paused
        elif kind is Kind.TURN_END:
            body = {"interrupted": True}
        elif kind is Kind.PLAYED:
            time_ns = at // 3
        rest.append((Record(kind, track, at, at, 0, 0, 1, 0, 0, time_ns), body))
    records += sorted(rest, key=lambda fed: fed[0].written_ns)
    portions = list[list[Fed]]()
    while records:
        count = chance.choice([1, 5, 40, 300, 2000])
        portions.append(records[:count])
        records = records[count:]
    return portions


def feed(timeline: Timeline, portion: list[Fed]) -> None:
    rows = np.array([row_of(record) for record, _ in portion], PLACED)
    told = {index: body for index, (_, body) in enumerate(portion) if body is not None}
    timeline.feed_rows(rows, told)


def look(timeline: Timeline) -> dict[str, Any]:
    """All there is to see."""
    oldest = timeline.oldest_pending
    return {
        "state": timeline.state(),
        "settled": timeline.settled,
        "pending": timeline.pending,
        "oldest": None if oldest is None else row_of(oldest),
        "segment": timeline.oldest_segment(1000),
        "ends": [run.end for run in timeline.runs],
    }


def restored(timeline: Timeline, undecided: list[Fed]) -> Timeline:
    other = Timeline(RATE, 2 * timeline.look_ahead_ns / NS, timeline.stall_ns / NS)
    other.least_batch = timeline.least_batch
    other.restore(json.loads(json.dumps(timeline.state())))
    if undecided:
        feed(other, undecided)
    return other


@settings(max_examples=150, deadline=None)
@given(
    spoken=st.lists(st.lists(phases, max_size=6), min_size=3, max_size=3),
    ppms=st.lists(st.sampled_from([0, 300, -300, 2500, -2500]), min_size=3, max_size=3),
    marked=st.lists(marks, max_size=8),
    hold_back=st.sampled_from([0.2, 0.5, 2.0]),
    stall=st.sampled_from([0.0, 0.7, 3.0]),
    least=st.sampled_from([1, 8]),
    seed=st.integers(0, 1 << 16),
)
def test_the_many_are_placed_as_one_by_one(
    spoken: list[list[Phase]],
    ppms: list[int],
    marked: list[tuple[int, Kind, int]],
    hold_back: float,
    stall: float,
    least: int,
    seed: int,
) -> None:
    compare(call(spoken, ppms, marked, seed), hold_back, stall, least, seed)


@settings(max_examples=40, deadline=None)
@given(
    ppm=st.sampled_from([-2500, -1250, 1250, 2500]),
    rates=st.lists(st.sampled_from([8000, 16000, 11025]), min_size=1, max_size=4),
    stamped=st.booleans(),
    bot_ppm=st.sampled_from([0, 1250]),
    seed=st.integers(0, 1 << 16),
)
def test_where_clocks_are_followed_too(
    ppm: int, rates: list[int], stamped: bool, bot_ppm: int, seed: int
) -> None:
    """Also where another rate begins while one is being corrected."""
    steady = [Phase(700, 0, rate, 20, 1, 0, 0, stamped, 0, False) for rate in rates]
    portions = call([steady, steady[:1], []], [ppm, bot_ppm, 0], [], seed)
    compare(portions, 2.0, 3.0, 8, seed)


def test_a_bot_that_ran_ahead_and_is_late_then_is_not_taken_for_stalled() -> None:
    """Its audio goes where it can still be placed, as that of one alone does."""
    talk = Phase(60, 0, RATE, 20, 1, 0, 0, False, 0, True)
    on_time, late = replace(talk, together=False), replace(talk, together=False, early_ms=-300)
    records = sum(call([[], [talk, on_time, late], []], [0, 0, 0], [], 3), list[Fed]())
    compare([records[:63], records[63:90], records[90:150], records[150:]], 0.2, 3.0, 8, 3)


def compare(
    portions: list[list[Fed]], hold_back: float, stall: float, least: int, seed: int
) -> None:
    many, single = Timeline(RATE, hold_back, stall), Timeline(RATE, hold_back, stall)
    many.least_batch, single.least_batch = least, ONE_BY_ONE
    chance = random.Random(seed)
    fed, now = list[Fed](), 0
    for portion in portions:
        fed += portion
        feed(many, portion)
        for record, body in portion:
            single.feed(record, body)
        now = max(now, portion[-1][0].written_ns)
        for timeline in (many, single):
            timeline.advance(now)
        assert look(many) == look(single)
        if chance.random() < 0.2:
            position = max(0, single.settled - chance.randrange(RATE))
            for timeline in (many, single):
                timeline.forget_before(position, {})
        if chance.random() < 0.2:
            undecided = fed[len(fed) - many.pending :]
            many, single = restored(many, undecided), restored(single, undecided)
        if chance.random() < 0.2:
            seen = look(many)
            provisional, other = many.copy(), restored(single, fed[len(fed) - many.pending :])
            for timeline in (provisional, other):
                timeline.advance(now, final=True)
            assert look(provisional) == look(other)
            assert look(many) == seen, "a copy is not its own"
    for timeline in (many, single):
        timeline.advance(now, final=True)
    assert look(many) == look(single)
