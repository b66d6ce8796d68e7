"""`recorder recover` as it is typed, what it says, and what `show` and `ls` say afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import Run, typed_in

from recorder.cli.recover_report import Report
from recorder.recovered import Outcome, Recovered
from recorder.result import Gap, RecordingResult, State
from recorder.service import Recorder
from recorder.settings import Settings
from uploader.errors import AccessDenied, TransientError
from uploader.local import LocalStore

FOLDER = "dt=2026-11-23/call/"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that types a command; bucket and spool are folders."""
    return typed_in(tmp_path, monkeypatch)


# -- what is typed ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--bucket", "--stale-after", "-1"), "--stale-after -1: must be 0 or more seconds"),
        (("--bucket", "--stale-after", "nan"), "--stale-after nan: must be 0 or more seconds"),
        (("--stale-after", "5"), "--stale-after is for recordings in the bucket: add --bucket"),
        (("--watch", "--stale-after", "0"), "--stale-after 0: with --watch, it must be more"),
        (("--interval", "5"), "--interval is of --watch"),
        (("--bucket", "--interval", "5"), "--interval is of --watch"),
        (("--watch", "--interval", "0"), "--interval 0: must be more than 0 seconds"),
        (("--watch", "--interval", "-3"), "--interval -3: must be more than 0 seconds"),
        (("--watch", "--interval", "inf"), "--interval inf: must be more than 0 seconds"),
        (("--watch", "--dry-run"), "--dry-run: looks once"),
        (("--heartbeat", "alive"), "--heartbeat is of --watch"),
        (("--unfenced",), "--unfenced is for recordings in the bucket: add --bucket"),
        (("--bucket", "ftp://calls"), "bucket='ftp://calls': must be a bucket's name"),
        (("--bucket=",), "bucket='': must be a bucket's name"),
        (("--bucket", ""), "bucket='': must be a bucket's name"),
    ],
)
def test_wrong_input_is_one_clear_error(run: Run, words: tuple[str, ...], told: str) -> None:
    done = run("recover", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {told}")


@pytest.mark.parametrize("value", ["soon", "1e"])
def test_seconds_that_are_no_number_are_wrong_input(run: Run, value: str) -> None:
    assert run("recover", "--bucket", "--stale-after", value).exit_code == 2


def test_a_spool_that_is_no_folder_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    done = run("recover")
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: cannot read spool {tmp_path / 'spool'}: Not a directory")


def test_without_a_spool_there_is_nothing_to_recover_and_no_bucket_is_needed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECORDER_BUCKET")
    done = run("recover")
    told = f"nothing to recover in {tmp_path / 'spool'}\n"
    assert (done.exit_code, done.stdout, done.stderr) == (0, told, "")
    done = run("recover", "--spool", tmp_path / "other")
    assert done.stdout == f"nothing to recover in {tmp_path / 'other'}\n"
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("words", [("--bucket",), ("--watch",)])
def test_to_look_through_a_bucket_one_must_be_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("RECORDER_BUCKET")
    done = run("recover", *words)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: RECORDER_BUCKET is not set: must be a bucket's name")


def test_a_wrong_bucket_is_an_error_even_where_none_is_needed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDER_BUCKET", "ftp://calls")
    done = run("recover")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: RECORDER_BUCKET='ftp://calls': must be")


def test_all_that_is_wrong_with_the_settings_is_told_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECORDER_BUCKET")
    monkeypatch.setenv("RECORDER_DRAIN_SECONDS", "-1")
    done = run("recover")
    assert done.exit_code == 2
    assert "RECORDER_BUCKET is not set" in done.stderr
    assert "RECORDER_DRAIN_SECONDS='-1'" in done.stderr


def test_where_no_recording_says_where_it_goes_a_bucket_must_be_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECORDER_BUCKET")
    (tmp_path / "spool" / "ill").mkdir(parents=True)
    (tmp_path / "spool" / "ill" / "recording.json").write_text("[]")
    done = run("recover")
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: RECORDER_BUCKET is not set, and no recording in ")


@pytest.mark.parametrize(
    "words", [("--bucket", "--dry-run"), ("--dry-run", "--bucket"), ("--bucket", "-v")]
)
def test_a_bucket_without_a_value_is_the_settings_own(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "bucket").mkdir()
    done = run("recover", *words)
    places = f"in {tmp_path / 'spool'} or at {(tmp_path / 'bucket').as_uri()}"
    assert (done.exit_code, done.stdout) == (0, f"nothing to recover {places}\n")


@pytest.mark.parametrize("form", ["--bucket={}", "--bucket {}"])
def test_a_bucket_with_a_value_is_that_one(run: Run, tmp_path: Path, form: str) -> None:
    (tmp_path / "other").mkdir()
    url = (tmp_path / "other").as_uri()
    done = run("recover", *form.format(url).split(), "--stale-after", "0")
    assert done.exit_code == 0
    assert done.stdout.endswith(f" or at {url}\n")


# -- what is done ----------------------------------------------------------------------------------


Calls = list[dict[str, Any]]


@pytest.fixture
def troubles() -> list[Exception]:
    """What the first recoveries end with."""
    return []


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, troubles: list[Exception]) -> Calls:
    """Have `Recorder.recover` note how it was called; a watch gets a signal in mid-work."""
    (tmp_path / "bucket").mkdir()
    noted: Calls = []

    async def recover(self: Recorder, **options: Any) -> list[Recovered]:
        del options["on_recovered"]
        options.pop("on_wait", None)
        noted.append(options)
        if troubles:
            raise troubles.pop(0)
        if options.get("wait") is False:
            signal.raise_signal(signal.SIGTERM)
        if self.settings.drain_seconds < 1:
            await asyncio.Event().wait()
        return []

    monkeypatch.setattr(Recorder, "recover", recover)
    return noted


