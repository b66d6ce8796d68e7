"""`recorder backfill`: works on a whole archive, here or on a Ray cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from recorder.cli import options, output, runtime

if TYPE_CHECKING:
    from recorder.postprocess.backfill import Engine, Progress
    from recorder.postprocess.run import Processed
    from recorder.settings import Settings

ENGINES = ("local", "ray")
TELL_SECONDS = 30.0
"""How often a line tells how far it is, where there is no terminal for one that moves."""


def backfill(
    prefix: Annotated[
        str,
        typer.Option(
            metavar="BEGINNING",
            help="Only recordings whose folder begins so: dt=2026-11, dt=2026-11-23/20261123T15.",
        ),
    ] = "",
    steps: options.Steps = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where: in this process, or on a Ray cluster.")
    ] = "local",
    concurrency: options.Concurrency = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The Ray cluster's; RAY_ADDRESS, or else one of this machine's own, if not set.",
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Do the steps where they are done already, too.")
    ] = False,
    bucket: options.Bucket = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each recording.")
    ] = False,
    verbose: options.Verbose = 0,
) -> None:
    """Post-process an archive. Broken off, it is gone on with by running it again.

    What is done is kept beside each recording, and not done twice.
    """
    console = output.stderr()

    async def work(interrupts: runtime.Interrupts) -> int:
        from recorder.postprocess import backfill as archive

        if engine not in ENGINES:
            raise options.UsageError(f"--engine {engine!r}: must be {' or '.join(ENGINES)}")
        if ray_address is not None and engine != "ray":
            raise options.UsageError("--ray-address is for --engine ray")
        wanted = archive.check_key_prefix(prefix)
        settings = options.make_settings(
            bucket=bucket, postprocess_steps=steps, postprocess_concurrency=concurrency
        )
        where = archive.explain_prefix(wanted, settings)
        display = _Display(console, as_json=as_json)
        try:
            async with _opened(
                engine, settings, wanted, again, ray_address, concurrency, verbose
            ) as opened:
                days = await _days(settings, wanted)
                with display.shown():
                    progress = await archive.run(
                        opened, days, on_done=display.take, on_progress=display.show
                    )
        except asyncio.CancelledError:
            output.print_note(console, "broken off: another run will go on with what is left")
            raise
        display.sum_up(progress, where)
        return runtime.FAILURE if progress.undone else runtime.SUCCESS

    runtime.run(work, console, verbose)


@asynccontextmanager
async def _opened(
    name: str,
    settings: Settings,
    prefix: str,
    again: bool,
    address: str | None,
    concurrency: int | None,
    verbose: int,
) -> AsyncIterator[Engine]:
    """Open an engine."""
    # The clients take a second to import: only who uses them waits for that.
    from recorder.postprocess.backfill import LocalEngine
    from recorder.postprocess.backfill_ray import open_ray
    from recorder.postprocess.run import Processor

    if name == "ray":
        opening = open_ray(
            settings,
            steps=settings.postprocess_steps,
            prefix=prefix,
            again=again,
            address=address,
            width=concurrency,
            logs=verbose > 0,
        )
        # Ray prints what it has to say of its nodes, and results are no place for that.
        with redirect_stdout(sys.stderr):
            async with opening as ray:
                yield ray
        return
    async with Processor(settings) as processor:
        yield LocalEngine(processor, prefix, again=again)


async def _days(settings: Settings, prefix: str) -> list[str]:
    from recorder.postprocess.backfill import list_days
    from recorder.stores import make_store

    async with make_store(settings) as store:
        return await list_days(store, prefix)


class _Display:
    """What is seen of a run: a line that moves, recordings that something was done with, a sum."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._stdout, self._results = output.stdout(), sys.stdout
        self._bar: Bar | None = None
        self._task: Any = None
        self._told = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show a line that moves, if there is a terminal."""
        self._told = asyncio.get_running_loop().time()
        if not self._console.is_terminal:
            yield
            return
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}")
        with Bar(*columns, console=self._console, transient=True) as self._bar:
            self._task = self._bar.add_task("post-processing", total=None, far="")
            yield

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        far = (
            f"{progress.worked} of {progress.found} recordings, "
            f"{progress.listed} of {output.many(progress.days, 'day')} listed"
        )
        if self._bar is not None:
            total = progress.found if progress.listed == progress.days else None
            self._bar.update(self._task, completed=progress.worked, total=total, far=far)
        elif (now := asyncio.get_running_loop().time()) - self._told >= TELL_SECONDS:
            self._told = now
            output.print_note(self._console, far)

    def take(self, one: Processed) -> None:
        """Print a recording that something was done with, or should have been."""
        if self._as_json:
            print(json.dumps(one.to_dict()), file=self._results, flush=True)
        elif one.steps or not one.settled:
            did = ", ".join(f"{name} {state}" for name, state in one.steps.items())
            reason = one.reason.replace(one.place.folder, "")
            parts = [one.place.recording_id, str(one.verdict), did, reason]
            line = output.clean("  ".join(part for part in parts if part))
            self._stdout.print(line, soft_wrap=True)

    def sum_up(self, progress: Progress, where: str) -> None:
        """Print what came of all."""
        counts = progress.verdicts
        told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
        found = f"{output.many(progress.found, 'recording')} at {where}"
        output.print_note(self._console, f"{found}: {told}" if told else found)
