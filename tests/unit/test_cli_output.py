"""Text from outside on a terminal, and numbers for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from loguru import logger

from recorder.cli import output

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain [red]text[/red] :smile:", "plain [red]text[/red] :smile:"),
        ("Grüße, 日本", "Grüße, 日本"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202etxt", "abc\\u202etxt"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_nothing_from_outside_steers_the_terminal(text: str, printed: str) -> None:
    assert output.clean(text) == printed


def test_cells_of_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = output.table("name", "size>")
    output.add_row(table, ("[bold]a[/bold] :bug:\x1b[2J", 5))
    output.stdout().print(table)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "size"]
    assert row.split() == ["[bold]a[/bold]", ":bug:\\x1b[2J", "5"]


def test_text_of_a_line_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.stdout().print("no recordings at file:///[bold]/:bug:")
    assert capsys.readouterr().out == "no recordings at file:///[bold]/:bug:\n"


def test_rows_that_go_into_a_file_are_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    table = output.table("name", "other")
    output.add_row(table, ("x" * 300, "y" * 300))
    output.stdout().print(table)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_lines_that_go_into_a_file_are_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(output.stderr(), "x" * 500)
    assert capsys.readouterr().err == f"Error: {'x' * 500}\n"


def test_an_error_of_several_lines_is_several_errors(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(output.stderr(), "one\ntwo [x]")
    assert capsys.readouterr().err == "Error: one\nError: two [x]\n"


def test_json_has_no_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": (1, None), 5: True})

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"a": [None, 1.5, {"b": None}], "c": [1, None], "5": True}


def test_json_is_ascii_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": "\x9b\u202e\x1b"})
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3 // 2, "2.5 GiB"),
        (1024**6, "1024.0 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00 s"),
        (59.99, "59.99 s"),
        (60, "1:00.0"),
        (119.96, "2:00.0"),
        (3599.96, "1:00:00.0"),
        (3723.54, "1:02:03.5"),
    ],
)
def test_lengths_of_time(amount: float, text: str) -> None:
    assert output.seconds(amount) == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [(-5, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (2e5, "2 d ago")],
)
def test_how_long_ago(passed: float, text: str) -> None:
    assert output.ago(NOW - timedelta(seconds=passed), NOW) == text
    assert output.ago(None, NOW) == ""


def test_one_and_many() -> None:
    assert [output.many(count, "part") for count in (0, 1, 2)] == ["0 parts", "1 part", "2 parts"]


@pytest.mark.parametrize(
    ("verbose", "printed"),
    [(0, ["warning: a\\x1bb [x]"]), (1, ["warn", "info"]), (2, ["warn", "info", "debug"])],
)
def test_how_much_is_logged(
    capsys: pytest.CaptureFixture[str], verbose: int, printed: list[str]
) -> None:
    with output.logging(output.stderr(), verbose):
        logger.warning("a\x1bb [x]")
        logger.info("b")
        logger.debug("c")
    logger.warning("not here")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(printed)
    if verbose == 0:
        assert lines == printed
