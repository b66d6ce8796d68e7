"""`recorder demo`: a call through a real pipeline into a real S3 server, and what can be seen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from recorder.cli import options, output, runtime
from recorder.demo import Demo, DemoReport
from recorder.demo.script import Line
from recorder.demo.watch import Sighting
from uploader.store import MIN_PART_BYTES

MIN_SECONDS, MAX_SECONDS = 1, 3600


def demo(
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is kept.")] = Path(
        "demo-data"
    ),
    seconds: Annotated[
        float | None,
        typer.Option(metavar="N", help="Length of the call; once through the script if not set."),
    ] = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Record a scripted call of a Pipecat bot to an S3 server on this machine.

    Nothing leaves the machine, and no account is needed. The bot and its user speak with
    synthetic voices; the user interrupts the bot once.
    """
    console = output.stderr()
    shown = output.stderr() if as_json else output.stdout()

    async def work(interrupts: runtime.Interrupts) -> int:
        if seconds is not None and not MIN_SECONDS <= seconds <= MAX_SECONDS:
            problem = f"must be {MIN_SECONDS} to {MAX_SECONDS}"
            raise options.UsageError(f"--seconds {seconds:g}: {problem}")
        run = Demo(
            data_dir,
            seconds=seconds,
            on_step=lambda text: shown.print(Text(text, "dim")),
            on_line=lambda at, line: _print_line(shown, at, line),
            on_sighting=lambda sighting: _print_sighting(shown, sighting),
        )
        interrupts.stop = run.stop
        report = await run.run()
        if as_json:
            output.print_json(_plain(report))
        else:
            _print(shown, report)
        result = report.result
        if result is not None and result.durable:
            return runtime.SUCCESS
        reason = "" if result is None else f"{result.state}: {result.reason}"
        output.print_error(console, f"the recording is not complete: {reason}")
        return runtime.FAILURE

    runtime.run(work, console, verbose)


def _print_line(console: Console, at: float, line: Line) -> None:
    console.print(Text.assemble(_at(at), (f"{line.speaker}: {line.text}", "italic")))


def _print_sighting(console: Console, seen: Sighting) -> None:
    name = output.clean(seen.name)
    size, removed = output.size(seen.bytes), output.many(seen.number, "chunk")
    text = {
        "manifest": f"+ {name}",
        "chunk": f"+ {name}  {size}",
        "open chunk": f"+ {name}  {size}  the first half of the next, rewritten for each",
        "object": f"+ {name}  {size}  complete",
        "upload": f"  upload begun: {name}",
        "part": f"  part {seen.number} of {name}  {size}",
        "removed": f"- {name}  {removed} removed: the outputs are complete",
    }[seen.what]
    style = {"object": "green", "chunk": "cyan"}.get(seen.what, "")
    console.print(Text.assemble(_at(seen.seconds), " " * 4, (text, style)))


def _at(seconds: float) -> tuple[str, str]:
    return f"t+{seconds:05.2f}  ", "dim"


def _plain(report: DemoReport) -> dict[str, Any]:
    return {
        "recording_id": report.recording_id,
        "url": report.url,
        "result": None if report.result is None else report.result.to_dict(),
        "lines": [
            {"seconds": round(at, 3), "speaker": line.speaker, "text": line.text}
            for at, line in report.lines
        ],
        "timeline": [
            {**asdict(seen), "seconds": round(seen.seconds, 3)} for seen in report.sightings
        ],
        "objects": [{"key": info.key, "bytes": info.size} for info in report.objects],
        "files": [str(path) for path in report.files],
    }


def _print(console: Console, report: DemoReport) -> None:
    result = report.result
    if result is None:
        return
    console.print()
    console.print(
        Text.assemble(
            f"{report.recording_id}: ",
            output.state_text(result.state),
            f", {output.seconds(result.duration_seconds)} in "
            f"{output.many(result.chunks, 'chunk')} of {report.chunk_seconds:g} s",
        )
    )
    console.print(f"\nIn the bucket, {report.url}")
    table = output.table("object", "size>", "parts>", "crc64nvme")
    made = {one.key: one for one in result.outputs}
    for info in report.objects:
        found = made.get(info.key)
        parts = found.parts if found is not None else 0
        output.add_row(
            table,
            (
                info.key.rpartition(f"{report.recording_id}/")[2],
                output.size(info.size),
                parts or "",
                found.checksum if found is not None else "",
            ),
        )
    console.print(table)
    if all(one.parts <= 1 for one in result.outputs):
        console.print(
            f"S3 takes no part under {output.size(MIN_PART_BYTES)} but the last: in a call as "
            "short as this, part 1 is the whole object. With --seconds 150, parts are sent while "
            "the call goes on."
        )
    console.print("\nListen to:")
    for path in report.files:
        if path.suffix == ".wav":
            console.print(f"  {output.clean(str(path))}", soft_wrap=True)
