"""What both bots share: how many calls there are, when to take no more, and one call's pipeline."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from drain import TOKEN_FILE, TOKEN_HEADER
from echo_bot import bot_processors
from fastapi import FastAPI, HTTPException, Request, Response
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.base_transport import BaseTransport
from pipecat.workers.runner import WorkerRunner
from pydantic import Field
from pydantic_settings import BaseSettings

from recorder import Recorder, Settings
from recorder.pipecat import RecorderProcessor

CLOSING_SECONDS = 5
"""What a pipeline takes to end beside its recording."""


class BotSettings(BaseSettings):
    """What a bot is told by the environment, beside the recorder's own settings.

    Attributes:
        max_calls: Calls at a time; more are refused.
        drain_calls_seconds: How long calls may go on once the bot is asked to end.
        drain_token_file: Where what proves such a request is kept, for `drain.py` beside the bot.
    """

    max_calls: int = Field(default=20, ge=1)
    drain_calls_seconds: float = Field(default=300.0, ge=0)
    drain_token_file: Path = TOKEN_FILE


class Full(Exception):
    """No more calls are taken."""


class Calls:
    """The calls of this process.

    Args:
        settings: Of the bot.
        recorder: Records all of them.
    """

    def __init__(self, settings: BotSettings, recorder: Recorder) -> None:
        self.settings = settings
        self.recorder = recorder
        self.live = 0
        self.draining = False
        self.drain_token = secrets.token_urlsafe()
        write_privately(settings.drain_token_file, self.drain_token)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether another call is taken."""
        return not self.draining and self.live < self.settings.max_calls

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Count a call, inside the block.

        Raises:
            Full: There are as many as may be, or the bot is to end.
        """
        if not self.ready:
            raise Full
        self.live += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.live -= 1
            if not self.live:
                self._idle.set()

    async def drain(self) -> None:
        """Take no more calls, and wait for those there are; not longer than the settings say."""
        self.draining = True
        try:
            async with asyncio.timeout(self.settings.drain_calls_seconds):
                await self._idle.wait()
        except TimeoutError:
            pass  # who is still talking then is cut off by SIGTERM; the recording is not


async def run_call(
    transport: BaseTransport, recording: RecorderProcessor, *, in_rate: int, out_rate: int
) -> None:
    """Run one call to its end: until the other side is gone, or the bot hangs up.

    Args:
        transport: The connection to the user.
        recording: The call's recorder.
        in_rate: Sample rate of the user's audio, Hz.
        out_rate: Of the bot's.
    """
    # Behind the output: there the bot's audio is what is heard, when it is heard.
    pipeline = Pipeline([transport.input(), *bot_processors(), transport.output(), recording])
    params = PipelineParams(audio_in_sample_rate=in_rate, audio_out_sample_rate=out_rate)
    worker = PipelineWorker(pipeline, params=params, enable_rtvi=False)

    async def hung_up(_: BaseTransport, __: object) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_disconnected", hung_up)
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    await runner.run()


def add_routes(app: FastAPI) -> None:
    """Add what the platform asks: `/healthz`, `/readyz` and, with the token, `/drain`."""

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok")

    @app.get("/readyz")
    async def readyz() -> Response:
        calls: Calls = app.state.calls
        return Response(f"{calls.live} calls", status_code=200 if calls.ready else 503)

    @app.get("/drain")
    async def drain(request: Request) -> Response:
        calls: Calls = app.state.calls
        # Where requests come from does not tell: behind a proxy, all are from this machine.
        if not secrets.compare_digest(request.headers.get(TOKEN_HEADER, ""), calls.drain_token):
            raise HTTPException(403, "for drain.py only")
        await calls.drain()
        return Response(f"{calls.live} calls")


def write_privately(path: Path, text: str) -> None:
    """Write a file that nobody else can read, whatever was there."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; calls that are live then are cut off, and recorded whole."""
    uvicorn.run(
        app,
        host="0.0.0.0",  # noqa: S104 - a server in a container
        port=int(os.environ.get("PORT", "8080")),
        # The calls' recorders wait for their uploads, and so does closing the recorder behind it.
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + CLOSING_SECONDS,
    )
