"""A program: recordings in real processes that are really killed, recovered, and compared.

Usage, with tests/ on PYTHONPATH:

    python crash_trials.py FOLDER --mode spool|bucket --scenarios 1-25 --kills 8
    python crash_trials.py FOLDER --mode bucket --scenarios 17 --kill 3    (one trial again)

For each scenario a recording runs to its end and is measured; others are killed at moments drawn
over its life. With `--mode spool` they are recovered from spool and bucket, with `--mode bucket`
the spool is deleted first. Each line of output is the JSON of one trial; `problems` is empty if all
is well. It forks from one thread, so that a process costs milliseconds and not an import.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from processes import Answer, in_parallel, run_and_kill
from scenario import LOOK_SECONDS, Scenario, make_scenario
from verdict import check
from watch import AFTER_THE_END, STEPS, Field, Kill, Step, Watch, WatchedStore

from recorder import Recorder, VirtualClock
from recorder.stores import make_store
from recorder.timeline import NS
from uploader import s3  # noqa: F401 - a second of import, better before the forks

MOST_RECOVERY_KILLS = 3
MOST_TRIALS = 3  # for each kill that is wanted
STEP_NAMES = [step.name.lower() for step in STEPS]


async def record(
    scenario: Scenario, folder: Path, where: dict[str, Any], watch: Watch, kill: Kill
) -> None:
    """Make the recording; `ACCEPTED` is raised after each event."""
    noises = scenario.noises()
    settings = scenario.settings(folder, where)
    store = WatchedStore(make_store(settings), watch, kill)
    clock = VirtualClock(1000.0)
    draw = random.Random(scenario.seed)
    chunk_seconds = scenario.chunk_seconds
    watch[Field.GO] = 1
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start(scenario.recording_id, tracks=scenario.tracks())
        watch[Field.STEP] = Step.RUNNING
        halves = 1  # of chunks
        due = chunk_seconds / 2 + scenario.hold_back
        for event in scenario.events:
            while scenario.paced and due * NS <= event.written:
                clock.advance_to(call.zero + due)
                await call.flush()
                settled = await call.settled() / scenario.sample_rate
                halves += settled >= halves * chunk_seconds / 2
                following = halves * chunk_seconds / 2 + scenario.hold_back
                due = max(due + LOOK_SECONDS, following)
            clock.advance_to(call.zero + event.written / NS)
            if event.kind == "stop":
                watch[Field.STEP] = Step.STOPPING
                call.end()
            else:
                scenario.play(call, event, noises)
            watch.count(Field.ACCEPTED)
            if draw.random() < 0.02:
                await asyncio.sleep(0.002)
        result = await call.stop()
        print(result)
        if result.state != "completed":
            raise RuntimeError(f"unkilled, and yet {result}")
    watch[Field.STEP] = Step.ENDED


def measure(scenario: Scenario, folder: Path, where: dict[str, Any]) -> Answer:
    """Let a recording come to its end, and tell how long it took and how much it did."""
    watch, code, life = run_and_kill(
        lambda watch: asyncio.run(record(scenario, folder, where, watch, Kill())),
        Kill(),
        folder / "recording.log",
    )
    problems = [] if code == 0 else [f"wrong: unkilled, it ended with {code}"]
    if not problems:
        problems = check(scenario, folder, where, watch[Field.ACCEPTED], whole=True)["problems"]
    return {
        "scenario": scenario.seed,
        "life": life,
        "counts": {
            "store": watch[Field.STORE_CALLS],
            "disk": watch[Field.DISK_CHANGES],
            **watch.totals(),
        },
        "problems": problems,
    }


def draw_kill(draw: random.Random, measured: Answer) -> Kill:
    """Return a kill at a moment drawn over a measured life."""
    by = draw.choice(["time", "time", "time", "store", "disk", "step"])
    if by == "time":
        return Kill(by, draw.uniform(0, measured["life"]))
    if by == "step":  # rare ones are as likely as others
        by = draw.choice([step for step in STEP_NAMES if measured["counts"][step]])
    return Kill(by, draw.randint(1, measured["counts"][by]), draw.random() < 0.5)


class Trial:
    """One kill of one scenario: the recording, its recoveries, and what is left.

    Args:
        scenario: What is recorded.
        number: Of the kill; with the scenario's seed, all follows from it.
        mode: `spool`, or `bucket`: then the spool is deleted before each recovery.
        measured: Life and deeds of the recording that was not killed.
        folder: For everything.
        where: Settings of the store, if it is not in the folder.
    """

    def __init__(
        self,
        scenario: Scenario,
        number: int,
        mode: str,
        measured: Answer,
        folder: Path,
        where: dict[str, Any],
    ) -> None:
        self.scenario = scenario
        self.number = number
        self.mode = mode
        self.measured = measured
        self.folder = folder
        self.where = where
        self.bucket = False

    def run(self) -> Answer:
        """Kill, recover, compare."""
        scenario, folder = self.scenario, self.folder
        draw = random.Random(f"{scenario.seed} {self.number} {self.mode}")
        kill = draw_kill(draw, self.measured)
        watch, code, _ = run_and_kill(
            lambda watch: asyncio.run(record(scenario, folder, self.where, watch, kill)),
            kill,
            folder / "recording.log",
        )
        died = code == -signal.SIGKILL
        problems = [] if died or code == 0 else [f"wrong: the recording ended with {code}"]
        if self.mode == "bucket":
            shutil.rmtree(folder / "spool", ignore_errors=True)
        # Where there is a spool, it must not matter whether the bucket is looked through, too.
        self.bucket = self.mode == "bucket" or draw.random() < 0.25
        phases = self._kill_recoveries(draw, problems)
        age_unfinished(folder / "spool")
        found = asyncio.run(self._recover(Watch(), Kill()))
        verdict = check(
            scenario, folder, self.where, watch[Field.ACCEPTED], whole=self.mode == "spool"
        )
        if draw.random() < 0.25 and asyncio.run(self._recover(Watch(), Kill())):
            problems.append("wrong: a second recovery finds something")
        return {
            "scenario": scenario.seed,
            "number": self.number,
            "kill": asdict(kill),
            "phase": watch.phase() if died else AFTER_THE_END,
            "accepted": watch[Field.ACCEPTED],
            "of": len(scenario.events),
            "chunk_seconds": scenario.chunk_seconds,
            "hold_back": scenario.hold_back,
            "resampled": scenario.resampled,
            "recovery_kills": phases,
            "found": [f"{one.source}: {one.outcome} {one.reason}" for one in found],
            **verdict,
            "problems": problems + verdict["problems"],
        }

    def _kill_recoveries(self, draw: random.Random, problems: list[str]) -> list[str]:
        """Kill some recoveries, in some trials; return what they were at."""
        phases = []
        counts = {name: -(-count // 2) for name, count in self.measured["counts"].items()}
        likely = {"life": self.measured["life"] / 2, "counts": counts}
        kills = draw.randint(1, MOST_RECOVERY_KILLS) if draw.random() < 0.35 else 0
        for kill in [draw_kill(draw, likely) for _ in range(kills)]:
            watch, code, _ = run_and_kill(
                lambda watch, kill=kill: asyncio.run(self._recover(watch, kill)),
                kill,
                self.folder / "recovery.log",
            )
            if code == -signal.SIGKILL:
                phases.append(watch.phase())
            elif code != 0:
                problems.append(f"wrong: a recovery ended with {code}")
            if self.mode == "bucket" and draw.random() < 0.5:
                shutil.rmtree(self.folder / "spool", ignore_errors=True)
        return phases

    async def _recover(self, watch: Watch, kill: Kill) -> list[Any]:
        settings = self.scenario.settings(self.folder, self.where)
        store = WatchedStore(make_store(settings), watch, kill)
        watch[Field.GO] = 1
        async with Recorder(settings, store=store, recover=False) as recorder:
            watch[Field.STEP] = Step.RUNNING
            options = {"bucket": True, "stale_after": 0.0} if self.bucket else {}
            found = await recorder.recover(**options)
        watch[Field.STEP] = Step.ENDED
        return list(found)


def age_unfinished(spool: Path) -> None:
    """Let folders that were never finished being made look older: only then they are removed."""
    for path in spool.glob(".new-*"):
        os.utime(path, (0, 0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", choices=["spool", "bucket"], required=True)
    parser.add_argument("--scenarios", required=True, help="seeds: 7, or 1-25")
    parser.add_argument("--kills", type=int, default=1, help="of each scenario")
    parser.add_argument("--kill", type=int, help="only this one")
    parser.add_argument("--format", default="wav", help="of the outputs")
    parser.add_argument("--where", type=json.loads, default={}, help="settings of an S3 store")
    options = parser.parse_args()
    if options.format == "opus":
        import av  # noqa: F401 - better before the forks
    gc.freeze()  # so that children do not copy what is never freed
    first, _, last = options.scenarios.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    mode, folder = options.mode, options.folder
    scenarios = {
        seed: make_scenario(seed, paced=mode == "bucket", form=options.format) for seed in seeds
    }

    def where(name: str) -> dict[str, Any]:
        return options.where and {**options.where, "prefix": f"{mode}-{name}"}

    def measuring() -> Iterator[tuple[Path, Callable[[], Answer]]]:
        for seed, scenario in scenarios.items():
            name = f"{seed}-unkilled"
            yield folder / name, partial(measure, scenario, folder / name, where(name))

    measured = {}
    for answer in in_parallel(measuring()):
        if answer["problems"]:
            print(json.dumps(answer), flush=True)
        else:
            measured[answer["scenario"]] = answer

    wanted, killed = options.kills * len(seeds), 0

    def trials() -> Iterator[tuple[Path, Callable[[], Answer]]]:
        # On a machine whose load falls, recordings end before they are killed: then there are more.
        numbers = range(MOST_TRIALS * options.kills) if options.kill is None else [options.kill]
        for number, seed in product(numbers, measured):
            if killed >= wanted:
                return
            name = f"{seed}-{number}"
            place = folder / name
            trial = Trial(scenarios[seed], number, mode, measured[seed], place, where(name))
            yield place, trial.run

    for answer in in_parallel(trials()):
        killed += answer.get("phase") != AFTER_THE_END
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
