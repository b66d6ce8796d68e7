"""`recorder doctor`: what stands in the way of recording, what to do about it, what it costs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from recorder.cli import options, output, runtime
from recorder.doctor import Check, Diagnosis, Status, examine
from recorder.doctor.cost import (
    LIST_PRICES,
    PRICES_OF,
    Cost,
    Load,
    Prices,
    Usage,
    cost_of,
    load_of,
    per_hour,
)
from recorder.doctor.examination import AREAS
from recorder.names import shown
from recorder.settings import Settings

_STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
_COST = "cost"
_OUTAGE_SECONDS = 3600


def doctor(
    bucket: options.Bucket = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help=f"Of {', '.join((*AREAS, _COST))}; with commas. All if not set."
        ),
    ] = None,
    calls: Annotated[int, typer.Option(metavar="N", help="Calls of the process at a time.")] = 1,
    call_minutes: Annotated[
        float, typer.Option(metavar="N", help="Length of a call, for what it costs.")
    ] = 10.0,
    tracks: Annotated[int, typer.Option(metavar="N", help="Speakers of a call.")] = 2,
    turns_per_minute: Annotated[
        float, typer.Option(metavar="N", help="Speaking turns, for what their clips cost.")
    ] = 8.0,
    prices: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=USD",
            help="put, get (of 1,000 requests) or storage (of a GB and month); repeatable.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Try everything that recording needs, and say what is missing and how to get it.

    Writes objects of 5 MiB in all below .bot-recorder/ in the bucket, and a file in the spool; all
    are removed. Exits with 1 if calls cannot be recorded, or audio could be lost.
    """
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        areas = _areas(only)
        usage = _usage(calls, call_minutes, tracks, turns_per_minute)
        given = _prices(prices)
        settings = options.make_settings(bucket=bucket)
        load = load_of(settings, usage)
        paid = _paid(settings, given)
        cost = cost_of(load, settings.storage_class, paid)
        found = await examine(settings, load, calls, areas)
        if as_json:
            output.print_json(_plain(settings, found, load, cost, calls))
        else:
            page = output.stdout()
            _print_checks(page, settings, found)
            if _COST in areas:
                _print_cost(page, settings, usage, load, cost, calls, given=bool(given))
        if found.fit:
            return runtime.SUCCESS
        output.print_error(console, _sum(found))
        return runtime.FAILURE

    runtime.run(work, console, verbose)


def _areas(only: str | None) -> tuple[str, ...]:
    if only is None:
        return (*AREAS, _COST)
    areas = tuple(one.strip() for one in only.split(",") if one.strip())
    for one in areas:
        if one not in (*AREAS, _COST):
            allowed = ", ".join((*AREAS, _COST))
            raise options.UsageError(f"--only {shown(one)}: must be of {allowed}")
    if not areas:
        raise options.UsageError("--only names nothing")
    return areas


def _usage(calls: int, minutes: float, tracks: int, turns: float) -> Usage:
    for name, value, least, most in (
        ("--calls", calls, 1, 100_000),
        ("--call-minutes", minutes, 0.1, 1440),
        ("--tracks", tracks, 1, 16),
        ("--turns-per-minute", turns, 0, 60),
    ):
        if not (math.isfinite(value) and least <= value <= most):
            raise options.UsageError(f"{name} {value:g}: must be {least:g} to {most:g}")
    return Usage(60 * minutes, tracks, turns)


def _prices(items: list[str] | None) -> dict[str, float]:
    found = {}
    for name, text in options.pairs("--prices", items).items():
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if name not in ("put", "get", "storage") or not (math.isfinite(value) and value >= 0):
            raise options.UsageError(
                f"--prices {shown(f'{name}={text}')}: must be put, get or storage, and a "
                "number of US dollars"
            )
        found[name] = value
    return found


def _paid(settings: Settings, given: dict[str, float]) -> Prices | None:
    if not given:
        return None
    listed = LIST_PRICES.get(settings.storage_class or "STANDARD", LIST_PRICES["STANDARD"])
    return Prices(**(asdict(listed) | given))


