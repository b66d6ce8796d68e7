"""A backfill over archives: what is found, what is held, and that a second run goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import typed
from complete import place, recorded, settings_for

from recorder.names import InvalidName
from recorder.postprocess import Processed, Processor, Verdict
from recorder.postprocess.backfill import (
    DAYS_AT_ONCE,
    LocalEngine,
    check_key_prefix,
    list_days,
    list_places,
    run,
)
from recorder.postprocess.subject import Place
from uploader.errors import AccessDenied
from uploader.local import LocalStore

DAYS = [f"dt=2026-{month:02d}-{day:02d}/" for month in range(1, 5) for day in range(1, 6)]


class Many:
    """An engine with many recordings, that counts what it holds."""

    def __init__(self, width: int, batch: int, of_day: int) -> None:
        self.width, self.batch, self._of_day = width, batch, of_day
        self.listed = self.worked = self.at_once = self.most_at_once = self.most_held = 0

    async def places(self, day: str) -> list[Place]:
        await asyncio.sleep(0)
        self.listed += self._of_day
        self.most_held = max(self.most_held, self.listed - self.worked)
        return [Place(day[3:13], f"call-{number}") for number in range(self._of_day)]

    async def work(self, places: Sequence[Place]) -> list[Processed]:
        assert 0 < len(places) <= self.batch
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        for _ in range(3):
            await asyncio.sleep(0)
        self.at_once -= 1
        self.worked += len(places)
        return [Processed(one, Verdict.DONE) for one in places]


async def test_everything_is_worked_on_once_and_little_is_held() -> None:
    engine = Many(width=5, batch=4, of_day=30)
    seen: list[Place] = []
    progress = await run(engine, DAYS, on_done=lambda one: seen.append(one.place))
    assert len(seen) == len(set(seen)) == 600
    assert (progress.days, progress.listed, progress.found) == (20, 20, 600)
    assert progress.verdicts == {Verdict.DONE: 600}
    assert engine.most_at_once == 5
    # The days being listed, the queue, and what is in hand.
    assert engine.most_held <= DAYS_AT_ONCE * 30 + 2 * 5 * 4 + 4


async def test_an_error_of_listing_ends_the_run() -> None:
    class Refused(Many):
        async def places(self, day: str) -> list[Place]:
            if self.listed > 100:
                raise AccessDenied("no", op="list_level")
            return await super().places(day)

    with pytest.raises(AccessDenied):
        await run(Refused(2, 2, 30), DAYS)


async def test_folders_below_a_prefix(tmp_path: Path) -> None:
    keys = [
        "dt=2026-11-23/20261123T100000Z-a/manifest.json",
        "dt=2026-11-23/20261123T110000Z-b/audio.wav",
        "dt=2026-11-24/call/manifest.json",
        "dt=2026-12-01/call/manifest.json",
        "dt=2026-12-01/not a recording/x",
        "other/call/manifest.json",
    ]
    (tmp_path / "bucket").mkdir()
    async with LocalStore(tmp_path / "bucket") as store:
        for key in keys:
            await store.put(key, b"x")

        async def found(prefix: str) -> list[str]:
            days = await list_days(store, prefix)
            places = [one for day in days for one in await list_places(store, day, prefix)]
            return [one.folder for one in places]

        everything = sorted({key.rpartition("/")[0] + "/" for key in keys[:4]})
        assert sorted(await found("dt=")) == everything
        assert await list_days(store) == [
            "dt=2026-11-23/",
            "dt=2026-11-24/",
            "dt=2026-12-01/",
        ]
        assert sorted(await found("")) == everything
        assert await found("dt=2026-11") == everything[:3]
        assert await found("dt=2026-11-23") == everything[:2]
        assert await found("dt=2026-11-23/") == everything[:2]
        assert await found("dt=2026-11-23/20261123T11") == everything[1:2]
        assert await found("dt=2026-11-23/20261123T100000Z-a/") == everything[:1]
        assert await found("dt=2027") == []


@pytest.mark.parametrize("prefix", ["2026", "dt", "/dt=2026", "dt=2026-11/x", "dt=2026-11-23/a/b"])
def test_prefixes_that_no_recording_has_are_refused(prefix: str) -> None:
    with pytest.raises(InvalidName, match="dt=2026-11-23"):
        check_key_prefix(prefix)


async def test_a_run_that_is_broken_off_is_gone_on_with(tmp_path: Path) -> None:
    await recorded(tmp_path)
    settings = settings_for(tmp_path, postprocess_concurrency=2)
    bucket = tmp_path / "bucket"
    manifest = next(bucket.glob("dt=*/call/manifest.json")).read_bytes()
    others = [place(f"other-{number}") for number in range(20)]
    done: list[Processed] = []
    async with Processor(settings) as processor:
        for one in others:  # they claim objects that are not there: found, and noted as failed
            document = json.loads(manifest) | {"recording_id": one.recording_id}
            await processor.store.put(one.manifest_key, json.dumps(document).encode())

        def break_off(one: Processed) -> None:
            done.append(one)
            if len(done) == 5:
                running.cancel()

        days = await list_days(processor.store)
        running = asyncio.create_task(run(LocalEngine(processor), days, on_done=break_off))
        with pytest.raises(asyncio.CancelledError):
            await running
        assert 5 <= len(done) < 21
        again: list[Processed] = []
        engine = LocalEngine(processor)
        progress = await run(engine, days, on_done=again.append)
        assert progress.found == 21
        assert progress.verdicts[Verdict.FAILED] == 20
        assert progress.undone == 20
        claims = [await processor.store.get(one.record_key) for one in others]
        assert all(json.loads(body)["claim"] is None for body in claims)


async def test_what_others_have_claimed_is_waited_for(tmp_path: Path) -> None:
    await recorded(tmp_path)
    settings = settings_for(tmp_path, postprocess_claim_seconds=1)
    async with Processor(settings) as processor:
        until = "2999-01-01T00:00:00+00:00"
        record = {"version": 1, "steps": {}, "claim": {"owner": "other", "until": until}}
        key = place("call").record_key
        await processor.store.put(key, json.dumps(record).encode())

        async def release() -> None:
            await asyncio.sleep(0.2)
            await processor.store.put(key, json.dumps({**record, "claim": None}).encode())

        releasing = asyncio.create_task(release())
        [one] = await LocalEngine(processor).work([place("call")])
        await releasing
    assert one.verdict is Verdict.DONE


async def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await recorded(tmp_path)
    monkeypatch.setenv("RECORDER_BUCKET", (tmp_path / "bucket").as_uri())
    monkeypatch.chdir(tmp_path)

    async def invoke(*words: str):
        return await asyncio.to_thread(typed, "backfill", *words)

    first = await invoke("--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert (told["recording_id"], told["verdict"]) == ("call", "done")
    assert told["steps"] == {"verify": "done"}
    second = await invoke()
    assert second.exit_code == 0
    assert second.stdout == ""
    assert "1 recording at file://" in second.stderr
    assert "1 unchanged" in second.stderr
    assert "verify done" in (await invoke("--again")).stdout
    assert "0 recordings" in (await invoke("--prefix", "dt=2001")).stderr
    for words, said in (
        (("--engine", "spark"), "must be local or ray"),
        (("--ray-address", "x"), "--ray-address is for --engine ray"),
        (("--prefix", "x"), "is no beginning of folders"),
        (("--steps", "x"), "is no step"),
        (("--concurrency", "0"), "must be a whole number from 1 to 256"),
    ):
        wrong = await invoke(*words)
        assert wrong.exit_code == 2
        assert said in wrong.stderr
    next((tmp_path / "bucket").glob("dt=*/call/audio.wav")).unlink()
    broken = await invoke("--again")
    assert broken.exit_code == 1
    assert "call  failed  verify failed" in broken.stdout
