"""The benchmarks' table and picture, and what watches an event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.feed import ends_step, steps
from bench.loop_holds import Holds, watched
from bench.plot import as_svg
from bench.report import Floor, Row, as_text, by_ratio
from bench.trial import middle

MACHINE = {
    "cpu": "Some <CPU>",
    "cores": 2,
    "python": "3.11",
    "load_before": 0.1,
    "load_after": 0.2,
    "others_cores": 0.0,
    "disturbed": False,
}
HALF = by_ratio("half", "s", 2.0, 1.0, 0.6, note="of what")
MORE = by_ratio("more & more", "s", 1.0, 1.5, 0.6)
ALONE = Row("alone", "s", None, 5.0, "bounded", None)


def cells(text: str, what: str) -> list[str]:
    [line] = [line for line in text.splitlines() if line.startswith(f"{what}  ")]
    return line.removeprefix(what).split()


def test_a_ratio_is_ours_by_theirs_and_met_up_to_the_goal() -> None:
    assert HALF.ratio == 0.5
    assert (HALF.met, MORE.met) == (True, False)
    assert by_ratio("exact", "s", 2.0, 1.0, 0.5).met
    assert ALONE.ratio is None


def test_the_table_has_both_columns_and_says_what_is_met() -> None:
    text = as_text([HALF, MORE, ALONE], [Floor("a copy", 0.07)], MACHINE)
    assert cells(text, "half") == ["2", "1", "s", "0.50", "ratio", "0.6", "yes"]
    assert cells(text, "more & more") == ["1", "1.5", "s", "1.50", "ratio", "0.6", "NO"]
    assert cells(text, "alone") == ["none", "5", "s", "-", "bounded", "-"]
    assert "a copy: 0.07 CPU s/h" in text
    assert "half: of what" in text
    assert "BUSY" not in text


def test_a_busy_machine_is_told() -> None:
    assert "BUSY" in as_text([HALF], [], {**MACHINE, "disturbed": True, "others_cores": 1.5})


def test_the_picture_has_what_can_be_compared() -> None:
    svg = as_svg([HALF, MORE, ALONE], MACHINE["cpu"])  # type: ignore[arg-type]
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>\n")
    assert "Some &lt;CPU&gt;" in svg
    assert "more &amp; more" in svg
    assert "alone" not in svg


def test_the_median_is_of_one_figure() -> None:
    assert middle([{"cpu": 3}, {"cpu": 1}, {"cpu": 2}], "cpu") == 2.0


def test_the_longest_holds_are_kept() -> None:
    holds = Holds()
    for number in range(100):
        holds.note(number / 1000, number / 2000)
    assert holds.longest_wall == 99.0
    assert holds.longest_cpu == 49.5
    assert sorted(holds.wall) == [float(number) for number in range(90, 100)]


async def test_every_callback_of_the_loop_is_watched_and_of_no_other() -> None:
    async def other() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    with watched(asyncio.get_running_loop()) as holds:
        await asyncio.to_thread(asyncio.run, other())
        seen = len(holds.wall)
        await asyncio.sleep(0)
    assert 0 < seen < 10
    assert asyncio.Handle._run.__module__ == "asyncio.events"  # type: ignore[attr-defined]


def test_every_group_can_be_run_by_itself() -> None:
    from bench.__main__ import GROUPS

    folder = Path(__file__).parent.parent / "bench"
    assert all((folder / f"{group}.py").is_file() for group in GROUPS)


def test_steps_end_where_chunks_are_due_and_leave_nothing_out() -> None:
    found = list(steps(95))
    assert found == [(0, 1600), (1600, 3100), (3100, 4600), (4600, 4750)]
    ends = [number for number in range(4700) if ends_step(number)]
    assert ends == [1600, 3100, 4600]
