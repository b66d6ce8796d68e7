"""The same calls through this recorder and through Pipecat's: how far off each one is.

Run by `make bench-clock`. Options: `--json PATH`, `--only TEXT` (names that contain it), `--short`
(no traces of over two minutes), `--markdown` (a table of some, for a README). Time is virtual:
figures do not depend on the machine.

Columns, milliseconds: length against the wall clock; worst placement of speech; silence inserted
into speech; speech lost; sound that was not heard. `session` is this recorder fed directly,
`processor` this recorder in Pipecat's frames, `pipecat` Pipecat's AudioBufferProcessor (24 kHz,
two channels, its default `buffer_size=0`, told without delay who speaks), fed the same frames.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

from loguru import logger

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pipecat's imports of what Python drops
    from traces import through_pipecat as pipecat
from traces import through_session as session
from traces.catalogue import every_trace
from traces.measure import Errors
from traces.report import Row, as_markdown, as_text
from traces.trace import Trace

from recorder import Recorder, VirtualClock

SHORT_SECONDS = 130


async def run(trace: Trace) -> Row:
    """Play a trace to all three."""
    row = Row(trace.name, trace.about, trace.bounds.why)
    users = [name for name in trace.tracks if name != "bot"]
    shared = dict.fromkeys(users, "user")
    with tempfile.TemporaryDirectory() as folder:
        clock = VirtualClock()
        chunk_seconds = session.chunk_seconds(trace)
        settings = session.settings_for(Path(folder), chunk_seconds=chunk_seconds)
        async with Recorder(settings, clock=clock) as recorder:
            recorded = await session.record(trace, recorder, clock)
            row.session = session.judge(trace, recorded)
            row.short = session.shortfalls(trace, row.session)
            if pipecat.told_in_frames(trace):
                recorded = await pipecat.record(trace, recorder, clock)
                row.processor = session.judge(trace, recorded)
    if trace.in_pipecat:
        recorded = await pipecat.record_with_pipecat(trace)
        row.pipecat = session.judge(trace, recorded, shared=shared)
    return row


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--json", type=Path)
    options.add_argument("--only", default="")
    options.add_argument("--short", action="store_true")
    options.add_argument("--markdown", action="store_true")
    asked = options.parse_args()
    rows = []
    for trace in every_trace():
        if asked.only in trace.name and not (asked.short and trace.seconds > SHORT_SECONDS):
            rows.append(await run(trace))
            sys.stderr.write(f"{trace.name}\n")
    sys.stdout.write((as_markdown if asked.markdown else as_text)(rows))
    if asked.json:
        document = {
            "unit": "ms",
            "fields": list(Errors.__slots__),
            "traces": [asdict(r) for r in rows],
        }
        asked.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    logger.remove()
    logger.disable("pipecat")
    asyncio.run(main())