def _plain(
    settings: Settings, found: Diagnosis, load: Load, cost: Cost, calls: int
) -> dict[str, Any]:
    return {
        "ok": found.fit,
        "location": str(settings.location),
        "checks": [one.to_dict() for one in found.checks],
        "iam_policy": found.policy,
        "per_recorded_hour": per_hour(load),
        "cost_usd": {**asdict(cost), "prices_of": PRICES_OF},
        "spool": {
            "calls": calls,
            "bytes_for_an_hour_of_outage": load.outage_bytes(_OUTAGE_SECONDS, calls),
        },
    }


def _print_checks(console: Console, settings: Settings, found: Diagnosis) -> None:
    area = ""
    width = max((len(one.name) for one in found.checks), default=0)
    titles = {"bucket": f"bucket, {settings.location}", "spool": f"spool, {settings.spool_dir}"}
    for one in found.checks:
        if one.area != area:
            area = one.area
            console.print(Text(output.clean(titles.get(area, area)), "bold"), soft_wrap=True)
        _print_check(console, one, width)
    if found.policy is not None:
        console.print(Text("\nThis IAM policy allows what is missing:", "bold"))
        console.print(json.dumps(found.policy, indent=2), soft_wrap=True)


def _print_check(console: Console, one: Check, width: int) -> None:
    status = (f"  {one.status:<4}  ", _STYLES[one.status])
    line = Text.assemble(status, f"{one.name:<{width}}  ", output.clean(one.found))
    console.print(line, soft_wrap=True)
    if one.fix:
        console.print(
            Text(f"        {'':<{width}}  -> {output.clean(one.fix)}", "dim"), soft_wrap=True
        )


def _print_cost(
    console: Console,
    settings: Settings,
    usage: Usage,
    load: Load,
    cost: Cost,
    calls: int,
    *,
    given: bool,
) -> None:
    hour = per_hour(load)
    turns = ""
    if "turns" in settings.outputs:
        turns = f", {usage.turns_per_minute:g} turns a minute"
    what = f"calls of {usage.call_seconds / 60:g} min, {usage.tracks} tracks{turns}"
    console.print(Text(f"\nan hour of recordings ({what})", "bold"))
    puts = hour["puts"] + hour["output_puts"]
    others = hour["output_puts"] - hour["parts"]
    rows = (
        (
            "requests",
            f"{puts:.0f} PUT ({hour['chunks']:.0f} chunks, {hour['open_chunks']:.0f} open chunks, "
            f"{hour['parts']:.0f} parts, {others:.0f} to begin and complete, at most "
            f"{hour['manifests']:.0f} manifests), {hour['gets']:.0f} HEAD and GET, "
            f"{hour['deletes']:.0f} deletes",
        ),
        ("sent", f"{output.size(int(hour['sent_bytes']))}, {_speed(load)} for each call"),
        *([("read", output.size(int(hour["read_bytes"])))] if load.read_bytes else []),
        ("stored", output.size(int(hour["stored_bytes"]))),
        ("requests cost", f"${cost.requests:.5f}"),
        ("storage costs", f"${cost.storage_month:.5f} a month"),
        (
            "an outage of 1 h",
            f"{output.size(load.outage_bytes(_OUTAGE_SECONDS, calls))} of spool for "
            f"{output.many(calls, 'call')}",
        ),
    )
    for name, text in rows:
        console.print(f"  {name:<17} {text}", soft_wrap=True)
    source = "--prices" if given else f"Amazon S3, {PRICES_OF}; --prices has others"
    console.print(
        Text(f"  prices: {source}. Traffic into S3 and deletes are free there.", "dim"),
        soft_wrap=True,
    )


def _speed(load: Load) -> str:
    return f"{8 * load.sent_bytes / load.seconds / 1000:.0f} kbit/s"


def _sum(found: Diagnosis) -> str:
    names = ", ".join(f"{one.area}: {one.name}" for one in found.of(Status.FAIL))
    return f"not fit to record: {names}"
