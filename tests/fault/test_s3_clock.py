"""A machine whose clock is wrong: requests are signed with the server's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import botocore.auth
import botocore.crt.auth
import pytest
import pytest_asyncio
from fault_http import Request as ProxiedRequest
from fault_proxy import Fault, FaultProxy, refused
from loguru import logger
from proxied_calls import Calls, Server
from scripted_s3 import BODY, Answer, Request, ScriptedServer, open_store, refusal, stored

from recorder.embedded import EmbeddedS3
from uploader.errors import AccessDenied, TransientError
from uploader.s3 import S3Store
from uploader.s3_clock import SigningClock, date_of

ALLOWED = timedelta(minutes=15)
HOUR = timedelta(hours=1)


class ClockServer(ScriptedServer):
    """Refuses requests whose time is not about its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = timedelta()
        self.code = "RequestTimeTooSkewed"
        self.gate: asyncio.Event | None = None
        self.dates = True
        self.refusals = 0

    async def decide(self, request: Request) -> Answer:
        if self.gate is not None:
            await self.gate.wait()
        now = datetime.now(UTC) + self.ahead
        if abs(signed_at(request.headers) - now) < ALLOWED:
            return stored(b"")
        self.refusals += 1
        return refusal(403, self.code, **({"date": http_date(now)} if self.dates else {}))


def signed_at(headers: dict[str, str]) -> datetime:
    """Return when a request says it was signed, after a look at what must agree with that."""
    at = headers["x-amz-date"]
    assert f"/{at[:8]}/" in headers["authorization"]
    return datetime.strptime(at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def http_date(time: datetime) -> str:
    return format_datetime(time, usegmt=True)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ClockServer]:
    scripted = ClockServer()
    listener = await scripted.start()
    yield scripted
    listener.close()
    await listener.wait_closed()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    yield told
    logger.remove(sink)


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"])
@pytest.mark.parametrize("ahead", [3 * HOUR, -3 * HOUR, 40 * 24 * HOUR])
async def test_a_refusal_for_the_time_is_mended_by_the_servers(
    server: ClockServer, warnings: list[str], ahead: timedelta, code: str
) -> None:
    server.ahead, server.code = ahead, code
    async with open_store(server) as store:
        with pytest.raises(TransientError, match="is used from now on") as raised:
            await store.put("object", BODY)
        assert raised.value.code == code
        for _ in range(3):
            await store.put("object", BODY)
    [warning] = warnings
    seconds = int(warning.partition("clock is ")[2].partition(" s ")[0])
    assert abs(seconds - abs(ahead.total_seconds())) <= 2
    assert ("behind" if ahead > timedelta() else "ahead of") in warning
    assert warning.partition(":")[0] in str(raised.value)
    times = [signed_at(one.headers) for one in server.requests[1:]]
    assert all(abs(time - datetime.now(UTC) - ahead) < timedelta(minutes=1) for time in times)
    assert server.requests[-1].headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


async def test_a_head_refused_for_the_time_is_mended_too(server: ClockServer) -> None:
    server.ahead = HOUR
    async with open_store(server) as store:
        with pytest.raises(TransientError, match="RequestTimeTooSkewed"):
            await store.head("object")
        assert (await store.head("object")).size == 0


async def test_a_clock_that_was_set_right_is_gone_by_again(
    server: ClockServer, warnings: list[str]
) -> None:
    async with open_store(server) as store:
        for ahead in (HOUR, timedelta()):
            server.ahead = ahead
            with pytest.raises(TransientError):
                await store.put("object", BODY)
            await store.put("object", BODY)
        assert not store._bucket.connection.clock.offset
    assert "agrees" in warnings[1]


async def test_requests_refused_together_are_all_tried_again(
    server: ClockServer, warnings: list[str]
) -> None:
    server.ahead, server.gate = HOUR, asyncio.Event()
    async with open_store(server) as store:
        puts = [asyncio.create_task(store.put(f"object-{n}", BODY)) for n in range(4)]
        while len(server.requests) < 4:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.001)
        server.gate.set()
        errors = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(error) for error in errors] == [TransientError] * 4
        await store.put("object", BODY)
    assert len(warnings) == 1


