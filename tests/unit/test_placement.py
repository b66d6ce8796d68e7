"""Stalls, bursts, media timestamps and playback positions: where a frame begins."""

from __future__ import annotations

import pytest
from timelines import FRAME, RATE, Trace, ns, speak

from recorder.placement import Placement
from recorder.records import Kind, Record

STALL = 5.0


def stalled(trace: Trace, seconds: float, *, speed: float = 1000.0, track: int = 0) -> float:
    """Speech from 0, stalled at 2 s; then all that was late, so much faster; return the end."""
    speak(trace, 0, 2, track)
    at = 2 + seconds
    index = 100
    while True:
        due = (index + 1) * 0.02
        if due >= at:
            break
        trace.frame(at, track=track)
        at += 0.02 / speed
        index += 1
    speak(trace, index * 0.02, 2, track)
    return index * 0.02 + 2


@pytest.mark.parametrize(
    ("seconds", "speed"),
    [(0.3, 1.5), (0.8, 1.5), (2.4, 1.5), (0.8, 2), (3, 2), (4.9, 2), (3, 4), (4.9, 4), (4.9, 1000)],
)
def test_a_stall_of_a_microphone_leaves_no_trace(seconds: float, speed: float) -> None:
    trace = Trace(stall=STALL)
    end = stalled(trace, seconds, speed=speed)
    trace.stop(end)
    assert trace.spans() == [(0, pytest.approx(end))]


def test_a_stall_from_the_beginning_leaves_no_trace() -> None:
    trace = Trace(stall=STALL)
    for _ in range(150):
        trace.frame(3.0)
    speak(trace, 3.0, 2)
    trace.stop(5)
    assert trace.spans() == [(0, 5)]


def test_one_hiccup_of_a_paced_bot_is_not_held_against_it() -> None:
    trace = Trace("playout", stall=STALL)
    for index in range(50):  # the first comes 0.1 s late, the others catch up
        trace.frame(max(1.12, 1 + (index + 1) * 0.02))
    speak(trace, 5, 1)
    for _ in range(40):
        trace.frame(6.8)
    speak(trace, 6.8, 1)
    trace.stop(8)
    assert trace.spans()[1:] == [(5, pytest.approx(7.8))]


def test_of_a_longer_stall_what_can_still_be_placed_is() -> None:
    trace = Trace(stall=STALL)
    end = stalled(trace, 8.0)
    trace.stop(end)
    (_, broken_off), (on, last) = trace.spans()
    assert broken_off == 2
    assert on == pytest.approx(9.0)  # a second before it came
    assert last - on == pytest.approx(end - 2)


@pytest.mark.parametrize("speed", [2, 1000])
@pytest.mark.parametrize("come", [1, 5, 50])
def test_a_burst_that_stalls_itself_is_one_with_what_comes_later(come: int, speed: float) -> None:
    trace = Trace(stall=10.0)
    speak(trace, 0, 2)
    for index in range(600):
        due = 2 + (index + 1) * 0.02
        begun = 4 if index < come else 6.5  # no frame for two seconds and more in between
        trace.frame(max(due, begun + index * 0.02 / speed))
    trace.stop(14)
    assert trace.spans() == [(0, pytest.approx(14))]


