"""What recording costs, beside Pipecat's recorder, in one run: `make bench`.

    PYTHONPATH=tests python -m bench [--only capture,job] [--runs 3] [--sessions 50,200] [--sweep]
        [--fleet-seconds 20] [--recordings 100] [--json bench.json] [--plot bench.svg]

Groups of rows are modules here, each with trials that run in processes of their own. Nothing is
compared with a figure that was not measured in the same run.

The defaults take some minutes on two cores. The full claims take `--runs 5 --sessions 200,500,1000
--sweep --fleet-seconds 60 --recordings 1000`: an hour, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from loguru import logger

logger.remove()  # Pipecat greets whoever imports it

from bench import machine  # noqa: E402
from bench.plan import Plan, server  # noqa: E402
from bench.plot import as_svg  # noqa: E402
from bench.report import Floor, Row, as_text  # noqa: E402

GROUPS = (*("floors", "capture", "job", "memory", "stop", "hour", "pipeline", "fleet", "recovery"),)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.split(","))


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--only", default="", help=f"groups, with commas: {', '.join(GROUPS)}")
    options.add_argument("--runs", type=int, default=3, help="of each trial of CPU")
    options.add_argument(
        "--sessions", type=_numbers, default=(100,), help="of fleets, with commas: 200,500,1000"
    )
    options.add_argument("--sweep", action="store_true", help="find the largest fleets; an hour")
    options.add_argument("--fleet-seconds", type=float, default=20.0, help="that each is watched")
    options.add_argument("--recordings", type=int, default=100, help="that are recovered")
    options.add_argument("--recovery-seconds", type=float, default=600.0, help="that may take")
    options.add_argument("--json", type=Path, default=Path("bench.json"))
    options.add_argument("--plot", type=Path, default=Path("bench.svg"))
    asked = options.parse_args()
    asked.groups = asked.only.split(",") if asked.only else list(GROUPS)
    if unknown := set(asked.groups) - set(GROUPS):
        options.error(f"--only: no such group: {', '.join(sorted(unknown))}")
    return asked


async def main() -> None:
    asked = _options()
    rows: list[Row] = []
    floors: list[Floor] = []
    told: dict[str, Any] = {**machine.described(), "load_before": machine.load_average()}
    others = machine.Others()
    began = time.monotonic()
    async with server() as s3:
        plan = Plan(
            s3,
            asked.runs,
            asked.sessions,
            asked.sweep,
            asked.fleet_seconds,
            asked.recordings,
            asked.recovery_seconds,
        )
        for group in asked.groups:
            sys.stderr.write(f"{group} (load average {machine.load_average():.2f})\n")
            module = importlib.import_module(f"bench.{group}")
            if group == "floors":
                floors = await module.floors(plan)
            else:
                rows += await module.rows(plan)
    told["others_cores"] = others.cores()
    told["load_after"] = machine.load_average()
    told["disturbed"] = told["others_cores"] > machine.BUSY_CORES
    told["seconds"] = time.monotonic() - began
    sys.stdout.write(as_text(rows, floors, told))
    document = {
        "machine": told,
        "rows": [row.to_dict() for row in rows],
        "floors": [{"what": one.what, "value": one.value, "unit": one.unit} for one in floors],
    }
    asked.json.write_text(json.dumps(document, indent=1) + "\n")
    caption = f"{told['cpu']}, {told['cores']} cores, Python {told['python']}" + (
        ", busy with other programs" if told["disturbed"] else ""
    )
    asked.plot.write_text(as_svg(rows, caption))


if __name__ == "__main__":
    asyncio.run(main())
