"""`recorder record`: sound files played into a recording as if they were a call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recorder.cli import options, output, runtime
from recorder.cli.progress import Sending
from recorder.names import check_metadata, check_recording_id, check_track, shown
from recorder.player import Input, Player, WavFile, open_wav
from recorder.result import RecordingResult
from recorder.service import Recorder
from recorder.settings import Settings
from recorder.speakers import Track
from uploader.clock import VirtualClock


def record(
    user: Annotated[
        Path | None, typer.Option(metavar="WAV", help="The user's audio, 16-bit PCM.")
    ] = None,
    bot: Annotated[Path | None, typer.Option(metavar="WAV", help="The bot's audio.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WAV", help="A further speaker's audio; repeatable."),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(metavar="N", help="Times real time; 0 is as fast as possible."),
    ] = 1.0,
    recording_id: Annotated[
        str | None, typer.Option("--id", help="The recording's id; made from the time if not set.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="User metadata of all objects; repeatable."),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Of mono, stereo, tracks, turns; with commas."),
    ] = None,
    bucket: options.Bucket = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Play sound files as a live call and record it: try everything without a bot.

    The call is as long as the longest file. With the output `turns`, speaking turns are found by
    the level of the audio alone. Ctrl-C ends the call, and what was recorded is kept.
    """
    console = output.stderr()

    async def work(interrupts: runtime.Interrupts) -> int:
        inputs = _inputs(user, bot, track)
        if not (math.isfinite(speed) and speed >= 0):
            raise options.UsageError(f"--speed {speed:g}: must be 0 or more")
        name = None if recording_id is None else check_recording_id(recording_id)
        pairs = check_metadata(options.pairs("--metadata", metadata))
        settings = options.make_settings(bucket=bucket, outputs=outputs)
        with ExitStack() as stack:
            files = [stack.enter_context(open_wav(one.path)) for one in inputs]
            for file in files:
                if file.cut_off:
                    output.print_note(console, _cut_off(file))
            played = [(one.track, file) for one, file in zip(inputs, files, strict=True)]
            result, failure = await _record(
                settings, played, speed, name, pairs, interrupts, console
            )
        if as_json:
            output.print_json(result.to_dict())
        else:
            print_result(result)
        if result.durable:
            return runtime.SUCCESS
        output.print_error(console, why(result, failure))
        return runtime.FAILURE

    runtime.run(work, console, verbose)


def _inputs(user: Path | None, bot: Path | None, tracks: list[str] | None) -> list[Input]:
    """Return the files and their tracks.

    Raises:
        UsageError: None are given, or two for one track.
        InvalidName: A track's name is not allowed.
    """
    found = []
    if user is not None:
        found.append(Input(Track("user", "capture"), user))
    if bot is not None:
        found.append(Input(Track("bot", "playout"), bot))
    for item in tracks or []:
        name, equals, path = item.partition("=")
        if not equals or not path:
            raise options.UsageError(f"--track {shown(item)}: must be NAME=FILE")
        found.append(Input(Track(check_track(name), "capture"), Path(path)))
    names = [one.track.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise options.UsageError(f"two files are given for track {shown(name)}")
    if not found:
        raise options.UsageError("there is nothing to record: give --user, --bot or --track")
    return found


def _cut_off(file: WavFile) -> str:
    missing = (file.claimed_samples - file.samples) / file.sample_rate
    return f"{file.path} is cut off: the last {missing:.2f} s that its header names are not there"


async def _record(
    settings: Settings,
    files: Sequence[tuple[Track, WavFile]],
    speed: float,
    recording_id: str | None,
    metadata: dict[str, str],
    interrupts: runtime.Interrupts,
    console: Console,
) -> tuple[RecordingResult, str]:
    """Record; return the result, and what last went wrong with the store, if anything."""
    clock = None if speed == 1 else VirtualClock()
    with Sending.shown(console) as display:
        player = Player(
            [(track.name, file) for track, file in files],
            clock=clock,
            speed=speed,
            flush_seconds=settings.chunk_seconds,
            patience_seconds=settings.drain_seconds,
            mark_turns="turns" in settings.outputs,
            on_progress=display.played,
        )
        display.begin("recording", player.seconds)
        async with Recorder(settings, clock=clock) as recorder:
            call = await recorder.start(
                recording_id,
                metadata=metadata,
                tracks=[track for track, _ in files],
                on_event=display.take,
            )

            def stop() -> None:
                player.stop()
                display.say("ending the call; again to leave what is not sent in the spool")

            interrupts.stop = stop
            try:
                await player.play(call)
                call.end()
                display.finishing()
                await recorder.close()
            except asyncio.CancelledError:
                kept = settings.spool_dir / call.recording_id
                display.say(f"broken off: what is not in the store is in {kept}")
                await recorder.close(wait_seconds=0)
                raise
        result = call.result
    if result is None:
        raise RuntimeError("a recording that was ended has no result")
    return result, display.failure


def why(result: RecordingResult, failure: str) -> str:
    """Return why a recording is not complete, and where it is kept."""
    in_time = "the store did not take everything in time"
    reason = result.reason or (f"{in_time}: {failure}" if failure else in_time)
    hint = f" ({result.hint})" if result.hint else ""
    kept = f"; the audio is kept in {result.spool}" if result.spool else ""
    return f"{result.state}: {reason}{hint}{kept}"


def print_result(result: RecordingResult) -> None:
    """Print what came of a recording."""
    console = output.stdout()
    head = output.table("", "")
    head.show_header = False
    length = output.seconds(result.duration_seconds)
    chunks = output.many(result.chunks, "chunk")
    output.add_row(head, ("recording", result.recording_id))
    output.add_row(head, ("state", output.state_text(result.state)))
    output.add_row(head, ("at", result.url))
    output.add_row(head, ("length", f"{length} at {result.sample_rate} Hz, {chunks}"))
    console.print(head)
    table = output.table("output", "object", "state", "size>", "length>", "parts>", "crc64nvme")
    for made in result.outputs:
        output.add_row(
            table,
            (
                "turn" if "/" in made.name else made.name,
                made.url.removeprefix(result.url).lstrip("/"),
                output.state_text(made.state),
                output.size(made.bytes) if made.bytes else "",
                output.seconds(made.duration_seconds) if made.bytes else "",
                made.parts or "",
                made.checksum,
            ),
        )
    console.print()
    console.print(table)
    for gap in result.gaps:
        start = f"{gap.start / result.sample_rate:.3f} s"
        end = "the end" if gap.end is None else f"{gap.end / result.sample_rate:.3f} s"
        console.print(output.clean(f"gap in {gap.track}, {start} to {end}: {gap.reason}"))
