"""What recording is said to need and to cost is what it does need."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from calls import settings_in, speak
from faulty_store import FaultyStore

from recorder import Recorder, Session, VirtualClock
from recorder.doctor.cost import LIST_PRICES, Cost, Prices, Usage, cost_of, load_of, per_hour
from recorder.settings import Settings
from recorder.spool import spool_bytes
from uploader.local import LocalStore

MIB = 1 << 20
SECONDS, CHUNK = 20, 5


async def recorded(
    settings: Settings, store: FaultyStore, clock: VirtualClock, seconds: float
) -> Session:
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        store.calls.clear()
        call = await recorder.start()
        at = 0.0
        while at < seconds:
            speak(call, clock, at, min(seconds, at + CHUNK))
            await call.flush()
            at += CHUNK
        await call.stop()
    return call


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"keep_chunks": True},
        {"peaks": False},
        {"outputs": ("stereo", "mono", "tracks")},
        {"outputs": ("stereo", "tracks"), "vcon": True, "web_url": "https://calls.example.org"},
        {"chunk_seconds": 1.0},  # too short for a half of it to be settled before it is whole
        {"chunk_seconds": 60.0},
    ],
    ids=lambda changes: ",".join(map(str, changes)) or "default",
)
@pytest.mark.parametrize("seconds", [SECONDS, SECONDS + 2.5])
async def test_a_call_makes_the_requests_that_are_told(
    tmp_path: Path, changes: dict[str, Any], seconds: float
) -> None:
    changes = {"chunk_seconds": float(CHUNK), "part_bytes": 5 * MIB} | changes
    settings = settings_in(tmp_path, **changes)
    load = load_of(settings, Usage(seconds, tracks=2))
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    call = await recorded(settings, store, VirtualClock(), seconds)
    assert call.result is not None
    assert call.result.durable
    counts = store.calls
    assert call.result.chunks == load.chunks
    assert counts["put_manifest"] <= load.manifests
    halves = load.puts - load.manifests - load.chunks
    assert halves == load.open_chunks + settings.vcon + settings.peaks
    # Frames that come faster than time leave no moment for some of the halves.
    assert load.chunks <= counts["put"] <= load.chunks + halves
    whole = counts["create_multipart"] + counts["upload_part"] + counts["complete_multipart"]
    assert whole == load.output_puts
    assert counts["upload_part"] == load.parts
    assert counts["head"] + counts["get"] + counts["read"] == load.gets
    assert counts["delete"] <= load.deletes <= counts["delete"] + halves
    objects = {path: path.stat().st_size for path in tmp_path.glob("bucket/dt=*/*/**/*.wav")}
    manifests = sum(path.stat().st_size for path in tmp_path.glob("bucket/dt=*/*/*.json"))
    assert 0 <= load.stored_bytes - sum(objects.values()) <= manifests


async def test_an_outage_takes_the_spool_that_is_told(tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = settings_in(tmp_path, chunk_seconds=CHUNK, retry_deadline_seconds=1, drain_seconds=0)
    load = load_of(settings, Usage(SECONDS, tracks=2))
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start()
        store.down = True
        speak(call, clock, 0, SECONDS)
        sealer: Any = call._backstage
        async with asyncio.timeout(20):
            while len(sealer._sealer.sealed) < SECONDS // CHUNK - 1:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        taken = spool_bytes(settings.spool_dir)
        await recorder.close(wait_seconds=0)
    assert taken <= load.outage_bytes(SECONDS, 1)
    assert taken >= load.spool_bytes_per_second * (SECONDS - CHUNK)
    assert load.outage_bytes(SECONDS, 1) <= 2 * taken
    # The two ways round agree.
    assert load.outage_seconds(load.outage_bytes(SECONDS, 7), 7) == pytest.approx(SECONDS, rel=1e-6)
    assert load.outage_seconds(0, 1) == 0


def test_an_hour_of_stereo_costs_what_the_list_says() -> None:
    settings = Settings(bucket="calls", _env_file=None)
    load = load_of(settings, Usage(3600, tracks=2))
    assert (load.chunks, load.parts) == (120, 66)  # of 30 s; 345.6 MB in parts of 5 MiB
    cost = cost_of(load, None)
    puts = load.puts + load.output_puts
    assert cost.requests == pytest.approx(puts * 0.005e-3 + load.gets * 0.0004e-3)
    assert cost.storage_month == pytest.approx(load.stored_bytes / 2**30 * 0.023)
    assert per_hour(load)["chunks"] == 120
    # Six calls of ten minutes are an hour, too, with a few more requests.
    short = load_of(settings, Usage(600, tracks=2))
    assert per_hour(short)["chunks"] == 120
    assert cost_of(short, None).requests > cost.requests


@pytest.mark.parametrize(("form", "least", "most"), [("flac", 1.99, 2.01), ("opus", 15, 17)])
def test_compressed_outputs_take_less_of_the_bucket_and_some_of_the_spool(
    form: str, least: float, most: float
) -> None:
    plain = load_of(Settings(bucket="calls", _env_file=None), Usage(3600, tracks=2))
    settings = Settings(bucket="calls", format=form, _env_file=None)
    load = load_of(settings, Usage(3600, tracks=2))
    assert least <= 345_600_000 / (load.stored_bytes - (plain.stored_bytes - 345_600_080)) <= most
    assert load.parts == {"flac": 33, "opus": 5}[form]
    assert load.chunks == plain.chunks
    assert load.spool_bytes_at_once - plain.spool_bytes_at_once == 10 * MIB


def test_the_storage_class_is_of_outputs_alone() -> None:
    settings = Settings(bucket="calls", storage_class="GLACIER_IR", _env_file=None)
    load = load_of(settings, Usage())
    cost, plain = cost_of(load, "GLACIER_IR"), cost_of(load, None)
    assert cost.storage_month / plain.storage_month == pytest.approx(0.004 / 0.023)
    dearer = load.output_puts * (0.02 - 0.005) + load.gets * (0.01 - 0.0004)
    assert cost.requests - plain.requests == pytest.approx(6 * dearer / 1000)


def test_prices_that_are_given_are_used_for_all() -> None:
    load = load_of(Settings(bucket="calls", _env_file=None), Usage(3600))
    assert cost_of(load, "GLACIER", Prices(0, 0, 0)) == Cost(0, 0)
    assert cost_of(load, "UNKNOWN") == cost_of(load, None)
    assert all(one.put > 0 for one in LIST_PRICES.values())
