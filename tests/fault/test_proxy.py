"""The fault proxy itself: what a client and a server see of each fault, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from fault_http import Request
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

from recorder.embedded import EmbeddedS3
from uploader.errors import AccessDenied
from uploader.s3 import S3Store
from uploader.store import MIN_PART_BYTES

BODY = bytes(range(256)) * 800  # three reads of the proxy's
PUT = (
    b"PUT /calls/folder/a%20b?partNumber=7&uploadId=x%2Fy HTTP/1.1\r\n"
    b"Host: signed.example:1234\r\nX-Odd:   kept as it is\r\nContent-Length: "
)


@dataclass
class Upstream:
    """A server that notes the bytes it gets, and answers with the number of the request."""

    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)
    chunked: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                body = bytearray()
                self.bodies.append(body)  # type: ignore[arg-type]  # compared with bytes
                while len(body) < int(length or 0):
                    piece = await reader.read(int(length) - len(body))
                    if not piece:
                        raise ConnectionResetError
                    body += piece
                writer.write(self.answer())
        except (ConnectionError, EOFError):
            self.cut_off.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def answer(self) -> bytes:
        text = b"answer %d" % len(self.heads)
        if self.chunked:
            framed = b"4;x=y\r\n" + text[:4] + b"\r\n%x\r\n" % len(text[4:]) + text[4:]
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (
                framed + b"\r\n0\r\nTrailer: 1\r\n\r\n"
            )
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield server
    listener.close()
    await listener.wait_closed()


@pytest_asyncio.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(upstream.url) as opened:
        yield opened


class Client:
    """Sends bytes, and says what came back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def put(self, body: bytes = BODY) -> bytes:
        self.writer.write(PUT + b"%d\r\n\r\n" % len(body) + body)
        return await self.answer()

    async def answer(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b"Content-Length: " not in head and b"content-length: " not in head:
            return head + await self.reader.readuntil(b"\r\n\r\n")  # chunks, up to the trailer
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head + await self.reader.readexactly(int(length))


@pytest_asyncio.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    port = int(proxy.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Client(reader, writer)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("line", "op", "key", "number"),
    [
        ("PUT /calls", "create_bucket", "", 0),
        ("GET /calls?list-type=2&prefix=a", "list", "", 0),
        ("GET /calls/?uploads", "list_uploads", "", 0),
        ("PUT /calls/a%20b/c", "put", "a b/c", 0),
        ("GET /calls/a", "get", "a", 0),
        ("HEAD /calls/a", "head", "a", 0),
        ("DELETE /calls/a", "delete", "a", 0),
        ("POST /calls/a?uploads", "create_multipart", "a", 0),
        ("PUT /calls/a?uploadId=1&partNumber=12", "upload_part", "a", 12),
        ("GET /calls/a?uploadId=1", "list_parts", "a", 0),
        ("POST /calls/a?uploadId=1", "complete_multipart", "a", 0),
        ("DELETE /calls/a?uploadId=1", "abort_multipart", "a", 0),
        ("OPTIONS /calls/a", "OPTIONS", "a", 0),
    ],
)
def test_requests_are_told_apart(line: str, op: str, key: str, number: int) -> None:
    request = Request.parse(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (request.op, request.key, request.number) == (op, key, number)


@pytest.mark.parametrize("chunked", [False, True])
async def test_without_a_fault_every_byte_is_passed_on(
    proxy: FaultProxy, upstream: Upstream, client: Client, chunked: bool
) -> None:
    upstream.chunked = chunked
    for _ in range(2):  # the second on the same connection
        answered = await client.put()
        assert answered == upstream.answer()
    assert upstream.heads == [PUT + b"%d\r\n\r\n" % len(BODY)] * 2
    assert upstream.bodies == [BODY, BODY]
    assert [(one.op, one.number, one.fault, one.statuses) for one in proxy.seen] == [
        ("upload_part", 7, "", (200,))
    ] * 2


async def test_a_client_that_asks_before_it_sends_is_told_to(
    proxy: FaultProxy, upstream: Upstream, client: Client
) -> None:
    faults: list[Fault | None] = [None, lose_answer()]
    for fault in faults:
        if fault is not None:
            proxy.fault("*", fault)
        head = PUT + b"%d\r\nExpect: 100-continue\r\n\r\n" % len(BODY)
        client.writer.write(head)
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(BODY)
        if fault is None:
            assert await client.answer() == upstream.answer()
    with pytest.raises(ConnectionResetError):
        await client.answer()
    assert upstream.bodies == [BODY, BODY]


async def test_an_error_is_answered_and_the_server_hears_nothing(
    proxy: FaultProxy, upstream: Upstream, client: Client
) -> None:
    proxy.fault("upload_part", refused(503, "SlowDown", retry_after="3"))
    answered = await client.put()
    assert answered.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 3\r\n" in answered
    assert b"<Code>SlowDown</Code>" in answered
    assert not upstream.heads
    assert await client.put() == upstream.answer(), "the connection should have been kept"


async def test_an_error_is_answered_to_what_the_server_has_done(
    proxy: FaultProxy, upstream: Upstream, client: Client
) -> None:
    proxy.fault("*", refused(500, "InternalError", done=True))
    assert (await client.put()).startswith(b"HTTP/1.1 500 ")
    assert upstream.bodies == [BODY]
    assert proxy.seen[0].statuses == (200,)


async def test_the_answer_to_a_head_has_no_body(proxy: FaultProxy, client: Client) -> None:
    proxy.fault("head", refused(404, "NoSuchKey"))
    client.writer.write(b"HEAD /calls/a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"404" in await client.reader.readuntil(b"\r\n\r\n")
    assert await client.put()


async def test_a_reset_before_the_server_hears(
    proxy: FaultProxy, upstream: Upstream, client: Client
) -> None:
    proxy.fault("*", reset_before())
    with pytest.raises(ConnectionResetError):
        await client.put()
    assert not upstream.heads


async def test_a_reset_in_the_body(proxy: FaultProxy, upstream: Upstream, client: Client) -> None:
    proxy.fault("*", reset_in_body(100_000))
    with pytest.raises(ConnectionResetError):
        await client.put()
    await upstream.cut_off.wait()
    assert len(upstream.heads) == 1
    assert BODY[:100_000].startswith(upstream.bodies[0])  # a reset may overtake what is on its way
    assert proxy.seen[0].statuses == ()


async def test_a_lost_answer(proxy: FaultProxy, upstream: Upstream, client: Client) -> None:
    proxy.fault("*", lose_answer())
    with pytest.raises(ConnectionResetError):
        await client.put()
    assert upstream.bodies == [BODY]
    assert proxy.seen[0].statuses == (200,)


@pytest.mark.parametrize("after", [0, 10, 40])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_that_is_cut_off(
    proxy: FaultProxy, upstream: Upstream, client: Client, after: int, chunked: bool
) -> None:
    upstream.chunked = chunked
    proxy.fault("*", cut_answer(after))
    client.writer.write(PUT + b"%d\r\n\r\n" % len(BODY) + BODY)
    assert await client.reader.read() == upstream.answer()[:after]
    assert upstream.bodies == [BODY]


async def test_an_answer_that_is_cut_off_by_a_reset(
    proxy: FaultProxy, upstream: Upstream, client: Client
) -> None:
    proxy.fault("*", cut_answer(20, reset=True))
    client.writer.write(PUT + b"0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await client.reader.readexactly(len(upstream.answer()))


@pytest.mark.parametrize("heard", [False, True])
async def test_a_request_that_hangs_ends_with_the_client(
    proxy: FaultProxy, upstream: Upstream, client: Client, heard: bool
) -> None:
    proxy.fault("*", hang(heard=heard))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.put(), 0.05)
    assert not proxy.seen
    client.writer.close()
    await settled(lambda: len(proxy.seen) == 1)
    assert not upstream.heads


async def test_a_late_answer_is_late(proxy: FaultProxy, upstream: Upstream, client: Client) -> None:
    proxy.fault("*", late(0.1))
    waiting = asyncio.create_task(client.put())
    await settled(lambda: upstream.bodies == [BODY])
    assert not waiting.done()
    assert await waiting == upstream.answer()
    proxy.fault("*", late(600))
    waiting = asyncio.create_task(client.put())
    await settled(lambda: upstream.bodies == [BODY, BODY])
    client.writer.close()
    await settled(lambda: proxy.faults_of("upload_part") == ["late", "late"])
    waiting.cancel()


async def test_a_slow_line_passes_everything_on_slowly(
    proxy: FaultProxy, upstream: Upstream, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("fault_proxy.asyncio.sleep", sleep)
    proxy.fault("*", slow(1000))
    assert await client.put() == upstream.answer()
    assert upstream.bodies == [BODY]
    assert sum(slept) == pytest.approx((len(BODY) + len(b"answer 1")) / 1000)


@pytest.mark.parametrize("answered", [1, 2])
async def test_a_request_that_comes_twice(
    proxy: FaultProxy, upstream: Upstream, client: Client, answered: int
) -> None:
    proxy.fault("*", twice(answered=answered))
    assert (await client.put()).endswith(b"answer %d" % answered)
    assert upstream.bodies == [BODY, BODY]
    assert upstream.heads[0] == upstream.heads[1]
    assert proxy.seen[0].statuses == (200, 200)


async def test_only_a_request_that_is_heard_is_told_to_send_its_body(
    proxy: FaultProxy, client: Client
) -> None:
    proxy.fault("*", hang(heard=True))
    client.writer.write(PUT + b"1\r\nExpect: 100-continue\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_refused_connections_and_the_same_port_again(
    proxy: FaultProxy, upstream: Upstream, client: Client
) -> None:
    host, port = proxy.url.removeprefix("http://").split(":")
    await client.put()
    await proxy.refuse()
    assert await client.reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
    await proxy.accept()
    assert proxy.url.endswith(f":{port}")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert await Client(reader, writer).put() == upstream.answer()
    writer.close()


async def test_rules_count_and_choose(proxy: FaultProxy, client: Client) -> None:
    error = refused(500, "InternalError")
    proxy.fault("put", error)
    proxy.fault("upload_part", error, number=8)
    proxy.fault("upload_part", error, key="folder/b")
    proxy.fault("upload_part", error, key="folder/a", number=7, skip=1, times=2)
    statuses = [(await client.put(b"x"))[9:12] for _ in range(4)]
    assert statuses == [b"200", b"500", b"500", b"200"]
    assert proxy.pending == 3, "of another operation, number and key"
    proxy.fault("upload_part", error, after="upload_part")
    assert (await client.put(b"x"))[9:12] == b"500"
    proxy.fault("upload_part", error, after="delete")
    assert (await client.put(b"x"))[9:12] == b"200"
    proxy.choose = lambda request: error if request.number == 7 else None
    assert (await client.put(b"x"))[9:12] == b"500"
    proxy.heal()
    assert (proxy.pending, (await client.put(b"x"))[9:12]) == (0, b"200")
    assert proxy.faults_of("upload_part") == ["refused"] * 4


async def settled(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is looked at has no event
        await asyncio.sleep(0.001)


# -- in front of real servers


async def uploaded(store: S3Store) -> bytes:
    body = bytes(MIN_PART_BYTES)
    await store.put("small", b"x")
    upload_id = await store.create_multipart("big")
    parts = [await store.upload_part("big", upload_id, n, body) for n in (1, 2)]
    assert len(await store.list_parts("big", upload_id)) == 2
    await store.complete_multipart("big", upload_id, parts)
    assert (await store.head("big")).size == 2 * len(body)
    assert {info.key async for info in store.list_objects()} == {"big", "small"}
    await store.delete("small")
    return await store.get("big")


async def test_a_server_that_checks_signatures_is_content(
    seaweed: EmbeddedS3, s3_store: Callable[..., Awaitable[S3Store]]
) -> None:
    async with FaultProxy(seaweed.endpoint_url) as proxy:
        store = await s3_store(endpoint_url=proxy.url)
        assert await uploaded(store) == bytes(2 * MIN_PART_BYTES)
        wrong = await s3_store(endpoint_url=proxy.url, secret_key="wrong" * 8)
        with pytest.raises(AccessDenied):
            await wrong.put("small", b"x")
    assert {one.op for one in proxy.seen} == {
        "put",
        "create_multipart",
        "upload_part",
        "list_parts",
        "complete_multipart",
        "head",
        "list",
        "delete",
        "get",
    }


async def test_moto_is_passed_through_too(moto_url: str) -> None:
    async with (
        FaultProxy(moto_url) as proxy,
        S3Store("calls", "through-the-proxy", endpoint_url=proxy.url) as store,
    ):
        assert await uploaded(store) == bytes(2 * MIN_PART_BYTES)
