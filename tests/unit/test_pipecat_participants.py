"""Which track a participant is on."""

from __future__ import annotations

import headless  # noqa: F401 - imports Pipecat without its warning
import pytest
from loguru import logger

from recorder.names import MAX_PARTICIPANT, InvalidName
from recorder.pipecat.participants import MAX_USERS, OTHERS, Participants, Voice


def tracks(participants: Participants, *user_ids: str | None) -> list[str]:
    return [participants.voice(user_id).track for user_id in user_ids]


def test_they_are_numbered_as_they_come() -> None:
    assert tracks(Participants(), "b", "a", None, "b", "") == [
        *("user", "user-2", "user-3", "user", "user-3")
    ]


def test_who_comes_back_has_the_track_of_before() -> None:
    participants = Participants()
    assert tracks(participants, "ann", "bob", "ann") == ["user", "user-2", "user"]


def test_two_sources_of_one_participant_are_two_tracks() -> None:
    participants = Participants({"ann": "ann"})
    assert participants.voice("ann", "microphone") == Voice("ann", "ann")
    assert participants.voice("ann", "screen") == Voice("ann-2", "ann")


def test_names_that_are_given() -> None:
    participants = Participants({"id-1": "ann", "id-2": "user"})
    assert tracks(participants, "x", "id-1", "id-2", "y") == ["user-2", "ann", "user", "user-3"]


def test_names_that_are_asked_for() -> None:
    participants = Participants(lambda user_id: {"1": "ann", "2": "ann"}.get(user_id))
    assert tracks(participants, "1", "2", "3", None) == ["ann", "ann-2", "user", "user-2"]


@pytest.mark.parametrize("name", ["Ann", "", "../ann", "mono", "bot", OTHERS, "a" * 33])
def test_a_mapping_is_checked_at_once(name: str) -> None:
    with pytest.raises(InvalidName):
        Participants({"id-1": name})


def test_a_name_is_given_once() -> None:
    with pytest.raises(InvalidName, match="2 participants"):
        Participants({"id-1": "ann", "id-2": "ann"})


@pytest.mark.parametrize("answer", ["Ann", "bot", 5, ValueError("of the bot's own")])
def test_a_function_that_fails_costs_a_name_and_nothing_else(answer: object) -> None:
    def name(_user_id: str) -> str | None:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR")
    try:
        assert tracks(Participants(name), "1") == ["user"]
    finally:
        logger.remove(sink)
    assert len(lines) == 1


def test_a_name_that_is_taken_gets_shorter_before_it_gets_too_long() -> None:
    participants = Participants(lambda _user_id: "a" * 32)
    assert tracks(participants, "1", "2") == ["a" * 32, "a" * 30 + "-2"]


def test_further_ones_share_a_track() -> None:
    participants = Participants()
    ids = [str(number) for number in range(MAX_USERS + 100)]
    names = tracks(participants, *ids)
    assert len(set(names)) == MAX_USERS + 1
    assert set(names[MAX_USERS:]) == {OTHERS}
    assert participants.voice("no end of ids").shared
    assert tracks(participants, *ids[:3]) == ["user", "user-2", "user-3"]
    assert len(participants._voices) == MAX_USERS


def test_another_recording_begins_anew() -> None:
    participants = Participants()
    tracks(participants, "ann", "bob")
    participants.forget()
    assert tracks(participants, "bob") == ["user"]


@pytest.mark.parametrize(
    ("user_id", "told"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Zoë 你好", "Zoë 你好"),
        ("a\nb\x1b[31m\u202eevil\ud800", "a\ufffdb\ufffd[31m\ufffdevil\ufffd"),
        ("x" * 5000, "x" * MAX_PARTICIPANT),
        ("", None),
        (None, None),
    ],
)
def test_what_is_said_of_a_participant(user_id: str | None, told: str | None) -> None:
    assert Participants().voice(user_id).participant == told


def test_nothing_is_said_of_participants_if_that_is_not_wanted() -> None:
    assert Participants({"ann": "a"}, tell=False).voice("ann") == Voice("a", None)
