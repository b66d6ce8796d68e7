"""The example bots, served on loopback as they are in a container."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

with warnings.catch_warnings():
    # Pipecat's import of a module that Python 3.13 has dropped, and a package of that name has not.
    warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
    import smallwebrtc_bot
    import twilio_bot

__all__ = ["served", "smallwebrtc_bot", "twilio_bot", "until_idle"]


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app inside the block; yield `127.0.0.1:port`."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server._serve())  # without its handlers of signals
    while not server.started:
        if running.done():
            await running
        await asyncio.sleep(0.01)
    try:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        await running


async def until_idle(app: FastAPI) -> None:
    """Wait until no call is live."""
    async with asyncio.timeout(20):
        while app.state.calls.live:  # noqa: ASYNC110 - told by nobody
            await asyncio.sleep(0.02)
