"""A program that webhooks are posted to: it checks signatures and remembers what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from complete import SECRET
from standardwebhooks import Webhook


class Receiver:
    """Takes webhooks at `url`.

    Attributes:
        told: Bodies of those whose signature is right.
        ids: How often each message was delivered, by `webhook-id`.
        headers: Of the last post.
        answers: Statuses to answer with, in turn, before 204; with headers of their own.
        hold: While it is cleared, posts get no answer.
        held: Posts that have come while it was.
    """

    def __init__(self) -> None:
        self.url = ""
        self.told: list[dict[str, Any]] = []
        self.ids: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.held = 0
        self._waiting: list[web.Request] = []

    @property
    def hung_up(self) -> int:
        """How many of those that are held are not waited for any more: their posters are gone."""
        transports = [request.transport for request in self._waiting]
        return sum(transport is None or transport.is_closing() for transport in transports)

    async def take(self, request: web.Request) -> web.Response:
        """Answer a post."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        Webhook(SECRET).verify(body, headers)  # raises, and so answers 500, if it is wrong
        if not self.hold.is_set():
            self.held += 1
            self._waiting.append(request)
            await self.hold.wait()
        self.headers = headers
        self.ids[headers["webhook-id"]] += 1
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers)
        self.told.append(json.loads(body))
        return web.Response(status=204)


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of this machine."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}/hook?token=s3cret"
        yield receiver
    finally:
        receiver.hold.set()
        await runner.cleanup()
