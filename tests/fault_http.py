"""Requests and answers as the fault proxy sees them: byte for byte, HTTP/1.1 (RFC 9112)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as far as faults are chosen by it.

    Attributes:
        op: What it does, in the store's words: `put`, `upload_part`, ...; else the method.
        key: The object's key with the store's prefix, without the bucket; may be empty.
        number: Of the part, or 0.
        head: All bytes before the body.
        headers: By name in lower case.
    """

    op: str
    method: str
    target: str
    key: str
    number: int
    head: bytes
    headers: dict[str, str]

    @classmethod
    def parse(cls, head: bytes) -> Request:
        line, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        parts = urlsplit(target)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        query = {name: values[0] for name, values in parse_qs(parts.query, True).items()}
        number = int(query.get("partNumber", "0"))
        return cls(_operation(method, key, query), method, target, key, number, head, headers)


def _operation(method: str, key: str, query: dict[str, str]) -> str:
    upload = "uploadId" in query
    if not key:
        whole = {"PUT": "create_bucket", "HEAD": "head_bucket", "POST": "delete_many"}
        listed = "list_uploads" if "uploads" in query else "list"
        return listed if method == "GET" else whole.get(method, method)
    named = {
        "PUT": "upload_part" if upload else "put",
        "POST": "complete_multipart" if upload else "create_multipart",
        "GET": "list_parts" if upload else "get",
        "HEAD": "head",
        "DELETE": "abort_multipart" if upload else "delete",
    }
    return named.get(method, method)


class Broken(Exception):
    """The connection to the client is over: nothing more may be read or written."""


@dataclass(slots=True)
class Connection:
    """One end: the client, or the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        """Return everything up to the empty line; nothing if the other side has ended."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return b""

    async def body(
        self, headers: dict[str, str], *, until_end: bool = False
    ) -> AsyncIterator[bytes]:
        """Yield the pieces of a body as they are on the wire, chunk headers included."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            async for piece in self._chunks():
                yield piece
        elif "content-length" in headers:
            left = int(headers["content-length"])
            while left:
                piece = await self.reader.read(min(left, PIECE))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                yield piece
        elif until_end:
            while piece := await self.reader.read(PIECE):
                yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = await self.reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            yield line + await self.reader.readexactly(size + 2)
        while line != b"\r\n":  # the last chunk, trailers, and the empty line
            yield line
            line = await self.reader.readuntil(b"\r\n")
        yield line

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection as a machine does that has forgotten about it."""
        end = self.writer.get_extra_info("socket")
        if end is not None and end.fileno() >= 0:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side has ended; what it still sends is dropped."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(PIECE):
                pass

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, as it was on the wire."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])


@dataclass(slots=True)
class Exchange:
    """One request of a client, and the means to deal with it.

    Attributes:
        server: Returns the connection to the server that goes with the client's.
        connect: Opens a connection to the server.
        keep: Whether the client's connection may take a further request.
        statuses: What the server answered, each time it was asked.
    """

    request: Request
    client: Connection
    server: Callable[[], Awaitable[Connection]]
    connect: Callable[[], Awaitable[Connection]]
    keep: bool = True
    statuses: list[int] = field(default_factory=list)

    async def go_ahead(self) -> None:
        """Have the body sent by a client that asks before whether to."""
        if "expect" in self.request.headers:
            await self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def request_body(self) -> bytes:
        """Take the whole body."""
        await self.go_ahead()
        return b"".join([piece async for piece in self.client.body(self.request.headers)])

    async def ask(self, body: bytes) -> Reply:
        """Send the request with its body to the server, and return the answer."""
        server = await self.connect()
        try:
            await server.send(self.request.head + body)
            status, head = 100, b""
            while status < 200:
                head = await server.head()
                if not head:
                    raise ConnectionResetError("the server has ended without an answer")
                status = Reply(head, b"").status
            pieces = [piece async for piece in self._answer_body(server, head)]
        finally:
            await server.close()
        self.statuses.append(status)
        return Reply(head, b"".join(pieces))

    async def relay(self, pace: Callable[[int], Awaitable[None]] | None = None) -> None:
        """Pass request and answer on as they come; `pace` is awaited after each piece's bytes."""
        server = await self.server()
        await server.send(self.request.head)
        sending = asyncio.create_task(self._send_body(server, pace))
        try:
            while True:
                head = await server.head()
                if not head:
                    raise Broken
                await self.client.send(head)
                status = Reply(head, b"").status
                if status >= 200:
                    break
            self.statuses.append(status)
            async for piece in self._answer_body(server, head):
                await self.client.send(piece)
                if pace is not None:
                    await pace(len(piece))
            self.keep &= sending.done() and b"connection: close" not in head.lower()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, EOFError):
                await sending

    async def _send_body(
        self, server: Connection, pace: Callable[[int], Awaitable[None]] | None
    ) -> None:
        try:
            async for piece in self.client.body(self.request.headers):
                await server.send(piece)
                if pace is not None:
                    await pace(len(piece))
        except (EOFError, ConnectionError):
            server.reset()  # the client has gone: the server must not wait for the rest
            raise

    def _answer_body(self, server: Connection, head: bytes) -> AsyncIterator[bytes]:
        status = Reply(head, b"").status
        if self.request.method == "HEAD" or status in (204, 304):
            return server.body({})
        headers = Request.parse(b"GET / HTTP/1.1\r\n" + head.partition(b"\r\n")[2]).headers
        return server.body(headers, until_end=True)
