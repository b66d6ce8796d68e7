"""When the bot is heard, from when its frames come."""

from __future__ import annotations

import headless  # noqa: F401 - imports Pipecat without its warning
import pytest

from recorder.pipecat.playout import Playout

FRAME = 0.04


def ends(playout: Playout, *at: float, speech: bool = True) -> list[float | None]:
    return [playout.ends(one, FRAME, speech=speech) for one in at]


def test_a_frame_that_was_only_sent_begins_now() -> None:
    playout = Playout()
    playout.started(10.0)
    assert ends(playout, 10.0, 10.04, 10.5) == pytest.approx([10.04, 10.08, 10.54])


def test_a_frame_that_was_played_ends_now() -> None:
    playout = Playout()
    playout.started(10.0)
    assert ends(playout, 10.04, 10.08) == pytest.approx([10.04, 10.08])


def test_a_frame_that_took_a_while_to_be_sent_begins_when_that_began() -> None:
    playout = Playout()
    playout.started(10.0)
    assert ends(playout, 10.01) == pytest.approx([10.04])


def test_a_bot_that_begins_anew_while_it_plays_tells_nothing() -> None:
    playout = Playout()
    playout.started(10.0)
    ends(playout, 10.0)
    playout.stopped()
    playout.started(10.001)
    assert ends(playout, 10.04) == pytest.approx([10.08])


def test_who_never_says_so_ends_when_it_comes() -> None:
    assert ends(Playout(), 10.0, 10.04) == [10.0, 10.04]


def test_long_frames_were_not_cut_for_playing() -> None:
    playout = Playout()
    playout.started(10.0)
    assert playout.ends(10.0, 1.0, speech=True) == 10.0


def interrupted(first: float) -> Playout:
    playout = Playout()
    playout.started(10.0)
    ends(playout, first)
    playout.interrupted(10.05)
    playout.stopped()
    return playout


def test_what_was_being_sent_when_the_bot_was_interrupted_is_not_heard() -> None:
    playout = interrupted(10.0)
    assert ends(playout, 10.08) == [None]
    playout.started(11.0)
    assert ends(playout, 11.0) == pytest.approx([11.04])


def test_what_was_being_played_when_the_bot_was_interrupted_was_heard() -> None:
    assert ends(interrupted(10.04), 10.08) == pytest.approx([10.08])


def test_sounds_go_on_when_the_bot_is_interrupted() -> None:
    assert ends(interrupted(10.0), 10.08, 10.12, speech=False) == pytest.approx([10.12, 10.16])


def test_a_bot_that_may_not_be_interrupted_is_heard() -> None:
    playout = Playout()
    playout.started(10.0)
    ends(playout, 10.0)
    playout.interrupted(10.05)
    assert ends(playout, 10.08, 10.12) == pytest.approx([10.12, 10.16])
