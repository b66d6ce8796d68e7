import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from recorder import names
from recorder.names import InvalidName
from uploader.errors import BotRecorderError


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "0" * 100, "20261123T130447Z-1f9c2a7b30d4", "a."])
def test_recording_ids_of_the_alphabet_are_taken(text):
    assert names.check_recording_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 101,
        ".a",
        "-a",
        "_a",
        "a..b",
        "a/b",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "a%2e",
        "٣",
        "\ud800",
    ],
)
def test_recording_ids_that_could_leave_their_folder_are_refused(text):
    with pytest.raises(InvalidName):
        names.check_recording_id(text)


@pytest.mark.parametrize("text", ["user", "bot", "caller-2", "a_b", "7", "x" * 32])
def test_track_names_are_taken(text):
    assert names.check_track(text) == text


@pytest.mark.parametrize("text", ["", "x" * 33, "User", "a.b", "a/b", "-a", "_a", "ß", "a\n"])
def test_track_names_out_of_the_alphabet_are_refused(text):
    with pytest.raises(InvalidName):
        names.check_track(text)


@pytest.mark.parametrize(
    "text", ["audio", "stereo", "mono", "manifest", "peaks", "turns", "chunks"]
)
def test_track_names_of_other_objects_are_refused(text):
    with pytest.raises(InvalidName, match="another object"):
        names.check_track(text)


@pytest.mark.parametrize("value", [None, 7, b"user", ["user"]])
@pytest.mark.parametrize("check", [names.check_recording_id, names.check_track, names.check_prefix])
def test_what_is_not_text_is_refused_as_such(check, value):
    with pytest.raises(InvalidName, match="not text"):
        check(value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("/", ""),
        ("calls", "calls"),
        ("/calls/team=a/", "calls/team=a"),
        ("a/" * 255 + "ab", "a/" * 255 + "ab"),
        ("x" * 255, "x" * 255),
    ],
)
def test_prefixes_lose_the_slashes_at_their_ends(given, kept):
    assert names.check_prefix(given) == kept


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "a/../b",
        "a..b",
        "./a",
        "a/./b",
        ".hidden",
        "a//b",
        "a\nb",
        "a\x00",
        "a b",
        "ü",
        "a\\b",
        "a/" * 256 + "a",
        "x" * 256,
    ],
)
def test_unsafe_prefixes_are_refused(text):
    with pytest.raises(InvalidName):
        names.check_prefix(text)


def test_metadata_names_are_lowered_as_s3_lowers_them():
    given = {"Customer-Id": "A b;c, d", "x_1": ""}
    assert names.check_metadata(given) == {"customer-id": "A b;c, d", "x_1": ""}


@pytest.mark.parametrize(
    "metadata",
    [
        {"": "a"},
        {"a b": "a"},
        {"a.b": "a"},
        {"\u212a": "kelvin sign lowers to k"},
        {"a:": "b"},
        {"recorder-id": "a"},
        {"Recorder-Id": "a"},
        {"a": "b", "A": "c"},
        {"a": "b\n"},
        {"a": "b\r\nx-amz-acl: public-read"},
        {"a": "ü"},
        {"a": "\x7f"},
        {"a": " b"},
        {"a": "b "},
        {"a": 1},
        {1: "a"},
    ],
)
def test_metadata_that_makes_no_header_is_refused(metadata):
    with pytest.raises(InvalidName):
        names.check_metadata(metadata)


def test_metadata_may_have_what_s3_takes_less_our_own():
    fits = {"name": "x" * (2048 - 512 - 4)}
    assert names.check_metadata(fits) == fits
    with pytest.raises(InvalidName, match="1537 bytes"):
        names.check_metadata({"name": fits["name"] + "x"})
    assert names.check_metadata({"name": "x" * 2044}, reserved=0)
    with pytest.raises(InvalidName):
        names.check_metadata({"name": "x" * 2045}, reserved=0)


def test_tags_that_s3_takes_are_taken():
    tags = {f"key {i}": "Größe 10+-=._:/@" for i in range(8)}
    tags |= {"k" * 128: "v" * 256, "empty": ""}
    assert names.check_tags(tags) == tags


@pytest.mark.parametrize(
    "tags",
    [
        {str(i): "" for i in range(11)},
        {"k" * 129: ""},
        {"k": "v" * 257},
        {"": "v"},
        {"aws:x": "v"},
        {"AWS:x": "v"},
        {"a&b": "v"},
        {"a": "b?"},
        {"a": "b\n"},
        {"a": "b\t"},
        {"a": None},
        {None: "a"},
    ],
)
def test_tags_that_s3_refuses_are_refused(tags):
    with pytest.raises(InvalidName):
        names.check_tags(tags)


def test_a_new_id_names_the_time_in_utc_and_is_an_id():
    now = datetime(2026, 11, 23, 14, 4, 47, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert names.new_recording_id(now, "1f9c2a7b30d4") == "20261123T130447Z-1f9c2a7b30d4"
    made = {names.new_recording_id(now) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"20261123T130447Z-[0-9a-f]{12}", name) for name in made)


def test_a_new_id_needs_a_timezone_and_a_safe_token():
    with pytest.raises(ValueError, match="timezone"):
        names.new_recording_id(datetime(2026, 11, 23))
    with pytest.raises(InvalidName):
        names.new_recording_id(datetime(2026, 11, 23, tzinfo=UTC), "a/b")


@pytest.mark.parametrize(
    "bad",
    ["x\ny" * 10, "x" * 1_000_000 + "/", ["\n"] * 1000, "\x1b[31m", "' or \""],
    ids=["lines", "long", "list", "escape", "quotes"],
)
@pytest.mark.parametrize("check", [names.check_recording_id, names.check_track, names.check_prefix])
def test_a_message_is_one_short_line_naming_value_and_rule(check, bad):
    with pytest.raises(InvalidName) as caught:
        check(bad)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 600
    assert "allowed are" in text
    assert text.endswith(caught.value.reason)


def test_an_invalid_name_is_an_error_of_ours_and_a_value_error():
    assert issubclass(InvalidName, BotRecorderError)
    assert issubclass(InvalidName, ValueError)


# -- participants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["ann", "Zoë 你好", "+49 30 1234", "x" * 128])
def test_participants(text):
    assert names.check_participant(text) == text == names.as_participant(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a\nb", "a\u202eb", "\ud800", "\x00", 5])
def test_participants_that_are_not_allowed(text):
    with pytest.raises(InvalidName, match="participant"):
        names.check_participant(text)
