"""`recorder ls`: which recordings there are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from recorder.catalog import Catalog, Page, Recording
from recorder.cli import options, output, runtime
from recorder.cli.show import has_peaks, leftovers
from recorder.stores import make_store

DEFAULT_LIMIT = 50


def ls(
    bucket: options.Bucket = None,
    day: options.Day = None,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many.")] = DEFAULT_LIMIT,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """List recordings, newest first."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        if limit < 1:
            raise options.UsageError(f"--limit {limit}: must be 1 or more")
        chosen = options.parse_day(day)
        settings = options.make_settings(bucket=bucket)
        async with make_store(settings) as store:
            page = await Catalog(store).newest(limit, chosen)
        if as_json:
            output.print_json([_plain(recording) for recording in page.recordings])
        else:
            _print_table(page, str(settings.location))
        return runtime.SUCCESS

    runtime.run(work, console, verbose)


def _plain(recording: Recording) -> dict[str, Any]:
    manifest = recording.manifest
    return {
        "recording_id": recording.recording_id,
        "day": recording.day,
        "state": recording.state,
        "started_at": recording.started_at.isoformat() if recording.started_at else None,
        "duration_seconds": manifest.number("duration_seconds"),
        "chunks": len(manifest.items("chunks")),
        "outputs": len(manifest.items("outputs")),
        "output_bytes": recording.output_bytes,
        "peaks": has_peaks(manifest),
        "exports": len(manifest.items("exports")),
        "gaps": len(manifest.items("gaps")),
        "recovered": len(manifest.items("recovered")),
        "continuations": len(manifest.items("continuations")),
        "leftovers": len(leftovers(manifest)),
        "uploads": None if recording.uploads is None else len(recording.uploads),
        "written_at": recording.written.isoformat() if recording.written else None,
        "problem": recording.problem,
    }


def _print_table(page: Page, location: str) -> None:
    console = output.stdout()
    if not page.recordings:
        console.print(output.clean(f"no recordings at {location}"))
        return
    now = datetime.now(UTC)
    # 80 columns wide, for what is complete.
    table = output.table(
        "recording!", "started (UTC)", "state", "length>", "chunks>", "outputs>", gap=1
    )
    for recording in page.recordings:
        manifest = recording.manifest
        output.add_row(
            table,
            (
                recording.recording_id,
                output.moment(recording.started_at, form="%Y-%m-%d %H:%M"),
                output.state_text(recording.state, _remark(recording, now)),
                output.seconds(manifest.number("duration_seconds")),
                len(manifest.items("chunks")),
                output.size(recording.output_bytes),
            ),
        )
    console.print(table)
    if page.more:
        console.print(f"There are older ones; --limit {2 * len(page.recordings)} shows more.")


def _remark(recording: Recording, now: datetime) -> str:
    """Return what else is to be known: its last sign of life, what became of it, its uploads."""
    remarks = []
    if recording.problem:
        remarks.append(recording.problem)
    if recording.state == "recording" and (sign := output.ago(recording.written, now)):
        remarks.append(sign)
    if recording.manifest.items("recovered"):
        remarks.append("recovered")
    if recording.manifest.items("continuations"):
        remarks.append("late audio")
    if exports := recording.manifest.items("exports"):
        remarks.append(output.many(len(exports), "export"))
    if left := leftovers(recording.manifest):
        remarks.append(f"{len(left)} left over")
    if recording.uploads:
        remarks.append(output.many(len(recording.uploads), "upload"))
    return "".join(f", {remark}" for remark in remarks)
