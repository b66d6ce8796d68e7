"""Runs of speech and turns, from the frames that tell of them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from headless import until

from recorder.pipecat.lanes import Lanes
from recorder.pipecat.turn_audio import fitted
from recorder.pipecat.turns import Listener, Run, Speaker, Speech, Turn

RATE = 1000


class Notes(Listener):
    def __init__(self) -> None:
        self.marks: list[tuple[str, Speaker, float, bool]] = []
        self.runs: list[tuple[Speaker, Run]] = []
        self.turns: list[tuple[int | None, list[Run], list[Run]]] = []
        self.numbers: list[tuple[Speaker, int | None]] = []

    def mark_start(self, speaker: Speaker, at: float) -> None:
        self.marks.append(("start", speaker, round(at, 3), False))

    def mark_end(self, speaker: Speaker, at: float, interrupted: bool, turn: int | None) -> None:
        self.marks.append(("end", speaker, round(at, 3), interrupted))
        self.numbers.append((speaker, turn))

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


def talk(speech: Speech, begin: float, end: float) -> None:
    """Let a user's audio arrive in 20 ms frames."""
    for index in range(round((end - begin) * 50)):
        speech.user_audio(begin + (index + 1) * 0.02, 20, RATE)


def test_a_users_run_begins_a_second_before_it_was_noticed(speech: Speech, notes: Notes) -> None:
    talk(speech, 100.0, 103.0)
    speech.user_started(103.0)
    talk(speech, 103.0, 104.0)
    speech.user_stopped(104.0)
    assert notes.runs == [("user", Run(2000, 4000))]


def test_a_users_run_is_no_longer_than_its_audio(speech: Speech, notes: Notes) -> None:
    talk(speech, 102.5, 103.0)
    speech.user_started(103.1)
    talk(speech, 103.2, 103.6)
    speech.user_stopped(104.0)
    assert notes.runs == [("user", Run(2500, 3600, begins=True))]


def test_a_pause_within_a_users_run_is_in_it(speech: Speech, notes: Notes) -> None:
    speech.user_started(103.0)
    talk(speech, 103.0, 103.2)
    talk(speech, 105.0, 105.2)
    speech.user_stopped(106.0)
    assert notes.runs == [("user", Run(3000, 5200, begins=True))]


def test_a_burst_that_makes_up_for_a_stall_ends_no_later_than_now(
    speech: Speech, notes: Notes
) -> None:
    talk(speech, 102.0, 103.0)
    speech.user_started(103.0)
    for _ in range(25):
        speech.user_audio(103.5, 20, RATE)
    talk(speech, 103.5, 104.0)
    speech.user_stopped(104.0)
    ((_, run),) = notes.runs
    assert run.start == 2000
    assert 4000 <= run.end <= 4060


def test_a_user_who_starts_and_says_nothing_has_no_run(speech: Speech, notes: Notes) -> None:
    talk(speech, 100.0, 101.0)
    speech.user_started(103.0)
    speech.user_stopped(104.0)
    assert not notes.runs
    assert [mark[0] for mark in notes.marks] == ["start", "end"]


def test_a_users_run_begins_no_earlier_than_the_recording(speech: Speech, notes: Notes) -> None:
    talk(speech, 100.0, 100.3)
    speech.user_started(100.3)
    talk(speech, 100.3, 101.0)
    speech.user_stopped(101.0)
    assert notes.runs == [("user", Run(0, 1000, begins=True))]


def test_runs_do_not_overlap(speech: Speech, notes: Notes) -> None:
    talk(speech, 100.0, 103.0)
    speech.user_started(103.0)
    talk(speech, 103.0, 104.0)
    speech.user_stopped(104.0)
    talk(speech, 104.0, 104.4)
    speech.user_started(104.4)
    talk(speech, 104.4, 105.0)
    speech.user_stopped(105.0)
    assert notes.runs[1] == ("user", Run(4000, 5000))


def test_a_speaker_who_starts_twice_has_started_once(speech: Speech, notes: Notes) -> None:
    talk(speech, 100.0, 102.0)
    speech.user_started(102.0)
    speech.user_started(102.5)
    talk(speech, 102.0, 103.0)
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
    talk(speech, 100.0, 101.0)
    speech.user_started(101.0)
    talk(speech, 101.0, 102.0)
    speech.user_stopped(102.0)
    speech.bot_started()
    play(speech, 102.0, 0.5)
    speech.bot_stopped(102.5)
    speech.turn_ended(7)
    assert notes.turns == [(7, [Run(0, 2000, begins=True)], [Run(2000, 2500)])]


