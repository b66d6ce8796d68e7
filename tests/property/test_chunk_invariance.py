"""Chunks are exact, and their concatenation does not depend on their length, nor on when they
were sealed, nor on a restart in between: for random calls."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plans import make_plan

from recorder.journal import JournalWriter
from recorder.quota import SpoolQuota
from recorder.records import NO_TRACK, Kind
from recorder.sealer import Sealer
from recorder.spool import Spool
from recorder.timeline import NS

RATE = 8000
HOLD_BACK = 2.0


@dataclass(frozen=True)
class Step:
    """Wait, then write a frame or a mark."""

    wait_ms: int
    track: int
    kind: str
    rate: int
    frames: int
    channels: int


RATES = (8000, 16000, 11025, 24000)
MARKS = ["clear", "pause", "resume", "turn", "turn end", "played"]
steps = st.builds(
    Step,
    wait_ms=st.sampled_from([0, 0, 5, 20, 20, 20, 40, 90, 300, 800, 1500, 4000]),
    track=st.integers(0, 2),
    kind=st.sampled_from(["audio"] * 9 + ["timed"] * 4 + MARKS),
    rate=st.sampled_from(RATES),
    frames=st.sampled_from([1, 80, 160, 160, 160, 333, 4000]),
    channels=st.sampled_from([1, 1, 1, 2]),
)


def spoken(seconds: int, ppm: int, stalls: list[int]) -> list[Step]:
    """Speech in frames of 100 ms from a clock that is off; it stalls, and makes up for it."""
    frame = Step(100, 0, "audio", RATE, 800 + 800 * ppm // 1_000_000, 1)
    steps = [frame] * (10 * seconds)
    for stall in stalls:
        first = stall % (len(steps) - 30)
        steps[first] = replace(steps[first], wait_ms=2000)
        steps[first + 1 : first + 20] = [replace(frame, wait_ms=0)] * 19
    return steps


def record(
    path: Path,
    trace: list[Step],
    chunk_samples: int,
    looks: int,
    hold_back: float,
    stall: float = 0.0,
) -> tuple[NDArray[np.int16], list[int], dict[str, object]]:
    """Play a trace through a journal and a sealer; return planes, chunk lengths and last state.

    The sealer looks after so many steps, and every fifth time it is another one that goes on.
    """
    plan = make_plan(
        sample_rate=RATE,
        chunk_samples=chunk_samples,
        hold_back_seconds=hold_back,
        stall_seconds=stall,
    )
    spool = Spool.create(path, f"c{chunk_samples}-{looks}", plan.to_dict())
    quota = SpoolQuota(1 << 32)
    sealer = Sealer(spool, quota, plan)
    writer = JournalWriter(spool.journal, quota)
    noise = np.random.default_rng(7).integers(-9000, 9000, 8192, dtype=np.int16).tobytes()
    now, paused = 0, False
    opened: dict[int, bytes] = {}
    for track in range(3):
        source = "playout" if track == 1 else "capture"
        body = json.dumps({"name": f"t{track}", "source": source}).encode()
        writer.append(Kind.TRACK, track, 0, 0, body)
    for index, step in enumerate(trace):
        now += step.wait_ms * NS // 1000
        if step.kind in ("audio", "timed"):
            if not paused:
                pcm = noise[: 2 * step.frames * step.channels]
                timed = step.kind == "timed"
                writer.append(
                    Kind.TIMED_AUDIO if timed else Kind.AUDIO,
                    step.track,
                    now,
                    now,
                    pcm,
                    step.rate,
                    step.channels,
                    now * 1001 // 1000 // 20_000_000 * 20_000_000 if timed else None,
                )
        elif step.kind == "clear":
            writer.append(Kind.CLEAR, step.track, now, now)
        elif step.kind == "turn":
            writer.append(Kind.TURN_START, step.track, now, now)
        elif step.kind == "turn end":
            writer.append(Kind.TURN_END, step.track, now, now, b'{"interrupted": true}')
        elif step.kind == "played":
            writer.append(Kind.PLAYED, step.track, now, now, time_ns=now // 3)
        elif (step.kind == "pause") != paused:  # pause or resume
            paused = not paused
            writer.append(Kind.PAUSE if paused else Kind.RESUME, NO_TRACK, now, now)
        if looks and index % looks == 0:
            sealer.step(now)
            if (found := sealer.open_chunk(now, chunk_samples // 2)) is not None:
                opened[found[0].number] = found[1][80:]
            if index % (5 * looks) == 0:
                sealer.close()
                sealer = Sealer(spool, quota, plan)
                sealer.restore()
    stop = json.dumps({"discard_unheard": False}).encode()
    writer.append(Kind.STOP, NO_TRACK, now, now, stop)
    writer.close()
    sealer.step(now, final=True)
    planes = [np.empty((3, 0), dtype=np.int16)]
    for chunk in sealer.sealed:
        raw = sealer.chunk_path(chunk).read_bytes()[80:]
        planes.append(np.frombuffer(raw, dtype="<i2").reshape(-1, 3).T)
        assert raw.startswith(opened.get(chunk.number, b"")), "what was open is what was sealed"
    state = sealer.timeline.state()
    facts = {name: state[name] for name in ("turns", "pauses", "length")}
    lengths = [chunk.samples for chunk in sealer.sealed]
    sealer.close()
    spool.remove(quota)
    return np.concatenate(planes, axis=1), lengths, facts


@settings(max_examples=60, deadline=None)
@given(
    trace=st.lists(steps, max_size=120),
    chunk_samples=st.sampled_from([800, 4001, 16000, 80000]),
    looks=st.sampled_from([1, 3, 50]),
    hold_back=st.sampled_from([0.2, 0.5, HOLD_BACK]),
    stall=st.sampled_from([0.0, 0.7, 3.0]),
)
def test_concatenation_is_independent_of_chunk_length_and_of_looking(
    trace: list[Step], chunk_samples: int, looks: int, hold_back: float, stall: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, _, facts = record(Path(folder), trace, 10_000_000, 0, hold_back, stall)
        pieces, lengths, same_facts = record(
            Path(folder), trace, chunk_samples, looks, hold_back, stall
        )
    assert all(length == chunk_samples for length in lengths[:-1])
    assert sum(lengths) == facts["length"]
    assert lengths == [] or 0 < lengths[-1] <= chunk_samples
    assert same_facts == facts
    np.testing.assert_array_equal(pieces, whole)


@settings(max_examples=15, deadline=None)
@given(
    ppm=st.sampled_from([-2500, -1250, 1250, 2500]),
    stalls=st.lists(st.integers(0, 10_000), max_size=3),
    chunk_samples=st.sampled_from([800, 4001, 80000]),
    looks=st.sampled_from([1, 7]),
)
def test_nor_where_a_clock_is_followed(
    ppm: int, stalls: list[int], chunk_samples: int, looks: int
) -> None:
    trace = spoken(30, ppm, stalls)
    with tempfile.TemporaryDirectory() as folder:
        whole, _, facts = record(Path(folder), trace, 10_000_000, 0, HOLD_BACK, 3.0)
        pieces, _, same_facts = record(Path(folder), trace, chunk_samples, looks, HOLD_BACK, 3.0)
    assert same_facts == facts
    np.testing.assert_array_equal(pieces, whole)
    if not stalls:
        followed = np.count_nonzero(whole) - sum(step.frames for step in trace)
        assert followed * -ppm > 0
        assert abs(followed) > 100


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    bursts=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_stalls_and_silences_keep_the_clock_and_every_sample(
    gaps: list[int], bursts: list[bool]
) -> None:
    """Ground truth: what was spoken when. A stall up to the reach is made up for by its burst."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(sample_rate=RATE, chunk_samples=12_000, hold_back_seconds=HOLD_BACK)
        spool = Spool.create(Path(folder), "truth", plan.to_dict())
        quota = SpoolQuota(1 << 32)
        sealer = Sealer(spool, quota, plan)
        writer = JournalWriter(spool.journal, quota)
        writer.append(Kind.TRACK, 0, 0, 0, b'{"name": "user", "source": "capture"}')
        rng = np.random.default_rng(3)
        truth: list[NDArray[np.int16]] = []
        now_ms, late = 0, []

        def deliver(pcm: NDArray[np.int16]) -> None:
            at = now_ms * NS // 1000
            writer.append(Kind.AUDIO, 0, at, at, pcm.tobytes(), RATE, 1)

        for gap, burst in zip(gaps, bursts, strict=False):
            silent = gap // 20 * 20
            stalled = burst and silent <= 900
            for _ in range(silent // 20):
                frame = rng.integers(1, 9000, 160, dtype=np.int16) if stalled else None
                truth.append(np.zeros(160, np.int16) if frame is None else frame)
                if frame is not None:
                    late.append(frame)
                now_ms += 20
            for index in range(60):
                frame = rng.integers(1, 9000, 160, dtype=np.int16)
                truth.append(frame)
                now_ms += 20
                if index == 0:
                    for missed in late:
                        deliver(missed)
                    late = []
                deliver(frame)
                sealer.step(now_ms * NS // 1000)
        at = now_ms * NS // 1000
        writer.append(Kind.STOP, NO_TRACK, at, at, b'{"discard_unheard": false}')
        writer.close()
        sealer.step(at, final=True)
        recorded = np.concatenate(
            [
                np.frombuffer(sealer.chunk_path(chunk).read_bytes()[80:], dtype="<i2")
                for chunk in sealer.sealed
            ]
        )
        sealer.close()
        spool.remove(quota)
    expected = np.concatenate(truth)
    assert len(recorded) == len(expected)
    # A pause under the jitter tolerance is not told from jitter: one frame of it may move.
    spoken, said = expected[expected != 0], recorded[recorded != 0]
    np.testing.assert_array_equal(said, spoken)
    moved = np.flatnonzero(recorded)[0 : len(spoken)] - np.flatnonzero(expected)
    assert np.abs(moved).max() <= 0.06 * RATE