def test_the_options_reach_the_recovery(run: Run, calls: Calls) -> None:
    assert run("recover", "--bucket").exit_code == 0
    words = ("--stale-after", "7.5", "--dry-run", "--unfenced")
    assert run("recover", "--bucket", *words).exit_code == 0
    none = {"stale_after": None, "dry_run": False, "unfenced": False}
    given = {"stale_after": 7.5, "dry_run": True, "unfenced": True}
    assert calls == [{"bucket": True, **none}, {"bucket": True, **given}]


def test_a_watch_looks_in_both_places_without_waiting_until_a_signal(
    run: Run, calls: Calls
) -> None:
    done = run("recover", "--watch", "--unfenced", "--stale-after", "6")
    assert (done.exit_code, done.stdout) == (0, "recovered 0, failed 0\n")
    assert calls == [{"bucket": True, "wait": False, "stale_after": 6.0, "unfenced": True}]
    assert "every 2 s" in done.stderr
    assert "every 10 s" in run("recover", "--watch").stderr
    assert "every 4 s" in run("recover", "--watch", "--interval", "4").stderr


def test_a_watch_touches_its_heartbeat_with_each_look(
    run: Run, calls: Calls, troubles: list[Exception], tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    troubles.append(TransientError("the endpoint is away", op="list_level"))
    assert run("recover", "--watch", "--interval", "0.01", "--heartbeat", alive).exit_code == 0
    assert alive.is_file()
    nowhere = tmp_path / "not" / "there"
    done = run("recover", "--watch", "--heartbeat", nowhere)
    assert (done.exit_code, len(calls)) == (0, 3)
    assert f"cannot touch {nowhere}: No such file" in done.stderr


def test_a_watch_goes_on_after_errors(run: Run, calls: Calls, troubles: list[Exception]) -> None:
    away = TransientError("the endpoint is away", op="list_level")
    refused = AccessDenied("not now", op="list_level")
    troubles += [away, OSError(5, "the disk is away"), refused]
    done = run("recover", "--watch", "--interval", "0.01")
    assert done.exit_code == 0
    assert len(calls) == 4
    told = [line for line in done.stderr.splitlines() if "could not look, again in " in line]
    for line, trouble in zip(told, ("endpoint is away", "disk is away", "not now"), strict=True):
        assert trouble in line


def test_a_watch_waits_for_what_is_in_hand_no_longer_than_the_drain(
    run: Run, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDER_DRAIN_SECONDS", "0.05")
    done = run("recover", "--watch")
    assert (done.exit_code, len(calls)) == (0, 1)
    assert "not all in hand was done in time" in done.stderr


# -- what is said ----------------------------------------------------------------------------------


def report(**options: Any) -> Report:
    settings = Settings(bucket="s3://calls", spool_dir="/spool")
    return Report(settings, **{"searches": True, **options})


def result(state: State, *gaps: Gap) -> RecordingResult:
    return RecordingResult("call", state, "s3://calls/call/", 2.5, 20_000, 8000, 3, gaps=gaps)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_gaps_are_told_with_their_ends_known_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    gaps = Gap("user", 4000, 8000, "spool full"), Gap("bot", 20_000, None, "host lost")
    outcome = result(State.COMPLETED_WITH_GAPS, *gaps)
    report().take(Recovered("call", "bucket", Outcome.RECOVERED, outcome))
    assert printed(capsys) == [
        "call  recovered  from bucket  2.50 s  completed_with_gaps  s3://calls/call/",
        "  missing of user, from 0.50 s to 1.00 s: spool full",
        "  missing of bot, from 2.50 s to nobody knows when: host lost",
    ]


def test_many_gaps_are_cut_short_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    gaps = [Gap("user", 8 * index, 8 * index + 4, "full") for index in range(25)]
    outcome = result(State.COMPLETED_WITH_GAPS, *gaps)
    report().take(Recovered("call", "spool", Outcome.RECOVERED, outcome))
    lines = printed(capsys)
    assert len(lines) == 22
    assert lines[-1] == "  and 5 more gaps; recorder show lists all"


def test_the_last_line_counts_what_came_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    made = report()
    for index, outcome in enumerate([*Outcome, Outcome.RECOVERED]):
        made.take(Recovered(f"call-{index}", "spool", outcome, reason="why", hint="do this"))
    made.sum_up()
    *lines, last = printed(capsys)
    told = "recovered 2, continued 1, cleaned 1, pending 1, failed 1, alive 1, taken 1"
    assert last == told
    assert lines[:3] == ["call-0  recovered  from spool", "  why", "  do this"]
    assert made.undone == "1 pending, 1 failed"


def test_what_is_done_after_it_was_pending_is_not_undone_any_more() -> None:
    made = report()
    made.take(Recovered("call", "spool", Outcome.PENDING, reason="away"))
    assert made.undone == "1 pending"
    made.take(Recovered("call", "bucket", Outcome.RECOVERED))
    assert made.undone == ""


def test_text_from_a_bucket_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    report().take(Recovered("c\x1b[2J", "bucket", Outcome.FAILED, reason="r\x1b[A", hint="\r"))
    assert printed(capsys) == ["c\\x1b[2J  failed  from bucket", "  r\\x1b[A", "  \\r"]


def test_a_live_recording_is_told_once_though_spool_and_bucket_have_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = report()
    for source in ("spool", "bucket"):
        made.take(Recovered("call", source, Outcome.ALIVE, reason=source))
    made.sum_up()
    assert printed(capsys) == [
        "call  alive  from spool",
        "  spool",
        "recovered 0, failed 0, alive 1",
    ]


def test_a_watch_tells_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    made = report(as_json=True)
    made.watching = True
    ill = Recovered("ill", "spool", Outcome.FAILED, reason="damaged")
    live = Recovered("live", "spool", Outcome.ALIVE)
    worse = Recovered("ill", "spool", Outcome.FAILED, reason="worse")
    for one in (ill, ill, worse, worse):
        made.begin_look()
        made.take(one)
        made.take(live)
    made.begin_look()  # it was not there
    made.begin_look()
    made.take(worse)
    told = [json.loads(line) for line in printed(capsys)]
    made.sum_up()
    assert printed(capsys) == []
    assert [(one["recording_id"], one["reason"]) for one in told] == [
        ("ill", "damaged"),
        ("ill", "worse"),
        ("ill", "worse"),
    ]


def test_a_watch_that_was_ended_in_mid_work_does_not_say_there_was_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = report()
    made.watching = True
    made.sum_up()
    assert printed(capsys) == ["recovered 0, failed 0"]


# -- show and ls -----------------------------------------------------------------------------------


def store_manifest(tmp_path: Path, **changes: Any) -> None:
    document = {
        "version": 1,
        "owner": "x",
        "epoch": 3,
        "revision": 3,
        "state": "completed_with_gaps",
        "started_at": "2026-11-23T10:00:00+00:00",
        "sample_rate": 24000,
        "samples": 144000,
        "duration_seconds": 6.0,
        **changes,
    }

    async def work() -> None:
        async with LocalStore(tmp_path / "bucket") as store:
            await store.put(f"{FOLDER}manifest.json", json.dumps(document).encode())
            await store.put(f"{FOLDER}chunks/000001.wav", b"x")

    asyncio.run(work())


RECOVERED = {
    "recovered": [
        {"from": "spool", "at": "2026-11-23T10:05:00+00:00", "epoch": 2},
        {"from": "bucket", "at": "2026-11-23T10:07:00+00:00", "epoch": 3},
    ],
    "continuations": [
        {"folder": f"{FOLDER}continuation-ab/", "first_sample": 144_000, "samples": 36_000}
    ],
    "leftovers": [f"{FOLDER}chunks/000001.wav", f"{FOLDER}chunks/000002.wav"],
    "chunks": [
        {"number": 1, "first_sample": 0, "samples": 72000, "bytes": 144080},
        {"number": 3, "first_sample": 72000, "samples": 72000, "bytes": 1, "lost": True},
    ],
    "gaps": [{"track": "user", "start": 144_000, "end": None, "reason": "host lost"}],
}


def test_show_tells_a_recordings_history(run: Run, tmp_path: Path) -> None:
    store_manifest(tmp_path, **RECOVERED)
    done = run("show", "call")
    assert done.exit_code == 0
    text = re.sub(" +", " ", done.stdout)
    for told in (
        "recovered from the spool, 2026-11-23 10:05:00 UTC, epoch 2",
        " from the bucket, 2026-11-23 10:07:00 UTC, epoch 3",
        "continuation-ab/ 144,000 36,000 1.50 s",
        "2 objects left over that could not be deleted:\n chunks/000001.wav\n"
        " chunks/000002.wav (gone by now)\n",
        "3 72,000 72,000 1 B lost, outputs are silent there",
        "user 144,000 unknown host lost",
    ):
        assert told in text


def test_ls_tells_what_was_recovered(run: Run, tmp_path: Path) -> None:
    store_manifest(tmp_path, **RECOVERED)
    assert "completed_with_gaps, recovered, late audio, 2 left over" in run("ls").stdout
    (told,) = json.loads(run("ls", "--json").stdout)
    assert (told["recovered"], told["continuations"], told["leftovers"]) == (2, 1, 2)


def test_show_and_ls_say_nothing_of_what_never_was(run: Run, tmp_path: Path) -> None:
    store_manifest(tmp_path, recovered=[], continuations=[], leftovers=[])
    text = run("show", "call").stdout + run("ls").stdout
    for word in ("recovered", "late audio", "left over", "lost"):
        assert word not in text


@pytest.mark.parametrize("nonsense", [7, "x", [7], [{}], {"a": 1}, [[]], [None]])
def test_nonsense_in_a_manifest_breaks_neither(run: Run, tmp_path: Path, nonsense: object) -> None:
    names = ("recovered", "continuations", "leftovers")
    store_manifest(tmp_path, **dict.fromkeys(names, nonsense))
    assert run("show", "call").exit_code == 0
    assert run("ls").exit_code == 0


def test_control_characters_in_a_history_are_escaped(run: Run, tmp_path: Path) -> None:
    store_manifest(
        tmp_path,
        recovered=[{"from": "\x1b[2J"}],
        continuations=[{"folder": "\x1b[2J"}],
        leftovers=["\x1b[2J"],
    )
    text = run("show", "call").stdout
    assert text.count("\\x1b[2J") == 3
    assert "\x1b" not in text
