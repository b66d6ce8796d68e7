"""`recorder recover`: finishes what dead processes and lost hosts have left behind."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from recorder.cli import options, output, recover_watch, runtime
from recorder.cli.recover_report import Report
from recorder.plan import Plan
from recorder.service import Recorder
from recorder.settings import Settings, SettingsError
from recorder.spool import PLAN, recordings_in
from uploader.errors import BotRecorderError

_OWN_BUCKET = "\0"
"""What `--bucket` without a location becomes: no argument of a program can be this."""

_UNSET = "RECORDER_BUCKET is not set"
_NO_BUCKET = "file:///-"
"""Stands for the bucket that is not set while the other settings are read; never opened."""

_INTERVAL_SECONDS = 10.0


class RecoverCommand(TyperCommand):
    """A command whose `--bucket` may come without a location, which Typer cannot say."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Typer moved the context's class
        """Read the command line."""
        following = [*args[1:], "-"]
        given = [
            f"{word}={_OWN_BUCKET}" if word == "--bucket" and then.startswith("-") else word
            for word, then in zip(args, following, strict=False)
        ]
        return super().parse_args(ctx, given)


def recover(
    bucket: Annotated[
        str | None,
        typer.Option(
            metavar="[LOCATION]",
            help="Also what lost hosts left in the bucket: this one, else RECORDER_BUCKET.",
        ),
    ] = None,
    spool: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Instead of RECORDER_SPOOL_DIR.")
    ] = None,
    stale_after: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Without a change for so long, a recording in the bucket counts as lost; three "
            "chunk lengths, at least 15 s, if not set. 0 is at once: only when all owners are "
            "gone for sure.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep looking, in spool and bucket, until a signal.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Between the looks of --watch; 10, or a third of a shorter --stale-after.",
        ),
    ] = None,
    heartbeat: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Touched by --watch with each look and each recording: old, if it hangs.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    unfenced: Annotated[
        bool,
        typer.Option(
            "--unfenced",
            help="Also where the bucket has no conditional writes to tell two owners apart: only "
            "when all owners are gone for sure.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each recording.")
    ] = False,
    verbose: options.Verbose = 0,
) -> None:
    """Finish the recordings of dead processes and, with --bucket, of lost hosts.

    What is still being recorded is left alone. Any number of these may run at once, anywhere.
    """
    console = output.stderr()

    def tell_wait(what: tuple[int, float]) -> None:
        count, seconds = what[0], math.ceil(what[1])
        which = "whether 1 recording is" if count == 1 else f"which of {count} recordings are"
        output.print_note(console, f"looking again in {seconds} s to see {which} alive")

    async def work(interrupts: runtime.Interrupts) -> int:
        searches = bucket is not None or watch
        _check(stale_after, interval, searches=searches, watch=watch, dry_run=dry_run)
        if heartbeat is not None and not watch:
            raise options.UsageError("--heartbeat is of --watch: add that, or leave it out")
        if unfenced and not searches:
            raise options.UsageError("--unfenced is for recordings in the bucket: add --bucket")
        settings = _settings(
            None if bucket == _OWN_BUCKET else bucket, spool, needs_bucket=searches
        )
        report = Report(settings, searches=searches, dry_run=dry_run, as_json=as_json)
        left = _left_in(settings.spool_dir)
        if watch:
            report.watching = True
            seconds = interval or min(_INTERVAL_SECONDS, (stale_after or math.inf) / 3)
            watcher = recover_watch.Watcher(settings, report, console, seconds, heartbeat)
            await watcher.run(interrupts, stale_after=stale_after, unfenced=unfenced)
            return runtime.SUCCESS
        if left or searches:
            if settings.bucket == _NO_BUCKET:
                settings = _of_spool(settings, left)
            await recover_watch.check_answer(settings)
            try:
                async with Recorder(settings, recover=False) as recorder:
                    await recorder.recover(
                        bucket=searches,
                        stale_after=stale_after,
                        dry_run=dry_run,
                        unfenced=unfenced,
                        on_recovered=report.take,
                        on_wait=tell_wait,
                    )
            except asyncio.CancelledError:
                output.print_note(console, "broken off: another run will go on with what is left")
                raise
        report.sum_up()
        if report.undone:
            output.print_error(console, f"not all is done: {report.undone}; their audio is kept")
            return runtime.FAILURE
        return runtime.SUCCESS

    runtime.run(work, console, verbose)


def _check(
    stale_after: float | None,
    interval: float | None,
    *,
    searches: bool,
    watch: bool,
    dry_run: bool,
) -> None:
    """Raise `UsageError` for numbers out of range, and for options that mean nothing together."""
    if stale_after is not None:
        if not (math.isfinite(stale_after) and stale_after >= 0):
            raise options.UsageError(f"--stale-after {stale_after:g}: must be 0 or more seconds")
        if not searches:
            raise options.UsageError("--stale-after is for recordings in the bucket: add --bucket")
        if watch and stale_after == 0:
            raise options.UsageError(
                "--stale-after 0: with --watch, it must be more, or live recordings are taken over"
            )
    if interval is not None:
        if not watch:
            raise options.UsageError("--interval is of --watch: add that, or leave it out")
        if not (math.isfinite(interval) and interval > 0):
            raise options.UsageError(f"--interval {interval:g}: must be more than 0 seconds")
    if watch and dry_run:
        raise options.UsageError("--dry-run: looks once, so that it does not go with --watch")


def _settings(bucket: str | None, spool: str | None, *, needs_bucket: bool) -> Settings:
    """Return the settings; with `_NO_BUCKET` if none is set and none is needed.

    Raises:
        SettingsError: Something is missing or wrong.
    """
    try:
        return options.make_settings(bucket=bucket, spool_dir=spool)
    except SettingsError as error:
        (first, *more) = error.problems
        if needs_bucket or more or not first.startswith(_UNSET):
            raise
    return options.make_settings(bucket=_NO_BUCKET, prefix="", spool_dir=spool)


def _left_in(spool: Path) -> list[str]:
    """Return the names of the recordings in a spool.

    Raises:
        BotRecorderError: It cannot be read.
    """
    try:
        return recordings_in(spool)
    except OSError as error:
        raise BotRecorderError(
            f"cannot read spool {spool}: {error.strerror}",
            hint="--spool or RECORDER_SPOOL_DIR must be the folder that the bots recorded into",
        ) from error


def _of_spool(settings: Settings, left: list[str]) -> Settings:
    """Return settings with the bucket of a recording in the spool; each goes to its own anyway.

    Raises:
        SettingsError: None of the recordings says where it goes.
    """
    for name in left:
        try:
            document = json.loads((settings.spool_dir / name / PLAN).read_bytes())
            return settings.replace(bucket=Plan.from_dict(document).location, prefix="")
        except (OSError, ValueError, BotRecorderError):
            continue  # what is wrong with it is reported with its recovery
    raise SettingsError(
        [f"{_UNSET}, and no recording in {settings.spool_dir} can be read to say where it goes"]
    )
