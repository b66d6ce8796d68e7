"""Where frames are placed: every rule of the timeline, in virtual time."""

from __future__ import annotations

import json

from timelines import HOLD_BACK, RATE, Trace, ns, speak

from recorder.records import Kind
from recorder.timeline import Timeline


def test_continuous_frames_are_one_run() -> None:
    trace = Trace()
    speak(trace, 0, 2)
    trace.stop(2)
    assert trace.spans() == [(0, 2)]
    assert trace.timeline.length == 2 * RATE


def test_the_first_frame_is_placed_when_it_was_spoken() -> None:
    trace = Trace()
    speak(trace, 0.55, 1)
    trace.stop(2)
    assert trace.spans() == [(0.55, 1.55)]


def test_silence_between_utterances_is_kept_to_the_sample() -> None:
    trace = Trace()
    speak(trace, 0, 1)
    speak(trace, 3.3, 1)
    trace.stop(5)
    assert trace.spans() == [(0, 1), (3.3, 4.3)]


def test_the_length_is_the_clocks_whatever_was_said() -> None:
    trace = Trace()
    speak(trace, 1, 1)
    trace.stop(10)
    assert trace.timeline.length == 10 * RATE


def test_nothing_said_at_all() -> None:
    trace = Trace()
    trace.stop(4)
    assert trace.spans() == []
    assert trace.timeline.length == 4 * RATE


def test_jitter_inserts_no_silence() -> None:
    trace = Trace()
    for index in range(100):
        late = (0, 0.05, 0.01, 0.1, 0.03)[index % 5]
        trace.frame((index + 1) * 0.02 + late, written=(index + 1) * 0.02 + 0.1)
    trace.stop(3)
    assert trace.spans() == [(0, 2)]


def test_a_stall_and_its_burst_leave_no_silence_and_no_stretch() -> None:
    trace = Trace()
    speak(trace, 0, 2)
    for _ in range(40):  # 0.8 s of frames, all at once
        trace.frame(2.8)
    speak(trace, 2.8, 2)
    trace.stop(4.8)
    assert trace.spans() == [(0, 4.8)]
    assert trace.timeline.length == round(4.8 * RATE)


def test_a_burst_that_lost_frames_keeps_what_was_lost_as_silence() -> None:
    trace = Trace()
    speak(trace, 0, 2)
    for _ in range(25):  # 0.5 s of the 0.8 s
        trace.frame(2.8)
    speak(trace, 2.8, 1)
    trace.stop(3.8)
    assert trace.spans() == [(0, 2), (2.3, 3.8)]


def test_a_bot_that_runs_ahead_plays_on_without_a_break() -> None:
    trace = Trace("playout")
    for _ in range(250):  # 5 s in one go at 1 s
        trace.frame(1.0)
    trace.stop(6.5)
    assert trace.spans() == [(1.0, 6.0)]


def test_an_interruption_erases_what_was_not_heard() -> None:
    trace = Trace("playout")
    for _ in range(250):
        trace.frame(1.0)
    trace.mark(Kind.CLEAR, 2.0, 0)
    speak(trace, 3.0, 1)
    trace.stop(5)
    assert trace.spans() == [(1.0, 2.0), (3.0, 4.0)]


def test_an_interruption_leaves_what_was_heard() -> None:
    trace = Trace("playout")
    speak(trace, 0, 1)
    trace.mark(Kind.CLEAR, 1.5, 0)
    trace.stop(2)
    assert trace.spans() == [(0, 1)]


def test_a_stop_keeps_what_runs_ahead_unless_told_not_to() -> None:
    for discard, length in ((False, 3.0), (True, 1.0)):
        trace = Trace("playout")
        for _ in range(150):
            trace.frame(0.0)
        trace.stop(1, discard_unheard=discard)
        assert trace.timeline.length == length * RATE


def test_a_hang_up_cuts_what_a_bot_sent_ahead_and_nothing_a_user_said() -> None:
    trace = Trace("capture", "playout")
    for index in range(50):
        trace.frame((index + 1) * 0.02 - 0.015)  # a little early, as jitter has it
    for _ in range(150):
        trace.frame(0.0, track=1)
    trace.stop(0.99, discard_unheard=True)
    assert trace.spans(0) == [(0, 1.0)]
    assert trace.spans(1) == [(0, 0.99)]
    assert trace.timeline.length == RATE


def test_a_rate_change_in_mid_speech_goes_on_where_it_was() -> None:
    trace = Trace()
    speak(trace, 0, 1)
    for index in range(50):
        trace.frame(1 + (index + 1) * 0.02, count=320, rate=16000)
    trace.stop(2)
    assert trace.spans() == [(0, 1), (1, 2)]