async def test_a_server_that_does_not_tell_its_time_is_not_believed(server: ClockServer) -> None:
    server.ahead, server.dates = HOUR, False
    async with open_store(server) as store:
        for _ in range(2):
            with pytest.raises(AccessDenied, match="set it by NTP"):
                await store.put("object", BODY)


async def test_a_server_whose_time_is_ours_refuses_for_good(
    server: ClockServer, warnings: list[str]
) -> None:
    """Its `Date` is another clock's than the one it goes by: nothing here can help."""
    async with open_store(server) as store:
        answer = refusal(403, "RequestTimeTooSkewed", date=http_date(datetime.now(UTC)))

        async def decide(request: Request) -> Answer:
            return answer

        server.decide = decide  # type: ignore[method-assign]  # a server of this test's own
        with pytest.raises(AccessDenied, match="set it by NTP"):
            await store.put("object", BODY)
    assert not warnings


@pytest.mark.parametrize("date", ["", "soon", "Wed, 99 Nov", "Tue, 24 Nov 2026 19:00:00"])
def test_a_date_that_is_none(date: str) -> None:
    assert date_of({"date": date} if date else {}) is None


def test_a_request_that_was_long_under_way_is_signed_anew() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    clock = SigningClock(lambda: now)
    assert clock.corrected(now - HOUR, {"date": http_date(now)})
    assert not clock.offset


async def test_a_real_server_takes_what_is_signed_with_its_time(
    seaweed: EmbeddedS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything here believes that it is yesterday, and SeaweedFS checks the signatures."""

    def yesterday(remove_tzinfo: bool = True) -> datetime:
        now = datetime.now(UTC) - 24 * HOUR
        return now.replace(tzinfo=None) if remove_tzinfo else now

    for module in (botocore.auth, botocore.crt.auth):
        monkeypatch.setattr(module, "get_current_datetime", yesterday)
    async with FaultProxy(seaweed.endpoint_url) as proxy:
        async with S3Store(
            seaweed.bucket,
            "clock",
            endpoint_url=proxy.url,
            access_key=seaweed.access_key,
            secret_key=seaweed.secret_key,
        ) as store:
            store._bucket.connection.clock._utc = lambda: yesterday(remove_tzinfo=False)
            with pytest.raises(TransientError, match=r"86400 s behind|86399 s behind"):
                await store.put("a b", BODY)
            await store.put("a b", BODY)
            assert await store.get("a b") == BODY
            upload_id = await store.create_multipart("multi")
            part = await store.upload_part("multi", upload_id, 1, BODY)
            await store.complete_multipart("multi", upload_id, [part])
            assert {info.key async for info in store.list_objects()} == {"a b", "multi"}
        assert [one.statuses for one in proxy.seen][:2] == [(403,), (200,)]


async def test_a_recording_goes_on_whatever_the_clocks_say(moto_url: str, tmp_path: Path) -> None:
    """The server's clock jumps in mid-call, forth and back."""
    ahead = timedelta()

    def choose(request: ProxiedRequest) -> Fault | None:
        now = datetime.now(UTC) + ahead
        if abs(signed_at(request.headers) - now) < ALLOWED:
            return None
        return refused(403, "RequestTimeTooSkewed", date=http_date(now))

    async def jump(call: object, second: int) -> None:
        nonlocal ahead
        ahead = {4: 2 * HOUR, 8: -24 * HOUR, 14: timedelta()}.get(second, ahead)

    async with FaultProxy(moto_url) as proxy:
        proxy.choose = choose
        calls = Calls(Server(moto_url), proxy, tmp_path / "spool")
        await calls.check(await calls.record(during=jump, step=2, chunk_seconds=2))
        assert len([one for one in proxy.seen if one.fault]) >= 3
    assert not calls.failures()
