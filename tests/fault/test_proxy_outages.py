"""Whole recordings on real servers that hang, vanish, refuse, or lose an upload; and storms."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from fault_http import Exchange, Request
from fault_proxy import (
    Fault,
    FaultProxy,
    cut_answer,
    hang,
    late,
    lose_answer,
    refused,
    reset_before,
    reset_in_body,
    slow,
    twice,
)
from loguru import logger
from proxied_calls import Calls, Server

from recorder import Session, State
from recorder.embedded import EmbeddedS3
from uploader.errors import AccessDenied, TransientError


@pytest.fixture(params=["seaweed", "moto"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "moto":
        return Server(request.getfixturevalue("moto_url"))
    real: EmbeddedS3 = request.getfixturevalue("seaweed")
    return Server(real.endpoint_url, real.bucket, real.access_key, real.secret_key)


@pytest_asyncio.fixture
async def calls(server: Server, tmp_path: Path) -> AsyncIterator[Calls]:
    """Recordings on each of the two servers."""
    async with FaultProxy(server.url) as proxy:
        yield Calls(server, proxy, tmp_path / "spool")


on_seaweed = pytest.mark.parametrize("server", ["seaweed"], indirect=True)


@pytest.fixture
def attempts() -> Iterator[list[str]]:
    """What was logged of attempts that failed."""
    told: list[str] = []
    sink = logger.add(lambda line: told.append(line.record["message"]), level="INFO")
    yield told
    logger.remove(sink)


def failed(attempts: list[str], op: str) -> list[str]:
    """Return the codes that an operation's attempts failed with."""
    found = [line for line in attempts if line.startswith(f"{op} attempt ") and " failed: " in line]
    return [line.partition(" failed: ")[2].split(":")[0].split(" ")[1] for line in found]


# -- Complete, whose answer says nothing


COMPLETES: dict[str, Callable[[], Fault]] = {
    "late": lambda: late(60),
    "lost": lose_answer,
    "half": lambda: cut_answer(60),
    "half a body": lambda: cut_answer(250, reset=True),
    "an error of what is done": lambda: refused(500, "InternalError", done=True),
    "an error of what is done in a 200": lambda: refused(200, "InternalError", done=True),
    "an error in a 200": lambda: refused(200, "InternalError"),
    "SlowDown in a 200": lambda: refused(200, "SlowDown"),
    "a conflict": lambda: refused(409, "ConditionalRequestConflict"),
    "InvalidPart": lambda: refused(400, "InvalidPart"),
    "NoSuchUpload of what is done": lambda: refused(404, "NoSuchUpload", done=True),
    "a refused condition of what is done": lambda: refused(412, "PreconditionFailed", done=True),
    "twice": twice,
    "twice, and the first answer": lambda: twice(answered=1),
}


ON_BOTH = ["late", "lost", "an error of what is done", "a conflict", "twice"]
CASES = [("seaweed", name) for name in COMPLETES] + [("moto", name) for name in ON_BOTH]


@pytest.mark.parametrize(("server", "name"), CASES, indirect=["server"])
async def test_a_complete_is_settled_whatever_is_answered(calls: Calls, name: str) -> None:
    calls.proxy.fault("complete_multipart", COMPLETES[name]())
    result = await calls.record(attempt_timeout_seconds=1)
    assert not calls.proxy.pending
    await calls.check(result)


# -- uploads that are gone


async def abort_all(server: Server) -> int:
    """Abort the recording's uploads, as a person or a lifecycle rule does."""
    async with server.store() as store:
        uploads = [upload async for upload in store.list_uploads()]
        for upload in uploads:
            await store.abort_multipart(upload.key, upload.upload_id)
    return len(uploads)


@pytest.mark.parametrize("second", [4, 16])
async def test_an_upload_that_somebody_aborts_is_made_anew(calls: Calls, second: int) -> None:
    aborted = 0

    async def during(call: Session, now: int) -> None:
        nonlocal aborted
        if now == second:
            aborted = await abort_all(calls.server)

    result = await calls.record(during=during)
    assert aborted == 1
    await calls.check(result)
    assert [one.op for one in calls.proxy.begun].count("create_multipart") == 2


async def test_an_upload_that_is_aborted_just_before_it_completes_is_made_anew(
    calls: Calls,
) -> None:
    async def abort_first(exchange: Exchange) -> None:
        assert await abort_all(calls.server) == 1
        await exchange.relay()

    calls.proxy.fault("complete_multipart", abort_first)
    await calls.check(await calls.record())
    assert [one.op for one in calls.proxy.begun].count("complete_multipart") == 2


async def test_a_creation_whose_answer_is_lost_leaves_no_upload(calls: Calls) -> None:
    calls.proxy.fault("create_multipart", lose_answer(), times=3)
    await calls.check(await calls.record())
    assert [one.op for one in calls.proxy.begun].count("create_multipart") == 4


# -- servers that do not answer


