"""vCons of real recordings, on every store: their hashes, and how they are written."""

from __future__ import annotations

import asyncio
import hashlib
import json
import urllib.request
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import vcon_schema
from calls import die, speak
from commands import typed
from faulty_store import FaultyStore

from recorder import Recorder, Settings, VirtualClock
from recorder.catalog import Catalog
from recorder.embedded import EmbeddedS3
from recorder.events import UploadFailed
from recorder.settings import SettingsError
from recorder.stores import make_store
from recorder.vcon import ContentDiffers, content_hash, write_vcon
from recorder.verification import verify
from uploader.errors import AccessDenied
from uploader.store import Store

WEB = "https://calls.example.org/x"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def settings_on(kind: str, request: pytest.FixtureRequest, folder: Path) -> Settings:
    where: dict[str, Any] = {"bucket": (folder / "bucket").as_uri()}
    if kind == "moto":
        where = {"bucket": "calls", "aws_endpoint_url_s3": request.getfixturevalue("moto_url")}
    elif kind == "seaweed":
        server: EmbeddedS3 = request.getfixturevalue("seaweed")
        where = {
            "bucket": server.bucket,
            "aws_endpoint_url_s3": server.endpoint_url,
            "aws_access_key_id": server.access_key,
            "aws_secret_access_key": server.secret_key,
        }
    return Settings(
        prefix=f"vcon-{uuid.uuid4().hex}",
        spool_dir=folder / "spool",
        chunk_seconds=1,
        outputs=("stereo", "tracks"),
        **where,
    )


async def record(settings: Settings, name: str = "call") -> None:
    clock = VirtualClock(utc=NOON)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start(name)
        speak(call, clock, 0, 2.5)
        assert (await call.stop()).durable


