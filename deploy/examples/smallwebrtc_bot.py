"""A bot in the browser: SmallWebRTC calls, Pipecat answers, and every call is recorded to S3.

    export RECORDER_BUCKET=s3://my-calls/production
    python smallwebrtc_bot.py      # and open http://localhost:8080/

The page at `/` is a caller of some thirty lines. Audio goes over UDP, from the browser to this
process itself: behind a router or in a cluster that takes a TURN server (`ICE_SERVERS`), and
browsers give their microphone to https pages and localhost only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bot_server import BotSettings, Calls, Full, add_routes, run_call, serve
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import FileResponse
from loguru import logger
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import IceServer, SmallWebRTCConnection
from pipecat.transports.smallwebrtc.request_handler import (
    IceCandidate,
    SmallWebRTCPatchRequest,
    SmallWebRTCRequest,
    SmallWebRTCRequestHandler,
)
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

from recorder import Recorder, Settings
from recorder.pipecat import RecorderProcessor

IN_RATE, OUT_RATE = 16_000, 24_000
PAGE = Path(__file__).with_name("smallwebrtc.html")


class WebRTCSettings(BotSettings):
    """What this bot is told by the environment.

    Attributes:
        ice_servers: URLs of STUN and TURN servers, as a JSON list; none on one machine or network.
    """

    ice_servers: tuple[str, ...] = ()


def make_app(settings: WebRTCSettings, recorder_settings: Settings | None = None) -> FastAPI:
    """Return the server.

    Args:
        settings: Of the bot.
        recorder_settings: From the environment if None.
    """
    servers = [IceServer(urls=url) for url in settings.ice_servers]
    handler = SmallWebRTCRequestHandler(ice_servers=servers or None)
    running: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One for the process. Closing it waits for uploads, up to RECORDER_DRAIN_SECONDS.
        async with Recorder(recorder_settings, require_store=False) as recorder:
            app.state.calls = Calls(settings, recorder)
            yield
            await handler.close()  # type: ignore[no-untyped-call]  # Pipecat leaves it untyped
            await asyncio.gather(*running, return_exceptions=True)

    app = FastAPI(lifespan=lifespan)
    add_routes(app)

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.post("/api/offer")
    async def offer(body: dict[str, Any] = Body()) -> dict[str, str] | None:  # noqa: B008 - FastAPI's way
        calls: Calls = app.state.calls
        if not body.get("pc_id") and not calls.ready:
            raise HTTPException(503, "no more calls are taken")

        async def begin(connection: SmallWebRTCConnection) -> None:
            task = asyncio.create_task(answer(connection, calls))
            running.add(task)
            task.add_done_callback(running.discard)

        return await handler.handle_web_request(SmallWebRTCRequest.from_dict(body), begin)

    @app.patch("/api/offer")
    async def candidates(body: dict[str, Any] = Body()) -> dict[str, str]:  # noqa: B008 - FastAPI's way
        found = [IceCandidate(**one) for one in body.get("candidates", [])]
        await handler.handle_patch_request(SmallWebRTCPatchRequest(body["pc_id"], found))
        return {"status": "ok"}

    return app


async def answer(connection: SmallWebRTCConnection, calls: Calls) -> None:
    """Talk to the user at the other end of a connection, until one of the two hangs up."""
    params = TransportParams(audio_in_enabled=True, audio_out_enabled=True)
    transport = SmallWebRTCTransport(connection, params)
    recording = RecorderProcessor(
        recorder=calls.recorder,
        auto_start_recording=True,
        metadata={"peer-connection": str(connection.pc_id)},
    )
    try:
        async with calls.one():
            await run_call(transport, recording, in_rate=IN_RATE, out_rate=OUT_RATE)
    except Full:
        await connection.disconnect()  # type: ignore[no-untyped-call]  # likewise
    except Exception:
        logger.exception("the call ended by an error")
        await connection.disconnect()  # type: ignore[no-untyped-call]  # likewise


if __name__ == "__main__":
    found = Settings()
    serve(make_app(WebRTCSettings(), found), found)
