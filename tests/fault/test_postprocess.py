"""Post-processing of one recording: done once, whoever dies, is slow, or does it beside another."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from complete import RATE, noted, place, recorded, settings_for
from faulty_store import FaultyStore, refusal, reset

from recorder import verification
from recorder.postprocess import Processor, Verdict
from recorder.postprocess.record import Claimed, RecordFile
from recorder.postprocess.steps.base import Job, Step, StepFailed
from recorder.postprocess.steps.registry import STEPS
from recorder.settings import Settings
from recorder.settings_values import STEP_NAMES, StepName
from uploader.errors import AccessDenied, TransientError, Unsupported
from uploader.local import LocalStore
from uploader.store import ObjectAttributes

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Counting(Step):
    """Counts how often it is run; waits, or fails, where it is told to."""

    name: ClassVar[StepName] = "webhook"
    last: ClassVar[bool] = True

    def __init__(self) -> None:
        self.runs = 0
        self.errors: list[Exception] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.parameter = ""

    def parameters(self, settings: Settings) -> str:
        return self.parameter

    async def run(self, job: Job) -> dict[str, Any]:
        self.runs += 1
        self.begun.set()
        await self.go.wait()
        if self.errors:
            raise self.errors.pop(0)
        return {"runs": self.runs}


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A step in place of the webhook's."""
    one = Counting()
    monkeypatch.setitem(STEPS, "webhook", one)
    return one


@pytest_asyncio.fixture
async def settings(tmp_path: Path) -> Settings:
    await recorded(tmp_path)
    return settings_for(tmp_path)


@pytest_asyncio.fixture
async def store(settings: Settings) -> AsyncIterator[FaultyStore]:
    assert settings.location.path is not None
    async with FaultyStore(LocalStore(settings.location.path)) as opened:
        yield opened


def processor(settings: Settings, store: FaultyStore, **options: Any) -> Processor:
    options.setdefault("steps", ["webhook"])
    return Processor(settings, store=store, **options)


async def change_manifest(store: FaultyStore, **changes: Any) -> None:
    key = place("call").manifest_key
    document = json.loads(await store.get(key))
    await store.put(key, json.dumps({**document, **changes}).encode())


def test_steps_are_registered_in_the_order_of_their_names() -> None:
    assert tuple(STEPS) == STEP_NAMES
    assert [step.name for step in STEPS.values()] == list(STEP_NAMES)


