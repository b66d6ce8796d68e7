"""`recorder recover` as a process of its own, on what killed processes of `caller.py` have left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import wave
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import caller
import numpy as np
import pytest
from commands import PROGRAM

from recorder.embedded import EmbeddedS3
from recorder.settings import Settings
from recorder.stores import make_store

RATE = caller.RATE


@dataclass(frozen=True)
class Done:
    code: int | None
    stdout: str
    stderr: str

    @property
    def told(self) -> list[dict[str, Any]]:
        """What `--json` has printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Place:
    """A bucket, hosts with a spool each, and programs that use them."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RECORDER_BUCKET": (folder / "bucket").as_uri(),
            "RECORDER_SPOOL_DIR": str(self.spool),
            "RECORDER_CHUNK_SECONDS": "0.5",
            "RECORDER_HOLD_BACK_SECONDS": "0.5",
            "RECORDER_SAMPLE_RATE": str(RATE),
            "RECORDER_OUTPUTS": "mono",
            "RECORDER_RECOVER_SECONDS": "0",
            **variables,
        }

    @asynccontextmanager
    async def program(
        self, *words: object, without: str = "", **variables: object
    ) -> AsyncIterator[Process]:
        """Start a program; it is killed at the end, if it has not ended."""
        environment = {**self.environment, **{name: str(text) for name, text in variables.items()}}
        environment.pop(without, None)
        process = await asyncio.create_subprocess_exec(
            *map(str, words),
            stdin=PIPE if "caller.py" in str(words) else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd=self.folder,
            env=environment,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    @asynccontextmanager
    async def call(self, name: str, seconds: int, **variables: object) -> AsyncIterator[Process]:
        """Start a call, and wait until its first seconds are recorded."""
        words = sys.executable, caller.__file__, name, seconds
        async with self.program(*words, **variables) as process:
            line = await process.stdout.readline()
            assert line == b"ready\n", (await process.stderr.read()).decode()
            yield process

    async def die(self, *names: str, seconds: int = 3, **variables: object) -> None:
        """Record calls, all at once, in processes that are killed."""

        async def one(name: str) -> None:
            async with self.call(name, seconds, **variables) as process:
                process.send_signal(signal.SIGKILL)
                await process.wait()

        await asyncio.gather(*(one(name) for name in names))

    async def recover(self, *words: object, **variables: Any) -> Done:
        """Run `recorder recover` to its end."""
        async with self.program(PROGRAM, "recover", *words, **variables) as process:
            out, err = await process.communicate()
        return Done(process.returncode, out.decode(), err.decode())

    def files(self, *folders: str) -> dict[str, bytes]:
        """Return what is in bucket and spool."""
        paths = (path for name in folders for path in (self.folder / name).rglob("*"))
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    async def objects(self, name: str) -> dict[str, bytes]:
        """Return the objects of a recording."""
        given = ("BUCKET", "SPOOL_DIR", "PREFIX")
        values = {one.lower(): self.environment.get(f"RECORDER_{one}", "") for one in given}
        for one in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            if one in self.environment:
                values[one.lower()] = self.environment[one]
        async with make_store(Settings(**values)) as store:
            return {
                info.key.partition(f"/{name}/")[2]: await store.get(info.key)
                async for info in store.list_objects("dt=")
                if f"/{name}/" in info.key
            }

    async def assert_finished(self, name: str, samples: int | None = None) -> None:
        """The recording is one playable object of so many samples of what was said, or fewer."""
        objects = await self.objects(name)
        assert set(objects) == {"manifest.json", "audio.wav", "peaks.json"}
        with wave.open(BytesIO(objects["audio.wav"])) as file:
            audio = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        document = json.loads(objects["manifest.json"])
        assert len(audio) == document["samples"] > 0
        assert (audio == caller.spoken(len(audio))).all()
        if samples is None:
            assert document["state"] == "completed_with_gaps"
            assert {(gap["start"], gap["end"]) for gap in document["gaps"]} == {(len(audio), None)}
        else:
            assert (document["state"], len(audio)) == ("completed", samples)


STALE_SECONDS = 4


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- the spool -------------------------------------------------------------------------------------


async def test_what_killed_processes_left_in_the_spool_is_finished(place: Place) -> None:
    await place.die("first", "second")
    done = await place.recover()
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "recovered 2, failed 0"
    for name in ("first", "second"):
        (line,) = (line for line in lines if line.startswith(name))
        assert "recovered  from spool  3.00 s  completed  file:///" in line
        await place.assert_finished(name, 3 * RATE)
    assert place.files("spool") == {}
    assert (await place.recover()).stdout == f"nothing to recover in {place.spool}\n"


async def test_the_spool_is_recovered_without_a_bucket_in_the_environment(place: Place) -> None:
    await place.die("call")
    done = await place.recover(without="RECORDER_BUCKET")
    assert (done.code, done.stderr) == (0, "")
    await place.assert_finished("call", 3 * RATE)


async def test_json_is_a_line_for_each_recording(place: Place) -> None:
    await place.die("first", "second")
    told = (await place.recover("--json")).told
    assert {one["recording_id"] for one in told} == {"first", "second"}
    assert {(one["source"], one["outcome"]) for one in told} == {("spool", "recovered")}
    assert {one["result"]["samples"] for one in told} == {3 * RATE}


@pytest.mark.parametrize("words", [(), ("--bucket", "--stale-after", "0")])
async def test_a_dry_run_changes_nothing(place: Place, words: tuple[str, ...]) -> None:
    await place.die("here")
    await place.die("lost", RECORDER_SPOOL_DIR=place.folder / "elsewhere")
    (place.spool / ".gone-1").mkdir()
    (place.spool / ".gone-1" / "half").write_text("a folder that a process died removing")
    before = place.files("spool", "bucket")
    done = await place.recover("--dry-run", *words)
    assert place.files("spool", "bucket") == before
    assert done.code == 0, done.stderr
    assert "here  would be recovered  from spool\n" in done.stdout
    assert ("lost  would be recovered  from bucket\n" in done.stdout) is bool(words)
    count = 2 if words else 1
    assert f"dry run, nothing was changed: would be recovered {count}" in done.stdout


async def test_a_damaged_recording_is_one_failure_and_the_others_are_done(place: Place) -> None:
    await place.die("good", "ill")
    plan = place.spool / "ill" / "recording.json"
    plan.write_text("{")
    done = await place.recover()
    assert done.code == 1
    assert "ill  failed  from spool\n" in done.stdout
    assert done.stdout.count(f"{plan} is damaged") == 1
    assert done.stdout.splitlines()[-1] == "recovered 1, failed 1"
    assert "Error: not all is done: 1 failed; their audio is kept\n" in done.stderr
    await place.assert_finished("good", 3 * RATE)
    assert plan.exists()


# -- the bucket ------------------------------------------------------------------------------------


async def test_what_a_lost_host_left_in_the_bucket_is_finished(place: Place) -> None:
    await place.die("lost")
    shutil.rmtree(place.spool)
    assert (await place.recover()).stdout == f"nothing to recover in {place.spool}\n"
    done = await place.recover("--bucket", "--stale-after", "0")
    assert done.code == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert "lost  recovered  from bucket  " in first
    assert "  completed_with_gaps  file:///" in first
    assert second.startswith("  missing of user, from ")
    assert " to nobody knows when: the recording's host was lost" in second
    assert last == "recovered 1, failed 0"
    await place.assert_finished("lost")


async def test_a_second_look_tells_the_dead_from_the_living(place: Place) -> None:
    host = {"RECORDER_SPOOL_DIR": place.folder / "host"}
    await place.die("lost", RECORDER_SPOOL_DIR=place.folder / "lost")
    async with place.call("live", 1, **host) as live:
        live.stdin.write(b"\n")
        location = place.environment["RECORDER_BUCKET"]
        done = await place.recover("--bucket", location, "--stale-after", STALE_SECONDS)
        here = await place.recover(**host)
        live.stdin.write(b"\n")
        state, samples = (await live.stdout.readline()).split()
    assert done.code == here.code == 0, done.stderr
    assert "lost  recovered  from bucket" in done.stdout
    assert "live  alive  from bucket\n  it changed between two looks\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "recovered 1, failed 0, alive 1"
    assert (
        f"looking again in {STALE_SECONDS} s to see which of 2 recordings are alive" in done.stderr
    )
    assert "live  alive  from spool\n" in here.stdout
    assert state == b"completed"
    await place.assert_finished("live", int(samples))
    await place.assert_finished("lost")


@pytest.mark.parametrize("where", ["folder", "s3"])
async def test_two_at_once_do_each_recording_once(
    tmp_path: Path, where: str, seaweed: EmbeddedS3
) -> None:
    place = Place(tmp_path) if where == "folder" else on_s3(tmp_path, seaweed)
    names = ["first", "second", "third", "fourth"]
    await place.die(*names)
    shutil.rmtree(place.spool)
    words = ("--bucket", "--stale-after", 0, "--json")
    both = await asyncio.gather(place.recover(*words), place.recover(*words))
    recovered = Counter(
        one["recording_id"] for done in both for one in done.told if one["outcome"] == "recovered"
    )
    told = [(one["recording_id"], one["outcome"]) for done in both for one in done.told]
    assert recovered == Counter(names), told
    assert [done.code for done in both] == [0, 0], (told, [done.stderr for done in both])
    for name in names:
        await place.assert_finished(name)


def on_s3(folder: Path, server: EmbeddedS3) -> Place:
    return Place(
        folder,
        RECORDER_BUCKET=server.bucket,
        RECORDER_PREFIX=folder.name,
        AWS_ENDPOINT_URL_S3=server.endpoint_url,
        AWS_ACCESS_KEY_ID=server.access_key,
        AWS_SECRET_ACCESS_KEY=server.secret_key,
    )


# -- watching --------------------------------------------------------------------------------------


async def line_with(stream: asyncio.StreamReader, text: str) -> str:
    """Read lines until one has a text in it."""
    lines = []
    while line := (await stream.readline()).decode():
        lines.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in {lines}")


async def test_a_watch_outlives_its_endpoint_and_ends_when_told(tmp_path: Path) -> None:
    async with EmbeddedS3(tmp_path / "server", bucket="calls") as server:
        place = on_s3(tmp_path, server)
        words = ("--watch", "--stale-after", 2, "--interval", 0.2, "--json")
        async with place.program(PROGRAM, "recover", *words) as watch:
            await line_with(watch.stderr, "watching ")
            await place.die("early", RECORDER_SPOOL_DIR=tmp_path / "lost")
            told = json.loads(await line_with(watch.stdout, "early"))
            assert (told["source"], told["outcome"]) == ("bucket", "recovered")
            server.kill()
            await line_with(watch.stderr, "could not look, again in ")
            await server.start()
            await place.die("late")
            told = json.loads(await line_with(watch.stdout, "late"))
            assert (told["source"], told["outcome"]) == ("spool", "recovered")
            watch.send_signal(signal.SIGTERM)
            out, err = await watch.communicate()
            assert (watch.returncode, out) == (0, b""), err.decode()
        await place.assert_finished("early")
        await place.assert_finished("late", 3 * RATE)


async def test_a_watch_begins_while_its_endpoint_is_down(tmp_path: Path) -> None:
    async with EmbeddedS3(tmp_path / "server", bucket="calls") as server:
        place = on_s3(tmp_path, server)
        await place.die("call")
        server.kill()
        once = await place.recover()
        assert once.code == 1
        assert "Error: " in once.stderr
        assert server.endpoint_url in once.stderr
        async with place.program(PROGRAM, "recover", "--watch", "--interval", 0.2) as watch:
            await line_with(watch.stderr, "could not look, again in ")
            await server.start()
            await line_with(watch.stdout, "call  recovered  from spool  3.00 s  completed")
            watch.send_signal(signal.SIGINT)
            out, err = await watch.communicate()
            assert (watch.returncode, out) == (0, b"recovered 1, failed 0\n"), err.decode()
        await place.assert_finished("call", 3 * RATE)


async def test_a_watch_of_a_bucket_that_is_not_there_is_an_error(
    tmp_path: Path, seaweed: EmbeddedS3
) -> None:
    place = on_s3(tmp_path, seaweed)
    done = await place.recover("--watch", "--bucket", "s3://no-such-bucket")
    assert done.code == 1
    assert "no-such-bucket" in done.stderr


async def test_a_watch_leaves_the_living_alone_and_tells_each_trouble_once(place: Place) -> None:
    await place.die("ill")
    (place.spool / "ill" / "recording.json").write_text("{}")
    words = ("--watch", "--stale-after", 60, "--interval", 0.1)
    async with (
        place.call("live", 1) as live,
        place.program(PROGRAM, "recover", *words) as watch,
    ):
        told = await line_with(watch.stdout, "ill  failed  from spool")
        await place.die("dead")  # many looks later
        told += await line_with(watch.stdout, "dead  recovered  from spool")
        watch.send_signal(signal.SIGTERM)
        told += (await watch.stdout.read()).decode()
        live.stdin.write(b"\n\n")
        state, samples = (await live.stdout.readline()).split()
    assert watch.returncode == 0
    assert told.count("ill  failed") == 1
    assert "live" not in told
    assert told.splitlines()[-1] == "recovered 1, failed 1"
    assert state == b"completed"
    await place.assert_finished("live", int(samples))