@pytest.fixture(params=["local", "moto", "seaweed"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for each kind of store in turn."""
    return settings_on(request.param, request, tmp_path)


@pytest_asyncio.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """A store with a recording called `call`."""
    await record(settings)
    async with make_store(settings) as opened:
        yield opened


in_a_folder = pytest.mark.parametrize("settings", ["local"], indirect=True)
on_a_server = pytest.mark.parametrize("settings", ["moto", "seaweed"], indirect=True)


async def test_the_hash_is_of_the_objects_bytes_and_verify_accepts_the_vcon(store: Store) -> None:
    made = await write_vcon(store, "call", base_url=WEB)
    assert made.written
    body, info = await store.read(made.key)
    assert json.loads(body) == made.document
    assert info.content_type == "application/vcon"
    assert info.metadata["recorder-recording-id"] == "call"
    vcon_schema.check(made.document)
    [dialog] = made.document["dialog"]
    assert dialog["url"] == f"{WEB}/dt=2026-11-23/call/audio.wav"
    audio = await store.get("dt=2026-11-23/call/audio.wav")
    assert dialog["content_hash"] == content_hash(hashlib.sha512(audio).digest())
    report = await verify(store, "call")
    assert report.ok, report.findings


async def test_written_again_it_is_left_alone_or_keeps_its_identity(store: Store) -> None:
    first = await write_vcon(store, "call", base_url=WEB, now=NOON)
    again = await write_vcon(store, "call", base_url=WEB, now=NOON + timedelta(hours=1))
    assert (again.written, again.document) == (False, first.document)
    other = await write_vcon(
        store, "call", base_url="https://b.example.org", now=NOON + timedelta(hours=2)
    )
    assert other.written
    told = json.loads(await store.get(first.key))
    assert (told["uuid"], told["created_at"]) == (
        first.document["uuid"],
        "2026-11-23T12:00:00.000Z",
    )
    assert told["updated_at"] == "2026-11-23T14:00:00.000Z"
    assert told["dialog"][0]["url"].startswith("https://b.example.org/")


async def test_two_that_write_at_a_time_agree(store: Store) -> None:
    made = await asyncio.gather(
        *(write_vcon(store, "call", base_url=WEB, now=NOON) for _ in range(4))
    )
    assert sum(one.written for one in made) == 1
    assert all(one.document == made[0].document for one in made)


@in_a_folder
async def test_who_was_quicker_is_not_overwritten_unseen(store: Store) -> None:
    faulty = FaultyStore(store)
    identity = "01a215a1-c293-8526-b9f6-4f34c2f25a4c"
    there = {"uuid": identity, "created_at": "2020-01-01T00:00:00Z"}

    async def hook(op: str, key: str, done: bool) -> None:
        if op == "put" and not done and key.endswith("vcon.json"):
            faulty.hook = None
            await store.put(key, json.dumps(there).encode())

    faulty.hook = hook
    made = await write_vcon(faulty, "call", base_url=WEB)
    assert faulty.calls["put"] == 2
    assert made.document["uuid"] == identity
    assert made.document["created_at"] == "2020-01-01T00:00:00Z"
    assert json.loads(await store.get(made.key)) == made.document


@in_a_folder
async def test_a_lost_answer_is_settled_by_looking(store: Store) -> None:
    faulty = FaultyStore(store)
    faulty.lose_answer("put")
    made = await write_vcon(faulty, "call", base_url=WEB, now=NOON)
    assert json.loads(await store.get(made.key)) == made.document


@in_a_folder
async def test_nothing_vouches_for_audio_that_is_not_what_was_recorded(store: Store) -> None:
    key = "dt=2026-11-23/call/audio.wav"
    audio = await store.get(key)
    for damaged in (audio[:-1], audio + b"\0", audio[:-1] + bytes([audio[-1] ^ 1])):
        await store.put(key, damaged)
        with pytest.raises(ContentDiffers, match="not what the manifest says"):
            await write_vcon(store, "call", base_url=WEB)
    await store.delete(key)
    with pytest.raises(ContentDiffers, match="nothing there"):
        await write_vcon(store, "call", base_url=WEB)
    listed = [one.key async for one in store.list_objects("dt=2026-11-23/call/vcon")]
    assert listed == []


@in_a_folder
async def test_without_conditional_writes_it_is_written_all_the_same(store: Store) -> None:
    found = await Catalog(store).find("call")
    manifest = {**found.recording.manifest.values, "conditional_writes": False}
    assert (await write_vcon(store, manifest, base_url=WEB)).written
    assert (await write_vcon(store, manifest, base_url=f"{WEB}/y")).written


@on_a_server
async def test_a_presigned_address_can_be_read_by_anybody(store: Store) -> None:
    key = "dt=2026-11-23/call/audio.wav"
    address = await store.presigned_url(key, 60)

    def read() -> bytes:
        with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310 - http, loopback
            body: bytes = answer.read()
            return body

    assert await asyncio.to_thread(read) == await store.get(key)


# -- on the command line ---------------------------------------------------------------------------


@pytest.fixture
async def bucket(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    settings = settings_on("local", request, tmp_path)
    await record(settings)
    return str(settings.location)


def run(*words: str) -> Any:
    return typed("vcon", *words)


def test_it_is_printed_and_nothing_is_written(bucket: str, tmp_path: Path) -> None:
    done = run(
        "call", "--bucket", bucket, "--web-url", WEB, "--output", "user", "--originator", "bot"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    vcon_schema.check(document)
    [dialog] = document["dialog"]
    assert (dialog["parties"], dialog["originator"]) == (0, 1)
    assert not list(tmp_path.glob("bucket/**/vcon.json"))


def test_it_is_written_when_asked(bucket: str, tmp_path: Path) -> None:
    done = run("call", "--bucket", bucket, "--web-url", WEB, "--write")
    assert done.exit_code == 0
    [path] = tmp_path.glob("bucket/**/vcon.json")
    assert done.stdout.strip() == f"written: {path.as_uri()}".replace("%3D", "=")
    assert run("call", "--bucket", bucket, "--web-url", WEB, "--write").stdout.startswith(
        "nothing new: "
    )
    told = json.loads(run("call", "--bucket", bucket, "--web-url", WEB, "--write", "--json").stdout)
    assert (told["written"], told["vcon"]) == (False, json.loads(path.read_bytes()))


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["call"], "has no address on the web (set RECORDER_WEB_URL", 2),
        (["nobody"], "no recording 'nobody'", 1),
        (["../up"], "'../up'", 2),
        (["call", "--presign", "0"], "--presign 0: must be 1 to 604800 seconds", 2),
        (["call", "--web-url", "ftp://x"], "must be https://", 2),
        (["call", "--web-url", WEB, "--presign", "9"], "cannot be presigned", 2),
        (["call", "--web-url", WEB, "--output", "mono"], "has no output mono", 2),
        (["call", "--web-url", WEB, "--originator", "ann"], "no track is called 'ann'", 2),
    ],
)
def test_wrong_input_is_one_clear_error(
    bucket: str, words: list[str], says: str, code: int
) -> None:
    done = run(*words, "--bucket", bucket)
    assert done.exit_code == code
    assert says in done.stderr
    assert done.stdout == ""


# -- on completion ---------------------------------------------------------------------------------


async def test_it_is_written_on_completion_when_asked(settings: Settings) -> None:
    await record(settings.replace(vcon=True, web_url=WEB))
    async with make_store(settings) as store:
        document = json.loads(await store.get("dt=2026-11-23/call/vcon.json"))
        vcon_schema.check(document)
        audio = await store.get("dt=2026-11-23/call/audio.wav")
        [dialog] = document["dialog"]
        assert dialog["content_hash"] == content_hash(hashlib.sha512(audio).digest())
        assert dialog["url"] == f"{WEB}/dt=2026-11-23/call/audio.wav"
        report = await verify(store, "call")
        assert report.ok, report.findings
        again = await write_vcon(store, "call", base_url=WEB)
        assert (again.written, again.document) == (False, document)


@in_a_folder
async def test_a_recovery_writes_it_too(settings: Settings, tmp_path: Path) -> None:
    asked = settings.replace(vcon=True, web_url=WEB)
    clock = VirtualClock(utc=NOON)
    recorder = await Recorder(asked, clock=clock).__aenter__()
    call = await recorder.start("call")
    speak(call, clock, 0, 2.5)
    await die(recorder)
    async with Recorder(settings, recover=False) as other:  # which has not been asked itself
        [recovered] = await other.recover()
    assert recovered.result is not None
    [path] = tmp_path.glob("bucket/**/call/vcon.json")
    vcon_schema.check(json.loads(path.read_bytes()))


@in_a_folder
async def test_a_vcon_that_fails_is_told_and_costs_nothing_else(
    settings: Settings, tmp_path: Path
) -> None:
    told: list[Any] = []
    clock = VirtualClock(utc=NOON)
    store = FaultyStore(make_store(settings))

    async def hook(op: str, key: str, done: bool) -> None:
        if key.endswith("vcon.json"):
            raise AccessDenied("no", op=op, key=key)

    store.hook = hook
    asked = settings.replace(vcon=True, web_url=WEB)
    async with Recorder(asked, clock=clock, store=store) as recorder:
        call = await recorder.start("call", on_event=told.append)
        speak(call, clock, 0, 1.5)
        result = await call.stop()
    assert result.state == "completed"
    assert [one.op for one in told if isinstance(one, UploadFailed)] == ["put_vcon"]
    assert not list(tmp_path.glob("spool/*"))
    assert not list(tmp_path.glob("bucket/**/chunks/*"))


def test_a_bucket_without_an_https_address_needs_one(tmp_path: Path) -> None:
    for where in (
        {"bucket": tmp_path.as_uri()},
        {"bucket": "calls", "aws_endpoint_url_s3": "http://127.0.0.1:8333"},
    ):
        with pytest.raises(SettingsError, match=r"vcon.*needs RECORDER_WEB_URL"):
            Settings(vcon=True, **where)
        assert Settings(vcon=True, web_url=WEB, **where).vcon
    assert Settings(vcon=True, bucket="calls").vcon
