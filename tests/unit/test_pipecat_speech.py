"""Runs of speech and turns, from the frames that tell of them."""

from __future__ import annotations

import asyncio

import pytest
from headless import until

from recorder.pipecat.lanes import Lanes
from recorder.pipecat.turns import Listener, Run, Speaker, Speech, Turn

RATE = 1000


class Notes(Listener):
    def __init__(self) -> None:
        self.marks: list[tuple[str, Speaker, float, bool]] = []
        self.runs: list[tuple[Speaker, Run]] = []
        self.turns: list[tuple[int | None, list[Run], list[Run]]] = []

    def mark_start(self, speaker: Speaker, at: float) -> None:
        self.marks.append(("start", speaker, round(at, 3), False))

    def mark_end(self, speaker: Speaker, at: float, interrupted: bool) -> None:
        self.marks.append(("end", speaker, round(at, 3), interrupted))

    def run_ended(self, speaker: Speaker, run: Run) -> None:
        self.runs.append((speaker, run))

    def turn_ended(self, turn: Turn) -> None:
        self.turns.append((turn.number, turn.runs["user"], turn.runs["bot"]))


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def speech(notes: Notes) -> Speech:
    return Speech(100.0, RATE, notes)


def play(speech: Speech, begin: float, seconds: float) -> None:
    """Let bot audio arrive in 20 ms frames, each when it has been played."""
    for index in range(round(seconds * 50)):
        speech.bot_audio(begin + (index + 1) * 0.02, 20, RATE)


def test_a_users_run_begins_a_second_before_it_was_noticed(speech: Speech, notes: Notes) -> None:
    speech.user_started(103.0)
    speech.user_stopped(104.0)
    assert notes.runs == [("user", Run(2000, 4000))]


def test_a_users_run_begins_no_earlier_than_the_recording(speech: Speech, notes: Notes) -> None:
    speech.user_started(100.3)
    speech.user_stopped(101.0)
    assert notes.runs == [("user", Run(0, 1000))]


def test_runs_do_not_overlap(speech: Speech, notes: Notes) -> None:
    speech.user_started(103.0)
    speech.user_stopped(104.0)
    speech.user_started(104.4)
    speech.user_stopped(105.0)
    assert notes.runs[1] == ("user", Run(4000, 5000))


def test_a_speaker_who_starts_twice_has_started_once(speech: Speech, notes: Notes) -> None:
    speech.user_started(102.0)
    speech.user_started(102.5)
    speech.user_stopped(103.0)
    speech.user_stopped(103.5)
    assert notes.runs == [("user", Run(1000, 3000))]
    assert [mark[0] for mark in notes.marks] == ["start", "end"]


def test_a_bots_run_is_its_audio(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    play(speech, 101.0, 0.5)
    speech.bot_stopped(101.9)
    assert notes.runs == [("bot", Run(1000, 1500))]
    assert notes.marks == [("start", "bot", 101.0, False), ("end", "bot", 101.5, False)]


def test_a_bot_that_starts_and_says_nothing_has_no_run(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    speech.bot_stopped(101.0)
    assert not notes.runs


def test_the_bots_audio_outside_of_its_speech_is_no_run(speech: Speech, notes: Notes) -> None:
    play(speech, 101.0, 0.5)
    speech.bot_started()
    play(speech, 102.0, 0.5)
    speech.bot_stopped(102.5)
    assert notes.runs == [("bot", Run(2000, 2500))]


def test_an_interrupted_bot(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    play(speech, 101.0, 0.5)
    speech.interrupted(101.5)
    speech.bot_stopped(101.5)
    assert notes.marks[-1] == ("end", "bot", 101.5, True)


async def test_what_was_sent_ahead_ends_when_it_was_played(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    speech.bot_audio(101.0, 180, RATE)
    speech.bot_audio(101.0, 180, RATE)
    speech.bot_stopped(101.0)
    assert notes.runs == [("bot", Run(820, 1180))]
    assert len(notes.marks) == 1
    await until(lambda: len(notes.marks) == 2)
    assert notes.marks[-1] == ("end", "bot", 101.18, False)


async def test_an_interruption_of_what_was_sent_ahead(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    for _ in range(5):
        speech.bot_audio(101.0, 1000, RATE)
    speech.bot_stopped(101.0)
    speech.interrupted(101.2)
    assert notes.marks[-1] == ("end", "bot", 101.2, True)
    assert speech.heard_until == 1200


def test_a_turn_has_what_was_said_in_it(speech: Speech, notes: Notes) -> None:
    speech.user_started(101.0)
    speech.user_stopped(102.0)
    speech.bot_started()
    play(speech, 102.0, 0.5)
    speech.bot_stopped(102.5)
    speech.turn_ended(7)
    assert notes.turns == [(7, [Run(0, 2000)], [Run(2000, 2500)])]


def test_the_user_who_ends_a_turn_speaks_in_the_next(speech: Speech, notes: Notes) -> None:
    speech.user_started(102.0)
    speech.turn_ended(1)
    speech.user_stopped(103.0)
    speech.turn_ended(2)
    assert notes.turns == [(1, [], []), (2, [Run(1000, 3000)], [])]


def test_a_turn_waits_for_the_end_of_what_the_bot_says_in_it(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    play(speech, 101.0, 0.5)
    speech.turn_ended(1)
    assert notes.turns == []
    play(speech, 101.5, 0.5)
    speech.bot_stopped(102.0)
    assert notes.turns == [(1, [], [Run(1000, 2000)])]


def test_the_end_of_a_recording_ends_what_is_being_said(speech: Speech, notes: Notes) -> None:
    speech.user_started(102.0)
    speech.bot_started()
    play(speech, 101.0, 0.5)
    left = speech.finish(103.0)
    assert left.runs == {"user": [Run(1000, 3000)], "bot": [Run(1000, 1500)]}


def test_what_is_still_needed(speech: Speech) -> None:
    assert speech.open_from(9000) == 9000
    speech.user_started(103.0)
    assert speech.open_from(9000) == 2000
    speech.user_stopped(104.0)
    assert speech.open_from(9000) == 2000
    speech.turn_ended(1)
    assert speech.open_from(9000) == 9000


# -- lanes -----------------------------------------------------------------------------------------


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(lambda work, name: asyncio.get_running_loop().create_task(work, name=name))


async def test_a_lane_is_done_in_order_one_at_a_time(lanes: Lanes) -> None:
    told: list[str] = []

    async def work(name: str, turns: int) -> None:
        told.append(f"{name} begins")
        for _ in range(turns):
            await asyncio.sleep(0)
        told.append(f"{name} ends")

    lanes.add("a", lambda: work("slow", 9))
    lanes.add("a", lambda: work("quick", 0))
    lanes.add("b", lambda: work("beside", 1))
    await lanes.drained()
    assert told.index("slow ends") < told.index("quick begins")
    assert told.index("beside ends") < told.index("slow ends")


async def test_a_lane_takes_more_after_it_was_empty(lanes: Lanes) -> None:
    told: list[int] = []

    async def work(number: int) -> None:
        told.append(number)

    for number in range(3):
        lanes.add("a", lambda number=number: work(number))
        await lanes.drained("a", "b")
    assert told == [0, 1, 2]


async def test_nothing_is_done_in_closed_lanes(lanes: Lanes) -> None:
    told: list[int] = []

    async def work() -> None:
        await asyncio.sleep(3600)
        told.append(1)

    lanes.add("a", work)
    lanes.add("a", work)
    await asyncio.sleep(0)
    await lanes.close()
    lanes.add("b", work)
    await lanes.drained()
    assert not told
    assert len(asyncio.all_tasks()) == 1