async def test_each_step_is_done_once(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    async with processor(settings, store, steps=["verify", "webhook"]) as one:
        first = await one.process(place("call"))
        assert first.verdict is Verdict.DONE
        assert first.steps == {"verify": "done", "webhook": "done"}
        log = len(store.log)
        again = await one.process(place("call"))
        assert again.verdict is Verdict.UNCHANGED
        assert step.runs == 1
        assert [op for op, _, _ in store.log[log:]] == ["read", "read"]
        forced = await one.process(place("call"), again=True)
        assert forced.steps == {"verify": "done", "webhook": "done"}
    document = await noted(store, "call")
    assert document["claim"] is None
    assert document["recording_id"] == "call"
    assert document["steps"]["webhook"]["result"] == {"runs": 2}
    report = await verification.verify(store, "call")
    assert report.ok, report.findings


async def test_of_many_at_a_time_one_does_it(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    step.go.clear()
    async with AsyncExitStack() as stack:
        several = [await stack.enter_async_context(processor(settings, store)) for _ in range(6)]
        tasks = [asyncio.create_task(one.process(place("call"))) for one in several]
        await step.begun.wait()
        async with asyncio.timeout(10):
            for finished in itertools.islice(asyncio.as_completed(tasks), len(tasks) - 1):
                await finished
        step.go.set()
        results = await asyncio.gather(*tasks)
    assert step.runs == 1
    assert sorted(result.verdict for result in results) == ["claimed"] * 5 + ["done"]
    for result in results:
        assert result.settled == (result.verdict is Verdict.DONE)
        assert result.verdict is Verdict.DONE or (result.wait_seconds or 0) >= 1


async def test_in_one_process_the_others_wait_and_find_it_done(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    step.go.clear()
    async with processor(settings, store) as one:
        tasks = [asyncio.create_task(one.process(place("call"))) for _ in range(6)]
        await step.begun.wait()
        step.go.set()
        results = await asyncio.gather(*tasks)
        assert one._locks == {}
    assert sorted(result.verdict for result in results) == ["done"] + ["unchanged"] * 5
    assert step.runs == 1


async def test_new_content_or_new_parameters_are_done_anew(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    async with processor(settings, store) as one:
        await one.process(place("call"))
        await change_manifest(store, revision=99, epoch=7, owner="x", leftovers=["a"])
        assert (await one.process(place("call"))).verdict is Verdict.UNCHANGED
        late = {"folder": "dt=2026-11-23/call/continuation-a-1/", "first_sample": 9600}
        await change_manifest(store, continuations=[{**late, "samples": None}])
        waiting = await one.process(place("call"))
        assert waiting.verdict is Verdict.NOT_COMPLETE
        assert "late audio" in waiting.reason
        await change_manifest(store, continuations=[{**late, "samples": 100}])
        assert (await one.process(place("call"))).verdict is Verdict.DONE
        step.parameter = "other"
        assert (await one.process(place("call"))).verdict is Verdict.DONE
        assert (await one.process(place("call"))).verdict is Verdict.UNCHANGED
    assert step.runs == 3


async def test_a_recording_that_is_not_complete_waits(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    async with processor(settings, store) as one:
        for state in ("recording", "pending", "failed"):
            await change_manifest(store, state=state)
            done = await one.process(place("call"))
            assert done.verdict is Verdict.NOT_COMPLETE
            assert state in done.reason
            assert done.wait_seconds
        assert await noted(store, "call") == {}
        await change_manifest(store, state="completed_with_gaps")
        assert (await one.process(place("call"))).verdict is Verdict.DONE


async def test_what_is_no_recording_is_told(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    async with processor(settings, store) as one:
        assert (await one.process(place("other"))).verdict is Verdict.GONE
        key = place("call").manifest_key
        await store.put(key, b"no json")
        done = await one.process(place("call"))
        assert done.verdict is Verdict.FAILED
        assert "is not JSON" in done.reason
        assert step.runs == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is no record of post-processing"),
        (b'{"version": "1", "steps": {}}', "is no record of post-processing"),
        (b'{"version": 1, "steps": []}', "is no record of post-processing"),
        (b'{"version": 2, "steps": {}}', "update bot-recorder"),
    ],
)
async def test_a_record_that_is_none_is_told_and_left_alone(
    settings: Settings, store: FaultyStore, step: Counting, body: bytes, said: str
) -> None:
    await store.put(place("call").record_key, body)
    async with processor(settings, store) as one:
        done = await one.process(place("call"))
    assert done.verdict is Verdict.FAILED
    assert said in done.reason
    assert step.runs == 0
    assert await store.get(place("call").record_key) == body


async def test_what_others_have_noted_stays(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    other = {"version": 1, "steps": {"transcribe": {"state": "done"}, "odd": 1}, "claim": "odd"}
    await store.put(place("call").record_key, json.dumps(other).encode())
    async with processor(settings, store) as one:
        assert (await one.process(place("call"))).verdict is Verdict.DONE
    steps = (await noted(store, "call"))["steps"]
    assert steps["transcribe"] == {"state": "done"}
    assert set(steps) == {"transcribe", "webhook"}


async def test_errors_that_pass_are_put_off_and_others_fail(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    step.errors = [
        TransientError("away", op="x", retry_after=77),
        AccessDenied("no", op="x"),
        StepFailed("never"),
        ZeroDivisionError("a defect"),
    ]
    expected = [
        (Verdict.PUT_OFF, "away"),
        (Verdict.FAILED, "no"),
        (Verdict.FAILED, "never"),
        (Verdict.FAILED, "ZeroDivisionError"),
        (Verdict.DONE, ""),
    ]
    async with processor(settings, store) as one:
        for verdict, said in expected:
            done = await one.process(place("call"))
            assert done.verdict is verdict
            assert said in done.reason
            assert done.settled == (verdict is Verdict.DONE)
            assert done.wait_seconds == (77 if verdict is Verdict.PUT_OFF else None)
            document = await noted(store, "call")
            assert document["claim"] is None
            assert document["steps"]["webhook"]["state"] == str(verdict)
    assert step.runs == 5


async def test_the_last_step_waits_for_what_is_put_off_but_tells_of_what_failed(
    settings: Settings, store: FaultyStore, step: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with processor(settings, store, steps=["verify", "webhook"]) as one:
        errors: list[Exception] = [TransientError("away", op="x"), StepFailed("damaged")]

        async def fail(job: Job) -> dict[str, Any]:
            raise errors.pop(0)

        monkeypatch.setattr(STEPS["verify"], "run", fail)
        first = await one.process(place("call"))
        assert (first.verdict, first.steps) == (Verdict.PUT_OFF, {"verify": "put off"})
        assert step.runs == 0
        assert (await noted(store, "call"))["claim"] is None
        second = await one.process(place("call"))
        assert second.verdict is Verdict.FAILED
        assert second.steps == {"verify": "failed", "webhook": "done"}


async def test_damage_is_found_and_found_again(settings: Settings, store: FaultyStore) -> None:
    key = place("call").folder + "audio.wav"
    body = await store.get(key)
    info = await store.head(key)
    async with processor(settings, store, steps=["verify"]) as one:
        await store.put(key, body[:-2])
        for _ in range(2):
            done = await one.process(place("call"))
            assert done.verdict is Verdict.FAILED
            assert "audio.wav" in done.reason
            assert "recorder verify call" in done.reason
        await store.put(key, body, ObjectAttributes("audio/wav", metadata=info.metadata))
        done = await one.process(place("call"))
        assert done.verdict is Verdict.DONE, done.reason


@pytest.mark.parametrize("op", ["read", "put"])
async def test_lost_answers_and_resets_are_survived(
    settings: Settings, store: FaultyStore, step: Counting, op: str
) -> None:
    store.fail(op, reset(op), times=2)
    store.lose_answer(op, times=2)
    async with processor(settings, store) as one:
        done = await one.process(place("call"))
        assert done.verdict is Verdict.DONE, done.reason
        assert (await one.process(place("call"))).verdict is Verdict.UNCHANGED
    assert step.runs == 1


async def test_a_store_that_is_away_or_refuses(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    quick = settings.replace(retry_deadline_seconds=1)
    async with processor(quick, store) as one:
        store.down = True
        assert (await one.process(place("call"))).verdict is Verdict.PUT_OFF
        store.down = False
        store.refuse("put", refusal(AccessDenied, "put"))
        done = await one.process(place("call"))
        assert done.verdict is Verdict.FAILED
        assert "ask for permission" in done.reason
        assert step.runs == 0  # what cannot be noted is not begun


async def test_a_claim_that_runs_out_is_taken_over(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    """A process that dies gives nothing up; one that lives on notes nothing any more."""
    clock = [NOW]
    step.go.clear()
    now = {"now": lambda: clock[0]}
    async with processor(settings, store, **now) as one, processor(settings, store, **now) as two:
        zombie = asyncio.create_task(one.process(place("call")))
        await step.begun.wait()
        held = await two.process(place("call"))
        assert held.verdict is Verdict.CLAIMED
        assert held.wait_seconds == settings.postprocess_claim_seconds
        clock[0] += timedelta(seconds=settings.postprocess_claim_seconds)
        step.begun.clear()
        rescuer = asyncio.create_task(two.process(place("call")))
        await step.begun.wait()
        step.go.set()
        results = await asyncio.gather(zombie, rescuer)
    assert [result.verdict for result in results] == [Verdict.CLAIMED, Verdict.DONE]
    assert (await noted(store, "call"))["steps"]["webhook"]["state"] == "done"


async def test_a_claim_of_the_same_owner_is_taken_over_at_once(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    step.go.clear()
    async with processor(settings, store) as one, processor(settings, store) as two:
        dead = asyncio.create_task(one.process(place("call"), owner="run-1"))
        await step.begun.wait()
        step.begun.clear()
        retried = asyncio.create_task(two.process(place("call"), owner="run-1"))
        await step.begun.wait()
        step.go.set()
        results = await asyncio.gather(dead, retried)
    # Of two that live, one notes; where both would note the very same, either may say so.
    assert Verdict.DONE in [result.verdict for result in results]
    assert {result.verdict for result in results} <= {Verdict.DONE, Verdict.CLAIMED}
    assert step.runs == 2


async def test_a_claim_is_kept_while_work_takes_longer(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    brief = settings.replace(postprocess_claim_seconds=1)
    step.go.clear()
    async with processor(brief, store) as one:
        working = asyncio.create_task(one.process(place("call")))
        await step.begun.wait()
        first = (await noted(store, "call"))["claim"]["until"]
        async with asyncio.timeout(10):
            while (await noted(store, "call"))["claim"]["until"] == first:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        step.go.set()
        assert (await working).verdict is Verdict.DONE


async def test_work_ends_when_its_claim_is_lost(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    brief = settings.replace(postprocess_claim_seconds=1)
    step.go.clear()
    async with processor(brief, store) as one:
        working = asyncio.create_task(one.process(place("call")))
        await step.begun.wait()
        await store.put(place("call").record_key, b'{"version": 1, "steps": {}}')
        done = await asyncio.wait_for(working, 10)
    assert done.verdict is Verdict.CLAIMED
    assert (await noted(store, "call"))["steps"] == {}


async def test_a_cancel_gives_the_claim_up(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    step.go.clear()
    async with processor(settings, store) as one:
        working = asyncio.create_task(one.process(place("call")))
        await step.begun.wait()
        assert (await noted(store, "call"))["claim"] is not None
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert (await noted(store, "call"))["claim"] is None
        step.go.set()
        assert (await one.process(place("call"))).verdict is Verdict.DONE


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_cancel_while_the_claim_is_written_leaves_none(
    settings: Settings, store: FaultyStore, step: Counting, after: bool
) -> None:
    arrived = asyncio.Event()

    async def hook(op: str, key: str, done: bool) -> None:
        if op == "put" and done == after and not arrived.is_set():
            arrived.set()
            await asyncio.Event().wait()

    store.hook = hook
    async with processor(settings, store) as one:
        working = asyncio.create_task(one.process(place("call")))
        await arrived.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert (await noted(store, "call")).get("claim") is None
        assert (await one.process(place("call"))).verdict is Verdict.DONE


async def test_without_conditional_writes_the_last_writer_wins(
    settings: Settings, store: FaultyStore, step: Counting
) -> None:
    await change_manifest(store, conditional_writes=False)
    inner = store.inner

    async def put(key: str, body: bytes, *rest: Any, **options: Any) -> Any:
        if options.get("if_absent") or options.get("if_match"):
            raise Unsupported("no conditions here", op="put")
        return await plain(key, body, *rest, **options)

    plain, inner.put = inner.put, put  # type: ignore[method-assign]
    async with processor(settings, store) as one:
        assert (await one.process(place("call"))).verdict is Verdict.DONE
        assert (await one.process(place("call"))).verdict is Verdict.UNCHANGED


async def test_of_two_writers_one_notes(store: FaultyStore) -> None:
    async def call(op: str, request: Any) -> Any:
        return await request()

    def file(owner: str) -> RecordFile:
        return RecordFile(store, call, "r/postprocess.json", recording_id="r", owner=owner)

    one, two = file("one"), file("two")
    await one.load()
    await two.load()
    await one.claim(60)
    with pytest.raises(Claimed):
        await two.claim(60)
    await two.load()
    with pytest.raises(Claimed):
        await two.claim(60)
    await one.note("verify", {"state": "done"}, seconds=None)
    await two.load()
    assert two.steps["verify"]["state"] == "done"
    await two.claim(60)
    with pytest.raises(Claimed):
        await one.note("tags", {"state": "done"}, seconds=None)
    await two.load()
    assert set(two.steps) == {"verify"}


async def test_what_is_made_of_a_recording(settings: Settings, store: FaultyStore) -> None:
    full = settings.replace(
        postprocess_export_formats="mp3,flac",
        postprocess_tags={"retention": "90d"},
        web_url="https://calls.example.com/archive",
    )
    steps = ["verify", "peaks", "export", "vcon", "tags"]
    folder = place("call").folder
    async with processor(full, store, steps=steps) as one:
        done = await one.process(place("call"))
        assert (done.verdict, done.steps) == (Verdict.DONE, dict.fromkeys(steps, "done"))
        entries = (await noted(store, "call"))["steps"]
        made = [one["key"] for one in entries["export"]["result"]["exports"]]
        assert [key.rpartition(".")[2] for key in made] == ["mp3", "flac"]
        made += [entries["peaks"]["result"]["key"], entries["vcon"]["result"]["key"]]
        samples, rate = soundfile.read(io.BytesIO(await store.get(made[1])), dtype="int16")
        original, _ = soundfile.read(
            io.BytesIO(await store.get(folder + "audio.wav")), dtype="int16"
        )
        assert rate == RATE
        assert np.array_equal(samples, original)
        vcon = json.loads(await store.get(made[3]))
        assert vcon["dialog"][0]["url"].startswith("https://calls.example.com/archive/dt=")
        for key in made:
            assert (await store.tags(key))["retention"] == "90d", key
        assert (await one.process(place("call"))).verdict is Verdict.UNCHANGED
        again = await one.process(place("call"), again=True)  # over what is there
        assert again.verdict is Verdict.DONE, again.reason
    report = await verification.verify(store, "call")
    assert report.ok, report.findings
    other = full.replace(postprocess_export_formats="wav")
    async with processor(other, store, steps=steps) as one:
        assert (await one.process(place("call"))).steps == {"export": "done", "tags": "done"}
        assert (await store.tags(folder + "exports/stereo.wav"))["retention"] == "90d"


async def test_tags_are_added_to_everything(settings: Settings, store: FaultyStore) -> None:
    tagged = settings.replace(postprocess_tags={"retention": "90d", "team": "new"})
    audio = place("call").folder + "audio.wav"
    await store.tag(audio, {"team": "old", "cost": "1"})
    async with processor(tagged, store, steps=["tags"]) as one:
        assert (await one.process(place("call"))).verdict is Verdict.DONE
        assert await store.tags(audio) == {"team": "new", "cost": "1", "retention": "90d"}
        wanted = {"retention": "90d", "team": "new"}
        assert await store.tags(place("call").manifest_key) == wanted
        assert await store.tags(place("call").record_key) == wanted
        assert (await one.process(place("call"))).verdict is Verdict.UNCHANGED
        result = (await noted(store, "call"))["steps"]["tags"]["result"]
        assert result["changed"] == result["objects"] - 1  # the record had them before
    other = tagged.replace(postprocess_tags={"retention": "1y"})
    async with processor(other, store, steps=["tags"]) as one:
        assert (await one.process(place("call"))).verdict is Verdict.DONE
    assert (await store.tags(audio))["retention"] == "1y"


async def test_more_tags_than_s3_has_room_for_are_refused(
    settings: Settings, store: FaultyStore
) -> None:
    audio = place("call").folder + "audio.wav"
    await store.tag(audio, {f"own-{number}": "x" for number in range(10)})
    tagged = settings.replace(postprocess_tags={"retention": "90d"})
    async with processor(tagged, store, steps=["tags"]) as one:
        done = await one.process(place("call"))
    assert done.verdict is Verdict.FAILED
    assert "would have 11 tags" in done.reason
    assert len(await store.tags(audio)) == 10


async def test_a_store_without_tags_is_told(settings: Settings, store: FaultyStore) -> None:
    store.refuse("tags", refusal(Unsupported, "tags"))
    tagged = settings.replace(postprocess_tags={"retention": "90d"})
    async with processor(tagged, store, steps=["tags"]) as one:
        done = await one.process(place("call"))
    assert done.verdict is Verdict.FAILED
    assert "has no object tags" in done.reason
