"""Function and worker, end to end: the recorder writes, S3's events come through SQS (moto).

The events are moto's own, as S3's; only the envelope in which Lambda hands over messages of SQS is
made here, since no Lambda runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aws_queue import Aws, aws
from commands import PROGRAM, typed
from complete import SECRET, noted, place, record, settings_for
from receiver import Receiver, receiving
from typer.testing import Result

from recorder.embedded import EmbeddedS3
from recorder.postprocess import Processor
from recorder.postprocess import queue_worker as worker_module
from recorder.postprocess.events import UnreadableEvent
from recorder.postprocess.function import Function, NotSettled
from recorder.postprocess.queue_worker import Worker
from recorder.postprocess.sqs import NoSuchQueue, open_queue
from recorder.postprocess.steps.registry import STEPS
from recorder.settings import Settings
from recorder.stores import make_store


@pytest_asyncio.fixture
async def cloud(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aws]:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 1)
    async with aws(moto_url) as made:
        yield made


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


def hooked(cloud: Aws, folder: Path, receiver: Receiver, **changes: Any) -> Settings:
    return cloud.settings(
        folder,
        postprocess_steps="verify,tags,webhook",
        postprocess_tags={"retention": "90d"},
        webhook_url=receiver.url,
        webhook_secret=SECRET,
        **changes,
    )


async def work_off(cloud: Aws, settings: Settings, *, left: int = 0) -> Worker:
    """Run a worker until the queue has no more messages than that."""
    async with (
        open_queue(settings, cloud.queue) as queue,
        Processor(settings) as processor,
    ):
        worker = Worker(queue, processor)
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(60):
            while await cloud.left() > left and not running.done():  # noqa: ASYNC110 - of a server
                await asyncio.sleep(0.05)
        worker.stop()
        await running
        return worker


async def test_recordings_are_worked_on_as_they_are_complete(
    cloud: Aws, tmp_path: Path, receiver: Receiver
) -> None:
    settings = hooked(cloud, tmp_path, receiver)
    await record(settings, "one", "two", "three")
    messages = await cloud.take(keep=True)
    keys = [
        r["s3"]["object"]["key"] for m in messages for r in json.loads(m["Body"]).get("Records", [])
    ]
    assert all(key.startswith("a%2Bb%2Fc%3Dd%2Fdt%3D2026-11-23%2F") for key in keys)
    assert any(key.endswith("chunks%2F000001.wav") for key in keys)
    worker = await work_off(cloud, settings)
    assert worker.counts["unreadable"] == 0
    assert sorted(told["data"]["recording_id"] for told in receiver.told) == ["one", "three", "two"]
    assert set(receiver.ids.values()) == {1}
    async with make_store(settings) as store:
        for name in ("one", "two", "three"):
            steps = (await noted(store, name))["steps"]
            assert {step: entry["state"] for step, entry in steps.items()} == {
                "verify": "done",
                "tags": "done",
                "webhook": "done",
            }
            for file in ("audio.wav", "manifest.json", "postprocess.json"):
                tags = await store.tags(place(name).folder + file)
                assert tags == {"retention": "90d"}, file
    assert await cloud.left(cloud.dead) == 0
    # Every message once more, as S3 and SQS may: all is found done.
    await cloud.send(*(message["Body"] for message in messages))
    await work_off(cloud, settings)
    assert set(receiver.ids.values()) == {1}


async def test_an_output_before_its_manifest_comes_again(
    cloud: Aws, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = hooked(cloud, tmp_path, receiver)
    await record(settings, "early")
    audio = next(m["Body"] for m in await cloud.take() if "audio.wav" in m["Body"])
    async with make_store(settings) as store:
        complete = await store.get(place("early").manifest_key)
        early = json.dumps({**json.loads(complete), "state": "recording"}).encode()
        await store.put(place("early").manifest_key, early)
        await cloud.take()
        await cloud.send(audio)
        async with open_queue(settings, cloud.queue) as queue, Processor(settings) as processor:
            worker = Worker(queue, processor)
            running = asyncio.create_task(worker.run())
            async with asyncio.timeout(20):
                while not worker.counts:  # noqa: ASYNC110 - of another task
                    await asyncio.sleep(0.02)
            worker.stop()
            await running
        assert worker.counts == {"again": 1}
        assert await noted(store, "early") == {}
        assert await cloud.left() == 1
        await store.put(place("early").manifest_key, complete)
        assert len(await cloud.take()) == 1  # of the manifest; the other one is hidden for 30 s
        await cloud.send(audio)
        await work_off(cloud, settings, left=1)
        assert (await noted(store, "early"))["steps"]["webhook"]["state"] == "done"


async def test_poison_goes_to_the_dead_letter_queue_and_holds_nothing_up(
    cloud: Aws, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = hooked(cloud, tmp_path, receiver)
    poison = ["no json at all", '{"Records": [{"eventSource": "aws:dynamodb"}]}']
    await cloud.send(*poison)
    await record(settings, "good")
    worker = await work_off(cloud, settings, left=2)
    assert [told["data"]["recording_id"] for told in receiver.told] == ["good"]
    assert worker.counts["unreadable"] == 2
    assert await cloud.left(cloud.dead) == 0  # but hidden, to come again
    monkeypatch.setattr(worker_module, "HIDE_SECONDS", 1.0)
    await cloud.send(*poison)
    worker = await work_off(cloud, settings, left=2)
    assert worker.counts["unreadable"] == 2 * 3
    assert sorted(one["Body"] for one in await cloud.take(cloud.dead)) == sorted(poison)


async def test_a_queue_that_is_not_there_is_told(cloud: Aws, tmp_path: Path) -> None:
    settings = cloud.settings(tmp_path)
    async with open_queue(settings, cloud.queue + "-not") as queue:
        with pytest.raises(NoSuchQueue, match="RECORDER_POSTPROCESS_QUEUE_URL"):
            await queue.most_receives()
    async with open_queue(settings, cloud.queue) as queue:
        assert await queue.most_receives() == 3
    async with open_queue(settings, cloud.dead) as queue:
        assert await queue.most_receives() is None


# -- the function


class Context:
    def __init__(self, seconds: float = 60) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


class Place:
    """A bucket with events, for tests that are called as Lambda calls: not from an event loop."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.settings: Settings

    def record(self, *names: str) -> list[str]:
        """Record, and return the messages that came of it."""

        async def work() -> list[str]:
            async with aws(self.url) as cloud:
                self.settings = cloud.settings(self.folder, postprocess_steps="verify")
                await record(self.settings, *names)
                return [message["Body"] for message in await cloud.take()]

        return asyncio.run(work())

    def noted(self, name: str) -> dict[str, Any]:
        async def look() -> dict[str, Any]:
            async with make_store(self.settings) as store:
                return await noted(store, name)

        return asyncio.run(look())

    def change_manifest(self, name: str, **changes: Any) -> None:
        async def change() -> None:
            async with make_store(self.settings) as store:
                key = place(name).manifest_key
                document = json.loads(await store.get(key)) | changes
                await store.put(key, json.dumps(document).encode())

        asyncio.run(change())


