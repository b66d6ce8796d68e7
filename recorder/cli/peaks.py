"""`recorder peaks`: the waveform of a finished recording, computed from its stored audio."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from recorder.cli import options, output, runtime
from recorder.peaks import write_peaks


def peaks(
    recording_id: options.RecordingId,
    samples_per_pixel: Annotated[
        int | None,
        typer.Option(metavar="N", help="What each point stands for; as set when it was recorded."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the waveform that is there.")
    ] = False,
    bucket: options.Bucket = None,
    day: options.Day = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Write a finished recording's waveform, peaks.json, if it is missing or damaged."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        name, chosen = options.one_recording(recording_id, day)
        async with options.open_store(bucket) as store:
            done = await write_peaks(
                store, name, day=chosen, samples_per_pixel=samples_per_pixel, overwrite=overwrite
            )
        if as_json:
            output.print_json(asdict(done))
            return runtime.SUCCESS
        lossy = " (lossy)" if done.lossy_source else ""
        what = f"written, from {done.source}{lossy}" if done.written else "there already"
        shape = f"{done.length} points of {done.samples_per_pixel} samples"
        many = output.many(done.channels, "channel")
        line = f"{done.url}  {what}  {shape}, {many}  {output.size(done.bytes)}"
        output.stdout().print(output.clean(line), soft_wrap=True)
        return runtime.SUCCESS

    runtime.run(work, console, verbose)