def test_the_user_who_ends_a_turn_speaks_in_the_next(speech: Speech, notes: Notes) -> None:
    talk(speech, 100.0, 102.0)
    speech.user_started(102.0)
    speech.turn_ended(1)
    talk(speech, 102.0, 103.0)
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
    talk(speech, 100.0, 102.0)
    speech.user_started(102.0)
    speech.bot_started()
    play(speech, 101.0, 0.5)
    talk(speech, 102.0, 103.0)
    left = speech.finish(103.0)
    assert left.runs == {"user": [Run(1000, 3000)], "bot": [Run(1000, 1500)]}
    assert [mark for mark in notes.marks if mark[0] == "end"] == [
        ("end", "user", 103.0, False),
        ("end", "bot", 101.5, False),
    ]


def test_a_bot_that_is_hung_up_on_was_interrupted(speech: Speech, notes: Notes) -> None:
    speech.bot_started()
    for _ in range(10):
        speech.bot_audio(101.0, 200, RATE)
    speech.finish(101.5, cut_off=True)
    assert notes.marks[-1] == ("end", "bot", 101.5, True)
    assert notes.runs == [("bot", Run(800, 1500))]


async def test_what_is_still_playing_at_the_end_of_a_recording_is_said_to_its_end(
    speech: Speech, notes: Notes
) -> None:
    speech.bot_started()
    for _ in range(10):
        speech.bot_audio(101.0, 200, RATE)
    speech.bot_stopped(101.0)
    speech.finish(101.1)
    assert notes.marks[-1] == ("end", "bot", 102.8, False)
    await asyncio.sleep(0)
    assert len(notes.marks) == 2


# -- the conversation's turns ----------------------------------------------------------------------


def test_speech_is_of_the_conversations_turn_it_began_in(notes: Notes) -> None:
    speech = Speech(100.0, RATE, notes, turn=1)
    speech.user_started(101.0)
    speech.user_stopped(102.0)
    speech.bot_started()
    play(speech, 102.0, 0.5)
    speech.user_started(102.5)
    speech.turn_ended(1, interrupted=True)
    speech.turn_began(2)
    speech.interrupted(102.6)
    speech.bot_stopped(102.6)
    speech.user_stopped(103.0)
    assert notes.numbers == [("user", 1), ("bot", 1), ("user", 2)]
    assert [mark[3] for mark in notes.marks if mark[0] == "end"] == [False, True, False]


def test_where_nobody_counts_turns_have_no_number(speech: Speech, notes: Notes) -> None:
    speech.user_started(101.0)
    speech.user_stopped(102.0)
    assert notes.numbers == [("user", None)]


def test_a_bot_that_was_talked_over_was_interrupted_if_who_counts_the_turns_says_so(
    notes: Notes,
) -> None:
    speech = Speech(100.0, RATE, notes, turn=4)
    speech.bot_started()
    play(speech, 101.0, 0.5)
    speech.turn_ended(4, interrupted=True)
    play(speech, 101.5, 0.5)
    speech.bot_stopped(102.0)
    speech.bot_started()
    play(speech, 103.0, 0.5)
    speech.bot_stopped(103.5)
    assert [mark[2:] for mark in notes.marks if mark[0] == "end"] == [(102.0, True), (103.5, False)]
    assert notes.numbers == [("bot", 4), ("bot", 5)]


async def test_the_pipelines_end_does_not_make_a_turn_interrupted_that_was_said(
    notes: Notes,
) -> None:
    speech = Speech(100.0, RATE, notes, turn=1)
    speech.bot_started()
    play(speech, 101.0, 0.5)
    speech.bot_stopped(101.5)
    speech.turn_ended(1, interrupted=True)
    assert notes.marks[-1] == ("end", "bot", 101.5, False)


def test_what_is_still_needed(speech: Speech) -> None:
    assert speech.open_from(9000) == 9000
    talk(speech, 100.0, 103.0)
    speech.user_started(103.0)
    assert speech.open_from(9000) == 2000
    talk(speech, 103.0, 104.0)
    speech.user_stopped(104.0)
    assert speech.open_from(9000) == 2000
    speech.turn_ended(1)
    assert speech.open_from(9000) == 9000


# -- a run of speech, in the audio ----------------------------------------------------------------


@pytest.mark.parametrize("off", [-9, 0, 9])
def test_a_run_is_found_close_to_where_it_was_expected(off: int) -> None:
    said = np.arange(1, 101, dtype="<i2")
    audio = np.zeros(130, "<i2")
    audio[10 + off : 110 + off] = said
    assert fitted(audio[: 10 + 100 + 10].tobytes(), 10, 100, 10) == said.tobytes()


def test_a_run_of_a_microphone_that_goes_on_ends_where_the_speaker_did() -> None:
    audio = np.arange(1, 121, dtype="<i2")
    assert fitted(audio.tobytes(), 0, 100, 10) == audio[:100].tobytes()


def test_a_run_of_nothing_but_silence_is_as_long_as_it_was() -> None:
    assert fitted(bytes(240), 10, 100, 10) == bytes(200)


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