@pytest.fixture
def bucket(moto_url: str, tmp_path: Path) -> Place:
    return Place(moto_url, tmp_path)


@pytest.fixture
def function() -> Iterator[list[Function]]:
    made: list[Function] = []
    yield made
    for one in made:
        one.close()


def batch(*bodies: str) -> dict[str, Any]:
    """Messages as Lambda hands them over (AWS Lambda Developer Guide, "Using Lambda with SQS")."""
    return {
        "Records": [
            {"messageId": f"m{number}", "eventSource": "aws:sqs", "body": body}
            for number, body in enumerate(bodies)
        ]
    }


def test_of_a_batch_only_what_is_not_settled_comes_again(
    bucket: Place, function: list[Function]
) -> None:
    bodies = bucket.record("done", "early")
    bucket.change_manifest("early", state="pending")
    done, early_one = (
        next(body for body in bodies if f"{name}%2Faudio.wav" in body) for name in ("done", "early")
    )
    function.append(handler := Function(bucket.settings))
    messages = [done, "no json", early_one, done, *bodies]
    answer = handler(batch(*messages), Context())
    names = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
    again = ("no json", "early%2Faudio.wav")  # of which moto tells twice
    assert names == {
        f"m{n}" for n, body in enumerate(messages) if any(word in body for word in again)
    }
    assert bucket.noted("done")["steps"]["verify"]["state"] == "done"
    assert bucket.noted("early") == {}
    bucket.change_manifest("early", state="completed")
    answer = handler(batch(*(messages[int(name[1:])] for name in sorted(names))), Context())
    assert len(answer["batchItemFailures"]) == 1
    assert bucket.noted("early")["steps"]["verify"]["state"] == "done"


def test_an_event_that_comes_directly(bucket: Place, function: list[Function]) -> None:
    bodies = bucket.record("done")
    audio = json.loads(next(body for body in bodies if "audio.wav" in body))
    function.append(handler := Function(bucket.settings))
    bucket.change_manifest("done", state="recording")
    with pytest.raises(NotSettled, match="done: not complete"):
        handler(audio, Context())
    bucket.change_manifest("done", state="completed")
    for _ in range(2):
        assert handler(audio, Context()) == {}
    first = bucket.noted("done")["steps"]["verify"]
    assert first["state"] == "done"
    for body in bodies:
        assert handler(json.loads(body)) == {}
    assert bucket.noted("done")["steps"]["verify"] == first
    assert handler({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}) == {}
    with pytest.raises(UnreadableEvent):
        handler({"hello": "world"})


