"""A trial is one measurement in a process of its own, so that its peaks and its CPU are its own.

Run as `python -m bench.trial MODULE NAME JSON`: calls `MODULE.NAME(**JSON)`, a coroutine function
that returns figures, and prints them as one line of JSON. Parents use `run`, or `paired`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Figures = dict[str, Any]

_SECONDS = 900.0
_PROGRESS = "progress: "


class TrialFailed(RuntimeError):
    """A trial ended with an error."""


async def run(module: str, name: str, **arguments: Any) -> Figures:
    """Run one trial and return its figures; what it says by `progress` is passed on.

    Raises:
        TrialFailed: It raised, or took too long.
    """
    command = (sys.executable, "-m", "bench.trial", module, name, json.dumps(arguments))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    said: deque[str] = deque(maxlen=40)
    try:
        async with asyncio.timeout(_SECONDS):
            listening = asyncio.ensure_future(_listen(process.stderr, said))
            out = b"" if process.stdout is None else await process.stdout.read()
            await listening
            await process.wait()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise TrialFailed(f"{module}.{name}: took longer than {_SECONDS:g} s") from None
        raise
    if process.returncode or not out.strip():
        raise TrialFailed(f"{module}.{name}: {''.join(said)}")
    figures: Figures = json.loads(out.splitlines()[-1])
    sys.stderr.write(f"  {module}.{name} {_short(arguments)}{_short(figures)}\n")
    return figures


def progress(text: str) -> None:
    """Tell, from a trial, how far it is."""
    sys.stderr.write(f"{_PROGRESS}{text}\n")
    sys.stderr.flush()


async def _listen(stderr: asyncio.StreamReader | None, said: deque[str]) -> None:
    while stderr is not None and (line := await stderr.readline()):
        text = line.decode(errors="replace")
        if text.startswith(_PROGRESS):
            sys.stderr.write(f"    {text.removeprefix(_PROGRESS)}")
        else:
            said.append(text)


async def paired(
    module: str, trials: Mapping[str, Mapping[str, Any]], runs: int
) -> dict[str, list[Figures]]:
    """Run several trials by turns, A B A B, so that what else the machine does hits all alike.

    Args:
        module: Where they are.
        trials: Arguments by label; the argument `trial` is the coroutine function's name.
        runs: How often each.
    """
    found: dict[str, list[Figures]] = {label: [] for label in trials}
    for _ in range(runs):
        for label, arguments in trials.items():
            rest = {key: value for key, value in arguments.items() if key != "trial"}
            found[label].append(await run(module, arguments["trial"], **rest))
    return found


def middle(runs: Sequence[Figures], name: str) -> float:
    """The median of one figure."""
    return float(median(one[name] for one in runs))


def _short(values: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if not isinstance(value, dict | list)}
    return " ".join(f"{key}={value}" for key, value in kept.items()) + " " if kept else ""


def _child(module: str, name: str, arguments: str) -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    from loguru import logger

    logger.remove()
    if os.environ.get("BENCH_LOG"):
        logger.add(sys.stderr, level="WARNING")
    # The levels a program in service has: what costs less than to be asked.
    logging.disable(logging.WARNING)
    function = getattr(importlib.import_module(module), name)
    figures = asyncio.run(function(**json.loads(arguments)))
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _child(*sys.argv[1:4])