def test_rates_that_do_not_divide_add_up_to_the_sample() -> None:
    trace = Trace()
    for index in range(300):  # 10 ms of 11025 Hz is no whole number of samples at 8000
        trace.frame((index + 1) * 0.01, count=110, rate=11025)
    trace.stop(3)
    assert trace.spans()[0][1] == (300 * 110 * RATE + 11025 // 2) // 11025 / RATE


def test_tracks_do_not_push_each_other() -> None:
    trace = Trace("capture", "playout")
    speak(trace, 0, 3)
    speak(trace, 1, 1, track=1)
    trace.stop(3)
    assert trace.spans(0) == [(0, 3)]
    assert trace.spans(1) == [(1, 2)]


def test_nothing_is_placed_where_it_may_be_sealed() -> None:
    """A frame given over long after it was captured lands at the edge of what is still open."""
    trace = Trace()
    trace.frame(1.0, written=5.0)
    trace.stop(6)
    assert trace.spans() == [(5.0 - HOLD_BACK / 2, 5.0 - HOLD_BACK / 2 + 0.02)]


def test_settled_is_never_taken_back() -> None:
    trace = Trace()
    speak(trace, 0, 2)
    trace.timeline.advance(ns(2.0))
    assert trace.timeline.settled == 0
    speak(trace, 2, 2)
    trace.timeline.advance(ns(4.0))
    assert trace.timeline.settled == 2 * RATE


def test_decisions_do_not_depend_on_when_they_are_asked_for() -> None:
    """A stall whose burst comes between two looks."""
    often, once = Trace(), Trace()
    for trace in (often, once):
        speak(trace, 0, 1)
    often.timeline.advance(ns(1.7))
    for trace in (often, once):
        for _ in range(40):
            trace.frame(1.8)
        speak(trace, 1.8, 1)
    for now in (1.9, 2.0, 2.5, 2.8):
        often.timeline.advance(ns(now))
    for trace in (often, once):
        trace.stop(2.8)
    assert often.spans() == once.spans() == [(0, 2.8)]


def test_what_is_written_at_the_very_moment_of_a_look_is_known_at_the_next() -> None:
    """A burst that comes when the look-ahead ends, to the nanosecond."""
    trace = Trace(stall=5.0)
    speak(trace, 0, 1)
    trace.frame(1.5)
    trace.timeline.advance(ns(2.5))
    for _ in range(73):
        trace.frame(2.5)
    trace.stop(2.5)
    assert trace.spans() == [(0, 2.48)]


def test_what_is_known_of_a_clock_does_not_depend_on_looks() -> None:
    """A stall too long to be made up for, with a look before its burst, and without."""
    looked, once = Trace(), Trace()
    for trace in (looked, once):
        speak(trace, 0, 2)
        if trace is looked:
            trace.timeline.advance(ns(4.4))
        for _ in range(125):
            trace.frame(4.5)
        speak(trace, 4.5, 1)
        trace.timeline.advance(ns(7))
    assert looked.timeline.tracks[0].drift == once.timeline.tracks[0].drift


def test_turns_have_their_positions_and_the_open_one_ends_with_the_recording() -> None:
    trace = Trace("capture", "playout")
    trace.mark(Kind.TURN_START, 1.0, 0)
    trace.mark(Kind.TURN_END, 2.0, 0, {"interrupted": False})
    trace.mark(Kind.TURN_START, 2.5, 1)
    trace.mark(Kind.TURN_END, 2.6, 0, {"interrupted": False})  # nobody's: no open turn
    trace.stop(3)
    turns = [(t.number, t.track, t.start / RATE, (t.end or 0) / RATE) for t in trace.timeline.turns]
    assert turns == [(1, 0, 1.0, 2.0), (2, 1, 2.5, 3.0)]


def test_a_restored_timeline_goes_on_the_same() -> None:
    def first(trace: Trace) -> None:
        speak(trace, 0, 1.5)
        speak(trace, 0.5, 1, track=1)
        trace.mark(Kind.TURN_START, 0.4, 0)

    def second(trace: Trace) -> None:
        for _ in range(30):
            trace.frame(2.1)
        speak(trace, 2.1, 1)
        speak(trace, 2.9, 1, track=1)
        trace.stop(4)

    whole, before = Trace("capture", "playout"), Trace("capture", "playout")
    for trace in (whole, before):
        first(trace)
        trace.timeline.advance(ns(2.51))  # decides on all of it
    state = json.loads(json.dumps(before.timeline.state()))
    after = Trace.__new__(Trace)
    after.timeline = Timeline(RATE, HOLD_BACK)
    after.timeline.restore(state)
    for trace in (whole, after):
        second(trace)
    assert [run.start for run in after.timeline.runs] == [run.start for run in whole.timeline.runs]
    assert after.timeline.state()["turns"] == whole.timeline.state()["turns"]
    assert after.timeline.length == whole.timeline.length == 4 * RATE


# -- who speaks ------------------------------------------------------------------------------------


def test_a_track_says_whose_it_is_and_since_when() -> None:
    trace = Trace("capture", "capture")
    speak(trace, 0.5, 0.5, track=1)
    trace.mark(Kind.TRACK, 1.0, 1, {"name": "t1", "source": "capture", "participant": "ann"})
    trace.timeline.advance(ns(5.0))
    restored = Timeline(RATE, HOLD_BACK)
    restored.restore(json.loads(json.dumps(trace.timeline.state())))
    for timeline in (trace.timeline, restored):
        assert [(state.participant, state.joined) for state in timeline.tracks] == [
            (None, None),
            ("ann", RATE // 2),
        ]


def test_a_turn_says_which_of_the_conversations_it_belongs_to() -> None:
    trace = Trace()
    for number in (3, None):
        told = {} if number is None else {"conversation_turn": number}
        trace.mark(Kind.TURN_START, 1.0, 0)
        trace.mark(Kind.TURN_END, 2.0, 0, {"interrupted": False, **told})
    trace.stop(3.0)
    assert [turn.conversation_turn for turn in trace.timeline.turns] == [3, None]
