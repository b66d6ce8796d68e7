"""A proxy in front of a real S3 server that hurts the requests it is told to.

It knows as much HTTP/1.1 (RFC 9112) as S3 clients and servers speak: connections kept alive, bodies
with a length or in chunks, `Expect: 100-continue`. What it passes on it passes byte for byte, the
`Host` header too, which is signed: a server that checks signatures is content with it.

    async with FaultProxy(server.endpoint_url) as proxy:
        proxy.fault("upload_part", lose_answer(), number=2)
        store = S3Store(..., endpoint_url=proxy.url)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from fault_http import Broken, Connection, Exchange, Request

_LIMIT = 1024 * 1024  # longest head or line, bytes

Fault = Callable[[Exchange], Awaitable[None]]
"""Deals with a request in the proxy's stead; made by one of the functions below."""


@dataclass(slots=True)
class Rule:
    """Which requests suffer which fault; `left` counts how many more, after `skip` that do not."""

    op: str
    fault: Fault
    key: str
    number: int | None
    left: int
    skip: int
    after: str

    def matches(self, request: Request, answered: set[str]) -> bool:
        if self.after and self.after not in answered:
            return False
        if self.left <= 0 or self.op not in ("*", request.op) or self.key not in request.key:
            return False
        if self.number not in (None, request.number):
            return False
        self.skip -= 1
        if self.skip >= 0:
            return False
        self.left -= 1
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a request: its fault's name, if any, and what the server answered."""

    op: str
    key: str
    number: int
    fault: str
    statuses: tuple[int, ...]


class FaultProxy:
    """Stands in front of one server, on a port of its own; an async context manager.

    Args:
        upstream: The server's URL.

    Attributes:
        url: Where clients find the proxy.
        seen: Every request whose fate is settled, in that order.
        begun: Every request that came, in that order.
        choose: Asked for a fault for each request that no rule takes.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self.url = ""
        self.seen: list[Seen] = []
        self.begun: list[Request] = []
        self.choose: Callable[[Request], Fault | None] = lambda request: None
        self._rules: list[Rule] = []
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def fault(
        self,
        op: str,
        fault: Fault,
        *,
        key: str = "",
        number: int | None = None,
        times: int = 1,
        skip: int = 0,
        after: str = "",
    ) -> None:
        """Let the next `times` matching requests suffer, after `skip` that do not.

        Args:
            op: The operation, or `*` for any.
            fault: Made by one of the functions below.
            key: A part of the object's key.
            number: The part's number; any if None.
            times: How many requests.
            skip: How many matching requests are let through first.
            after: An operation that must have been answered before.
        """
        self._rules.append(Rule(op, fault, key, number, times, skip, after))

    def heal(self) -> None:
        """Forget all faults that have not come to pass."""
        self._rules.clear()
        self.choose = lambda request: None

    @property
    def pending(self) -> int:
        """How many requests are still to suffer."""
        return sum(rule.left for rule in self._rules)

    def faults_of(self, op: str) -> list[str]:
        """Return the faults that requests of an operation suffered, in order."""
        return [one.fault for one in self.seen if one.op == op and one.fault]

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.refuse()

    async def accept(self) -> None:
        """Listen: on a free port, or again on the port there was before."""
        port = urlsplit(self.url).port if self.url else 0
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_LIMIT)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def refuse(self) -> None:
        """End all connections, and refuse new ones until `accept`."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        client = Connection(reader, writer)
        upstream: list[Connection] = []
        try:
            with contextlib.suppress(Broken, ConnectionError, EOFError, asyncio.CancelledError):
                while await self._serve_one(client, upstream):
                    pass
        finally:
            if task is not None:
                self._tasks.discard(task)
            for end in (client, *upstream):
                await end.close()

    async def _serve_one(self, client: Connection, upstream: list[Connection]) -> bool:
        head = await client.head()
        if not head:
            return False

        async def server() -> Connection:
            if not upstream:
                upstream.append(await self._connect())
            return upstream[0]

        exchange = Exchange(Request.parse(head), client, server, self._connect)
        request = exchange.request
        self.begun.append(request)
        fault = self._fault_for(request)
        name = "" if fault is None else fault.__qualname__.partition(".")[0]
        try:
            await (exchange.relay() if fault is None else fault(exchange))
        except (Broken, ConnectionError, EOFError):
            client.reset()
            for server in upstream:
                server.reset()
            raise
        finally:
            statuses = tuple(exchange.statuses)
            self.seen.append(Seen(request.op, request.key, request.number, name, statuses))
        return exchange.keep

    async def _connect(self) -> Connection:
        return Connection(*await asyncio.open_connection(self._host, self._port, limit=_LIMIT))

    def _fault_for(self, request: Request) -> Fault | None:
        answered = {one.op for one in self.seen}
        for rule in self._rules:
            if rule.matches(request, answered):
                return rule.fault
        return self.choose(request)


