"""`recorder assemble`: outputs rebuilt from the chunks that were kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, get_args

import typer

from recorder.assemble import Assembled
from recorder.assemble import assemble as rebuild
from recorder.cli import options, output, runtime
from recorder.names import shown
from recorder.settings_values import OutputName


def assemble(
    recording_id: options.RecordingId,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Of mono, stereo, tracks, turns, with commas; as it was recorded if not given.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that are there.")
    ] = False,
    bucket: options.Bucket = None,
    day: options.Day = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Rebuild outputs of a finished recording from its chunks, where they were kept."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        name, chosen = options.one_recording(recording_id, day)
        layouts = _layouts(layout)
        async with options.open_store(bucket) as store:
            done = await rebuild(store, name, layouts, day=chosen, overwrite=overwrite)
        if as_json:
            output.print_json(asdict(done))
        else:
            _print(done)
        return runtime.SUCCESS

    runtime.run(work, console, verbose)


def _layouts(text: str | None) -> tuple[OutputName, ...]:
    """Return the layouts that an option names.

    Raises:
        UsageError: One is none.
    """
    allowed = get_args(OutputName)
    names = [one.strip() for one in text.split(",")] if text is not None else []
    for name in names:
        if name not in allowed:
            raise options.UsageError(f"--layout {shown(name)}: must be of {', '.join(allowed)}")
    return tuple(one for one in allowed if one in names)


def _print(done: Assembled) -> None:
    table = output.table("output", "object", "size>", "length>", "parts>", "crc64nvme")
    for made in done.outputs:
        output.add_row(
            table,
            (
                "turn" if "/" in made.name else made.name,
                made.url,
                output.size(made.bytes),
                output.seconds(made.duration_seconds),
                made.parts or "",
                made.checksum,
            ),
        )
    output.stdout().print(table)