def test_a_function_that_runs_out_of_time_gives_back(
    bucket: Place, function: list[Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = bucket.record("slow")
    audio = next(body for body in bodies if "audio.wav" in body)

    async def hang(job: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(STEPS["verify"], "run", hang)
    function.append(handler := Function(bucket.settings))
    answer = handler(batch(audio), Context(5.5))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert bucket.noted("slow")["claim"] is None
    with pytest.raises(TimeoutError):
        handler(json.loads(audio), Context(5.5))


def test_the_packaged_handler_reads_the_environment(
    bucket: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = bucket.record("done")
    settings = bucket.settings
    monkeypatch.setenv("RECORDER_BUCKET", settings.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", str(settings.aws_endpoint_url_s3))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "deploy" / "lambda"))
    import handler as packaged

    try:
        assert packaged.handler(batch(*bodies), Context()) == {"batchItemFailures": []}
    finally:
        packaged.handler.close()
    assert bucket.noted("done")["steps"]["verify"]["state"] == "done"


# -- the command


async def test_the_worker_as_a_process(cloud: Aws, tmp_path: Path, receiver: Receiver) -> None:
    settings = hooked(cloud, tmp_path, receiver)
    environment = {
        **os.environ,
        "RECORDER_BUCKET": settings.bucket,
        "AWS_ENDPOINT_URL": cloud.url,
        "RECORDER_POSTPROCESS_QUEUE_URL": cloud.queue,
        "RECORDER_POSTPROCESS_STEPS": "verify,tags,webhook",
        "RECORDER_POSTPROCESS_TAGS": "retention=90d",
        "RECORDER_WEBHOOK_URL": receiver.url,
        "RECORDER_WEBHOOK_SECRET": SECRET,
    }
    receiver.hold.clear()
    await record(settings, "call")
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM),
        "worker",
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
    )
    try:
        async with asyncio.timeout(30):
            while not receiver.held:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)  # in mid-work: it is finished first
        await asyncio.sleep(0.3)
        assert process.returncode is None
        receiver.hold.set()
        out, err = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    told = [json.loads(line) for line in out.decode().splitlines()]
    assert [one["verdict"] for one in told if one["steps"]] == ["done"]
    assert "working on" in err.decode()
    assert "ending, with what is in hand" in err.decode()
    assert len(receiver.told) == 1


async def test_the_worker_says_what_it_lacks(
    cloud: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECORDER_BUCKET", cloud.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)

    async def invoke(*words: str) -> Result:
        return await asyncio.to_thread(typed, "worker", *words)

    done = await invoke()
    assert done.exit_code == 2
    assert "RECORDER_POSTPROCESS_QUEUE_URL is not set" in done.stderr
    done = await invoke("--queue-url", cloud.queue + "-not")
    assert done.exit_code == 1
    assert "correct RECORDER_POSTPROCESS_QUEUE_URL" in done.stderr
    done = await invoke("--queue-url", "calls")
    assert done.exit_code == 2
    assert "must be an SQS queue's URL" in done.stderr
    done = await invoke("--queue-url", cloud.queue, "--bucket", tmp_path.as_uri())
    assert done.exit_code == 2
    assert "a folder sends no events" in done.stderr


async def test_two_processes_on_a_server_with_real_conditions(
    seaweed: EmbeddedS3, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path,
        bucket=f"s3://{seaweed.bucket}/{uuid.uuid4().hex}",
        aws_endpoint_url_s3=seaweed.endpoint_url,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
        postprocess_steps="verify,peaks,tags",
        postprocess_tags={"retention": "90d"},
    )
    await record(settings, "call")
    async with Processor(settings) as one, Processor(settings) as two:
        results = await asyncio.gather(*(each.process(place("call")) for each in (one, two)))
        verdicts = sorted(result.verdict for result in results)
        assert verdicts in (["claimed", "done"], ["done", "unchanged"])
        assert (await two.process(place("call"))).verdict == "unchanged"
        document = await noted(one.store, "call")
        assert document["claim"] is None
        assert set(document["steps"]) == {"verify", "peaks", "tags"}
        for file in ("audio.wav", "manifest.json", "postprocess.json", "peaks.json"):
            assert await one.store.tags(place("call").folder + file) == {"retention": "90d"}, file