# -- what can happen to a request


def refused(status: int, code: str, *, done: bool = False, **headers: str) -> Fault:
    """Answer an S3 error. A status of 200 is an error inside a 200.

    Args:
        status: The HTTP status.
        code: The error code.
        done: Whether the server does it all the same; else it hears nothing.
        headers: Further headers, `_` for `-`.
    """

    async def refused_(exchange: Exchange) -> None:
        body = await exchange.request_body()
        if done:
            await exchange.ask(body)
        await exchange.client.send(_error(exchange.request, status, code, headers))

    return refused_


def reset_before() -> Fault:
    """Reset the connection before the server hears of the request."""

    async def reset_before_(exchange: Exchange) -> None:
        raise Broken

    return reset_before_


def reset_in_body(after: int) -> Fault:
    """Pass on `after` bytes of the body, and reset both connections."""

    async def reset_in_body_(exchange: Exchange) -> None:
        server = await exchange.server()
        await server.send(exchange.request.head)
        await exchange.go_ahead()
        left = after
        async for piece in exchange.client.body(exchange.request.headers):
            await server.send(piece[:left])
            left -= len(piece)
            if left <= 0:
                break
        raise Broken

    return reset_in_body_


def lose_answer() -> Fault:
    """Let the server do it, and reset the connection instead of answering."""

    async def lose_answer_(exchange: Exchange) -> None:
        await exchange.ask(await exchange.request_body())
        raise Broken

    return lose_answer_


def cut_answer(after: int, *, reset: bool = False) -> Fault:
    """Let the server do it, and end after `after` bytes of the answer, head included."""

    async def cut_answer_(exchange: Exchange) -> None:
        reply = await exchange.ask(await exchange.request_body())
        await exchange.client.send((reply.head + reply.body)[:after])
        if reset:
            raise Broken
        exchange.keep = False

    return cut_answer_


def hang(*, heard: bool = False) -> Fault:
    """Never answer; the server hears nothing. It ends when the client gives up.

    Args:
        heard: Whether the whole request is taken first; else not even its body is asked for.
    """

    async def hang_(exchange: Exchange) -> None:
        if heard:
            await exchange.request_body()
        await exchange.client.gone()
        exchange.keep = False

    return hang_


def late(seconds: float) -> Fault:
    """Let the server do it at once, and answer after `seconds`, if the client is still there."""

    async def late_(exchange: Exchange) -> None:
        reply = await exchange.ask(await exchange.request_body())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(exchange.client.gone(), seconds)
            raise Broken
        await exchange.client.send(reply.head + reply.body)

    return late_


def slow(bytes_per_second: float) -> Fault:
    """Pass request and answer on at this rate."""

    async def pace(sent: int) -> None:
        await asyncio.sleep(sent / bytes_per_second)

    async def slow_(exchange: Exchange) -> None:
        await exchange.relay(pace)

    return slow_


def twice(*, answered: int = 2) -> Fault:
    """Send the request to the server twice, and return the first answer or the second."""

    async def twice_(exchange: Exchange) -> None:
        body = await exchange.request_body()
        replies = [await exchange.ask(body), await exchange.ask(body)]
        chosen = replies[answered - 1]
        await exchange.client.send(chosen.head + chosen.body)

    return twice_


def _error(request: Request, status: int, code: str, headers: dict[str, str]) -> bytes:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>As the test asked for</Message></Error>"
    ).encode()
    fields = {
        "content-type": "application/xml",
        "content-length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in fields.items())]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if request.method == "HEAD" else head + body