@pytest.mark.parametrize("source", ["capture", "playout"])
def test_a_burst_is_looked_through_once(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    lag = Placement._lag

    def counted(self: Placement, record: Record, position: int) -> int:
        nonlocal looked
        looked += 1
        return lag(self, record, position)

    monkeypatch.setattr(Placement, "_lag", counted)
    trace = Trace(source, stall=10.0)
    end = stalled(trace, 8.0)
    trace.stop(end)
    assert trace.spans() == [(0, pytest.approx(end))]
    assert looked < 4 * end / 0.02


def test_words_between_silences_keep_their_places_in_spite_of_a_stall_later() -> None:
    trace = Trace(stall=10.0)
    for start in (0.0, 4.0, 7.0):
        speak(trace, start, 0.3)
    for index in range(150):  # stalled for 1.5 s
        due = 7.3 + (index + 1) * 0.02
        trace.frame(max(due, 8.8))
    trace.stop(10.3)
    spans = [(0, 0.3), (4, 4.3), (7, 10.3)]
    assert trace.spans() == [(pytest.approx(a), pytest.approx(b)) for a, b in spans]


def test_a_pause_is_kept_however_long_the_stall_that_was_waited_for() -> None:
    for pause in (0.1, 1.0, 4.0, 20.0):
        trace = Trace(stall=STALL)
        speak(trace, 0, 2)
        speak(trace, 2 + pause, 3)
        trace.stop(10 + pause)
        assert trace.spans() == [(0, 2), (pytest.approx(2 + pause), pytest.approx(5 + pause))]


def test_a_pause_that_ends_in_jitter_is_kept_to_the_earliest_frame() -> None:
    trace = Trace(stall=STALL)
    speak(trace, 0, 2)
    for index in range(100):
        due = 5 + (index + 1) * 0.02
        trace.frame(due + (0.05, 0.03, 0.01, 0.04)[index % 4], written=due + 0.05)
    trace.stop(8)
    assert trace.spans()[1] == (pytest.approx(5.01), pytest.approx(7.01))


def test_what_may_be_a_stall_is_not_sealed() -> None:
    trace = Trace("capture", "playout", stall=STALL)
    speak(trace, 0, 2)
    timeline = trace.timeline
    timeline.advance(ns(5.0))
    assert timeline.settled == 2 * RATE
    timeline.advance(ns(7.9))  # decided until 6.9
    assert timeline.settled == 2 * RATE
    timeline.advance(ns(8.1))
    assert timeline.settled == round(6.1 * RATE)


def test_a_bot_that_falls_silent_is_not_waited_for_nor_what_is_paused() -> None:
    trace = Trace("capture", "playout", stall=STALL)
    speak(trace, 0, 2, track=1)
    speak(trace, 0, 1)
    trace.mark(Kind.PAUSE, 2.0)
    trace.timeline.advance(ns(4.5))
    assert trace.timeline.settled == round(2.5 * RATE)


def test_decisions_wait_for_the_burst_and_come_out_the_same_whenever_they_are_asked_for() -> None:
    spans = []
    for step in (0.05, 0.7, 100.0):
        trace = Trace(stall=STALL)
        speak(trace, 0, 2)
        arrivals = [5 + 0.01 * index for index in range(300)]  # twice as fast
        asked = 0.0
        for at in arrivals:
            while asked + step < at:
                asked += step
                trace.timeline.advance(ns(asked))
            trace.frame(at)
        trace.stop(8.0)
        spans.append(trace.spans())
    assert spans[0] == spans[1] == spans[2] == [(0, pytest.approx(8))]


def test_a_bot_that_is_paced_plays_on_behind_a_stall() -> None:
    trace = Trace("playout")
    end = stalled(trace, 0.8)
    trace.stop(5)
    assert trace.spans() == [(0, pytest.approx(end))]


def test_a_bot_that_is_paced_begins_again_after_a_pause() -> None:
    trace = Trace("playout")
    speak(trace, 0, 1)
    speak(trace, 1.5, 2)
    trace.stop(4)
    assert trace.spans() == [(0, 1), (1.5, 3.5)]


def test_sentences_that_come_all_at_once_keep_the_pauses_between_them() -> None:
    trace = Trace("playout")
    for begin, seconds in ((1.0, 2.0), (3.4, 0.3), (4.2, 3.0)):
        for _ in range(round(seconds * 50)):
            trace.frame(begin)
    trace.stop(8)
    ends = [(1, 3), (3.4, 3.7), (4.2, 7.2)]
    assert trace.spans() == [(pytest.approx(a), pytest.approx(b)) for a, b in ends]


@pytest.mark.parametrize("ended", [False, True])
def test_a_turn_that_has_ended_was_not_stalled(ended: bool) -> None:
    """A sentence that comes at once, and is as long as the pause before it."""
    trace = Trace("playout", stall=STALL)
    speak(trace, 0, 1)
    if ended:
        trace.mark(Kind.TURN_END, 1.0, 0, {"interrupted": False})
    for _ in range(40):
        trace.frame(1.8)
    trace.stop(4)
    assert trace.spans() == ([(0, 1), (1.8, pytest.approx(2.6))] if ended else [(0, 1.8)])


def test_what_comes_at_once_first_of_all_begins_when_it_comes() -> None:
    trace = Trace("playout")
    for _ in range(10):
        trace.frame(0.02)
    trace.stop(1)
    assert trace.spans() == [(0.02, pytest.approx(0.22))]


def test_a_whole_sentence_in_one_frame_begins_when_it_is_given() -> None:
    trace = Trace("playout")
    trace.frame(1.0, count=2 * RATE)
    trace.stop(4)
    assert trace.spans() == [(1, 3)]


# -- media timestamps ------------------------------------------------------------------------------


def timed(
    trace: Trace, start: float, seconds: float, *, origin: float = 77.0, late: float = 0.0
) -> None:
    """Frames with timestamps that began to be captured at `start`."""
    for index in range(round(seconds * 50)):
        begin = start + index * 0.02
        trace.frame(begin + 0.02 + late, pts=origin + begin)


def test_a_packet_that_is_missing_leaves_its_gap() -> None:
    trace = Trace()
    timed(trace, 0, 1)
    timed(trace, 1.02, 1)
    trace.stop(2.02)
    assert trace.spans() == [(0, 1), (1.02, 2.02)]


def test_timestamps_in_whole_milliseconds_are_no_gaps() -> None:
    trace = Trace()
    for index in range(400):  # 12.5 ms
        begin = index * 0.0125
        trace.frame(begin + 0.0125, count=100, pts=int(begin * 1000) / 1000)
    trace.stop(5)
    assert trace.spans() == [(0, 5)]


def test_a_pause_inside_of_a_stall_is_known() -> None:
    trace = Trace(stall=STALL)
    timed(trace, 0, 2)
    for index in range(20):
        trace.frame(4.0, pts=77 + 2 + index * 0.02)  # until 2.4, then a second of nothing
    for index in range(30):
        trace.frame(4.0, pts=77 + 3.4 + index * 0.02)
    timed(trace, 4.0, 1)
    trace.stop(5)
    assert trace.spans() == [(0, 2.4), (3.4, 5)]


def test_timestamps_that_stand_still_during_a_pause_are_not_believed() -> None:
    trace = Trace()
    timed(trace, 0, 1)
    timed(trace, 4, 2, origin=77.0 - 3.0)
    trace.stop(6)
    assert trace.spans() == [(0, 1), (4, 6)]


@pytest.mark.parametrize("jump", [-50.0, -0.5, 3.0, 1000.0])
def test_a_clock_that_is_set_anew_moves_nothing(jump: float) -> None:
    trace = Trace()
    timed(trace, 0, 1)
    timed(trace, 1, 1, origin=77.0 + jump)
    trace.stop(2)
    spoken = sum(end - start for start, end in trace.spans())
    assert spoken == pytest.approx(2)
    assert trace.spans()[-1][1] <= 2.06


@pytest.mark.parametrize("speed", [0.5, 1.01, 2.0, 1000.0])
def test_timestamps_in_a_wrong_unit_do_not_run_away(speed: float) -> None:
    trace = Trace()
    for index in range(1000):
        trace.frame((index + 1) * 0.02, pts=index * 0.02 * speed)
    trace.stop(20)
    assert (trace.timeline.length or 0) / RATE == pytest.approx(20, abs=0.3)
    assert max(end for _, end in trace.spans()) == pytest.approx(20, abs=0.3)


def test_late_arrival_does_not_move_what_has_timestamps() -> None:
    trace = Trace()
    timed(trace, 0, 1)
    timed(trace, 1, 3, late=0.2)
    trace.stop(4.2)
    assert trace.spans() == [(0, 4)]


# -- playback positions ----------------------------------------------------------------------------


def test_what_is_reported_in_time_puts_speech_where_it_was_heard() -> None:
    trace = Trace("playout")
    speak(trace, 0.98, 0.5)
    trace.mark(Kind.PLAYED, 1.5, 0, seconds=0.2)  # so it began at 1.3
    trace.stop(4)
    assert trace.spans() == [(pytest.approx(1.3), pytest.approx(1.8))]


def test_a_delay_that_was_reported_holds_for_what_comes_later() -> None:
    trace = Trace("playout")
    speak(trace, 1, 0.5)
    trace.mark(Kind.PLAYED, 1.6, 0, seconds=0.4)  # 0.2 s late
    speak(trace, 4, 0.5)
    trace.stop(6)
    assert [start for start, _ in trace.spans()] == [pytest.approx(1.2), pytest.approx(4.2)]


def test_an_interruption_cuts_where_playback_was() -> None:
    trace = Trace("playout")
    for _ in range(250):
        trace.frame(1.0)
    # Placed at 1.0 to 6.0; behind the look-ahead it is reported to be half a second late.
    trace.mark(Kind.PLAYED, 2.5, 0, seconds=1.0)
    trace.mark(Kind.CLEAR, 3.0, 0)
    trace.stop(5)
    [(start, end)] = trace.spans()
    assert start == pytest.approx(1.0)
    assert end - start == pytest.approx(1.5)  # of it was heard
    assert FRAME == 160


def test_reports_that_go_on_when_all_was_played_delay_nothing() -> None:
    trace = Trace("playout")
    for _ in range(100):
        trace.frame(1.0)
    for tick in range(60):  # played 0.2 s late, until 3.2; then nothing for long
        at = 1.5 + tick * 0.5
        trace.mark(Kind.PLAYED, at, 0, seconds=min(2.0, at - 1.2))
    for _ in range(100):
        trace.frame(31.2)
    trace.stop(40)
    assert [start for start, _ in trace.spans()] == [
        pytest.approx(1.2),
        pytest.approx(31.4, abs=0.4),
    ]


def test_a_report_counts_alike_whether_what_it_speaks_of_was_sealed() -> None:
    spans = []
    for sealed in (0, 4):
        trace = Trace("playout")
        speak(trace, 0, 1)
        for _ in range(250):
            trace.frame(3.0)
        trace.timeline.advance(ns(6.0))
        trace.timeline.forget_before(sealed * RATE, {})
        trace.mark(Kind.PLAYED, 6.1, 0, seconds=0.5)  # 5.6 s later than it was placed
        trace.mark(Kind.CLEAR, 6.5, 0)
        trace.stop(8)
        spans.append(trace.spans()[-1])
    assert spans[0] == spans[1]


def test_what_drift_inserted_was_not_played() -> None:
    """A player whose clock is slow by 0.05 %, and tells how much it has played of what it got."""
    trace = Trace("playout")
    for index in range(12_000):
        trace.frame((index + 1) * 0.02 * 1.0005)
    trace.mark(Kind.PLAYED, 240.12, 0, seconds=240.0)
    trace.stop(242)
    [track] = trace.timeline.tracks
    assert trace.timeline.runs[0].grid.inserted > 0.1 * RATE
    assert track.media == 240 * RATE
    assert abs(track.late) < 0.01 * RATE
