"""`recorder vcon`: a recording as the IETF's container of a conversation."""

from __future__ import annotations

from typing import Annotated

import typer

from recorder.catalog import Catalog
from recorder.cli import options, output, runtime
from recorder.links import Links
from recorder.stores import make_store
from recorder.vcon import compose, write_vcon
from recorder.verification import UnreadableManifest
from uploader.store import MAX_PRESIGN_SECONDS


def vcon(
    recording_id: options.RecordingId,
    write: Annotated[
        bool, typer.Option("--write", help="Write it into the recording's folder, as vcon.json.")
    ] = False,
    web_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Instead of RECORDER_WEB_URL: what links begin with."),
    ] = None,
    presign: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="Links that the bucket has signed for so long."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output", metavar="NAME", help="Refer to this output: stereo, mono, a track."
        ),
    ] = None,
    originator: Annotated[
        str | None, typer.Option(metavar="TRACK", help="Who called; the first track, if not set.")
    ] = None,
    bucket: options.Bucket = None,
    day: options.Day = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Print a recording's vCon (IETF draft-ietf-vcon-vcon-core): one JSON document.

    Each output it refers to is read once, for its SHA-512.
    """
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        name, chosen = options.one_recording(recording_id, day)
        if presign is not None and not 1 <= presign <= MAX_PRESIGN_SECONDS:
            raise options.UsageError(
                f"--presign {presign}: must be 1 to {MAX_PRESIGN_SECONDS} seconds, which is 7 days"
            )
        settings = options.make_settings(bucket=bucket, web_url=web_url)
        base = settings.web_url if presign is None or web_url is not None else None
        async with make_store(settings) as store:
            recording = (await Catalog(store).find(name, chosen)).recording
            if recording.problem:
                raise UnreadableManifest(recording.problem)
            manifest = recording.manifest.values
            if not write:
                document = await compose(
                    store,
                    manifest,
                    links=Links(store, base, presign),
                    outputs=outputs or None,
                    originator=originator,
                )
                output.print_json(document)
                return runtime.SUCCESS
            made = await write_vcon(
                store,
                manifest,
                base_url=base,
                presign_seconds=presign,
                outputs=outputs or None,
                originator=originator,
            )
        if as_json:
            output.print_json({"url": made.url, "written": made.written, "vcon": made.document})
        else:
            done = "written" if made.written else "nothing new"
            output.stdout().print(f"{done}: {made.url}", soft_wrap=True, markup=False)
        return runtime.SUCCESS

    runtime.run(work, console, verbose)