@on_seaweed
@pytest.mark.parametrize(("op", "name"), [("put", "put_chunk"), ("upload_part", "upload_part")])
async def test_a_server_that_never_answers_is_given_up_by_the_read_timeout(
    calls: Calls, attempts: list[str], op: str, name: str
) -> None:
    calls.proxy.fault(op, hang(heard=True), key="/chunks/" if op == "put" else "", times=2)
    store = calls.server.store(calls.proxy.url, read_timeout=1)
    await calls.check(await calls.record(store=store))
    assert "ReadTimeoutError" in failed(attempts, name)


@on_seaweed
@pytest.mark.parametrize(
    ("op", "name"), [("complete_multipart", "complete_multipart"), ("upload_part", "upload_part")]
)
async def test_a_server_that_never_answers_is_given_up_by_the_attempts_timeout(
    calls: Calls, attempts: list[str], op: str, name: str
) -> None:
    calls.proxy.fault(op, hang())
    await calls.check(await calls.record(attempt_timeout_seconds=1))
    assert failed(attempts, name) == ["Timeout"]


@on_seaweed
async def test_a_line_that_only_trickles_is_given_up_by_the_attempts_timeout(
    calls: Calls, attempts: list[str]
) -> None:
    calls.proxy.fault("upload_part", slow(1e6), number=2)
    await calls.check(await calls.record(attempt_timeout_seconds=1))
    assert failed(attempts, "upload_part") == ["Timeout"]


@on_seaweed
async def test_an_endpoint_that_does_not_take_connections_is_given_up(calls: Calls) -> None:
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())  # no room for another one
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with calls.server.store(url, connect_timeout=0.1) as store:
            with pytest.raises(TransientError) as raised:
                await store.put("object", b"x")
    assert raised.value.code == "ConnectTimeoutError"


async def test_an_endpoint_that_is_away_for_a_while_costs_nothing(calls: Calls) -> None:
    async def back_when_it_is_told() -> None:
        while not calls.failures():  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.01)
        await calls.proxy.accept()

    tasks: list[asyncio.Task[None]] = []

    async def during(call: Session, now: int) -> None:
        if now == 8:
            await calls.proxy.refuse()
            tasks.append(asyncio.create_task(back_when_it_is_told()))

    await calls.check(await calls.record(during=during))
    await tasks[0]


# -- honest states


@on_seaweed
async def test_an_endpoint_that_stays_away_is_pending_and_keeps_the_spool(calls: Calls) -> None:
    async def away(call: Session, now: int) -> None:
        if now == 16:
            await calls.proxy.refuse()

    result = await calls.record(during=away, retry_deadline_seconds=1)
    assert result.state is State.PENDING
    assert result.reason
    assert (calls.spool / "call" / "result.json").exists()


@on_seaweed
@pytest.mark.parametrize("op", ["upload_part", "complete_multipart"])
async def test_a_refusal_to_the_end_is_failed_and_keeps_the_spool_and_the_chunks(
    calls: Calls, op: str
) -> None:
    calls.proxy.fault(op, refused(403, "AccessDenied"), times=1000)
    result = await calls.record()
    assert result.state is State.FAILED
    assert "AccessDenied" in result.reason
    assert (calls.spool / "call" / "chunks" / "000001.wav").exists()
    async with calls.server.store() as store:
        names = {info.key.partition("/call/")[2] async for info in store.list_objects()}
    assert "audio.wav" not in names
    others = {"chunks/open.wav", "peaks.json"}  # which may be there, and be replaced
    assert len(names - others) == 6, "the manifest and five chunks"


@on_seaweed
async def test_a_refusal_in_mid_call_is_told_and_mended(calls: Calls) -> None:
    calls.proxy.fault("put", refused(403, "AccessDenied"), key="/chunks/", times=2)
    await calls.check(await calls.record())
    assert {type(error) for error in calls.failures()} == {AccessDenied}


# -- storms


async def storm(calls: Calls, seed: int) -> None:
    """Record a call while every fifth request suffers something."""
    dice = random.Random(seed)

    def choose(request: Request) -> Fault | None:
        if dice.random() >= 0.2:
            return None
        faults: list[Fault] = [
            refused(500, "InternalError"),
            refused(503, "SlowDown", retry_after="0"),
            refused(502, "<html>"),
            refused(500, "InternalError", done=True),
            reset_before(),
            reset_in_body(dice.randrange(5_000_000)),
            lose_answer(),
            cut_answer(dice.randrange(300)),
            cut_answer(dice.randrange(300), reset=True),
            slow(20e6),
        ]
        if request.op != "create_multipart":
            faults += [twice(), twice(answered=1)]
        if request.method in ("PUT", "POST"):
            faults.append(refused(200, "InternalError"))
        return dice.choice(faults)

    calls.proxy.choose = choose
    result = await calls.record(chunk_seconds=1)
    await calls.check(result)
    assert len([one for one in calls.proxy.seen if one.fault]) >= 3


@on_seaweed
@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_costs_nothing(calls: Calls, seed: int) -> None:
    await storm(calls, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5, 55))
async def test_many_storms_cost_nothing(calls: Calls, seed: int) -> None:
    await storm(calls, seed)
