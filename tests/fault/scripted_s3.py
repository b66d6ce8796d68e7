"""An S3 server that answers what it is told to, and notes what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from uploader.errors import StoreError
from uploader.s3 import S3Store
from uploader.store import Part

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI-K7MDENG"  # noqa: S105 - of nobody
BODY = b"audio that nobody else may hear"
ETAG = "5d41402abc4b2a76b9719d911017c592"
PART = Part(1, 10, ETAG)
PARTS = b"<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What the server does: answer, or not."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    reset: bool = False
    cut_at: int | None = None


class ScriptedServer:
    """Answers each request with the next of its answers; notes the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.url = ""
        self.hanging = asyncio.Event()

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer_one(reader, writer):
                    pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(method, path, headers, body))
        answer = await self.decide(self.requests[-1])
        if answer.hang:
            self.hanging.set()
            await reader.read()  # until the client has gone
            return False
        if answer.reset:
            writer.transport.abort()
            return False
        sent = b"" if method == "HEAD" else answer.body
        fields = {"content-length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} Whatever", *(f"{k}: {v}" for k, v in fields.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + sent[: answer.cut_at])
        await writer.drain()
        return answer.cut_at is None

    async def decide(self, request: Request) -> Answer:
        """Return the answer to a request; servers that look at it have another."""
        return self.answers.pop(0)

    async def scripted(
        self, operation: Callable[[], Awaitable[Any]], *answers: Answer
    ) -> StoreError | None:
        """Return what the operation raises if this is what it is answered.

        All answers must have been asked for, and no more than these.
        """
        self.answers = list(answers)
        before = len(self.requests)
        error: StoreError | None = None
        try:
            await operation()
        except StoreError as raised:
            error = raised
        assert len(self.requests) - before == len(answers)
        return error


def open_store(server: ScriptedServer, **options: Any) -> S3Store:
    return S3Store(
        "calls",
        "prefix",
        **{
            "region": "eu-central-1",
            "endpoint_url": server.url,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            **options,
        },
    )


def refusal(status: int, code: str, extra: str = "", **headers: str) -> Answer:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>In other words</Message>{extra}"
        "<RequestId>ABC</RequestId></Error>"
    ).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"content-type": "application/xml", **fields})


def stored(body: bytes = BODY, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, body, {"ETag": f'"{ETAG}"', **fields})
