"""A telephone bot: Twilio calls, Pipecat answers, and every call is recorded to S3.

    export RECORDER_BUCKET=s3://my-calls/production
    export PUBLIC_URL=https://bot.example.com TWILIO_AUTH_TOKEN=... TWILIO_ACCOUNT_SID=AC...
    python twilio_bot.py

Set the webhook of a Twilio number ("A call comes in") to `POST https://bot.example.com/`. Twilio is
answered with TwiML that connects the call to the websocket `/ws` of this server, and speaks its
media-stream protocol there (Twilio docs, "Media Streams - WebSocket Messages").
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl
from xml.sax.saxutils import quoteattr

from bot_server import BotSettings, Calls, Full, add_routes, run_call, serve
from fastapi import FastAPI, HTTPException, Request, Response, WebSocket
from loguru import logger
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pydantic import SecretStr

from recorder import Recorder, Settings
from recorder.pipecat import RecorderProcessor

RATE = 8000
"""Of a telephone, Hz: recorded at another rate it would be longer, not better."""

_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013  # RFC 6455, section 7.4, and IANA's registry


class TwilioSettings(BotSettings):
    """What this bot is told by the environment.

    Attributes:
        public_url: Where Twilio reaches this server: `https://` and a host, without a path.
        twilio_account_sid: Of the account; with the token, the bot can hang up.
        twilio_auth_token: Proves that requests come from Twilio. Without it anybody can call.
    """

    public_url: str
    twilio_account_sid: str | None = None
    twilio_auth_token: SecretStr | None = None

    @property
    def token(self) -> str:
        """The token; empty if there is none."""
        return self.twilio_auth_token.get_secret_value() if self.twilio_auth_token else ""

    @property
    def websocket_url(self) -> str:
        """Where Twilio connects calls to."""
        return "ws" + self.public_url.rstrip("/").removeprefix("http") + "/ws"


def make_app(settings: TwilioSettings, recorder_settings: Settings | None = None) -> FastAPI:
    """Return the server.

    Args:
        settings: Of the bot.
        recorder_settings: From the environment if None.
    """
    if not settings.token:
        logger.warning("TWILIO_AUTH_TOKEN is not set: anybody may call, and the bot cannot hang up")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One for the process. Closing it waits for uploads, up to RECORDER_DRAIN_SECONDS.
        async with Recorder(recorder_settings, require_store=False) as recorder:
            app.state.calls = Calls(settings, recorder)
            yield

    app = FastAPI(lifespan=lifespan)
    add_routes(app)

    @app.post("/")
    async def incoming(request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        url = settings.public_url.rstrip("/") + "/"
        if not signed_by_twilio(settings.token, url, form, request.headers):
            raise HTTPException(403, "not signed by Twilio")
        if not app.state.calls.ready:
            return Response("<Response><Reject reason='busy'/></Response>", media_type="text/xml")
        stream = f"<Stream url={quoteattr(settings.websocket_url)}/>"
        twiml = f"<Response><Connect>{stream}</Connect></Response>"
        return Response(twiml, media_type="text/xml")

    @app.websocket("/ws")
    async def media(websocket: WebSocket) -> None:
        if not signed_by_twilio(settings.token, settings.websocket_url, {}, websocket.headers):
            await websocket.close(_POLICY_VIOLATION)
            return
        calls: Calls = app.state.calls
        try:
            async with calls.one():
                await websocket.accept()
                await answer(websocket, settings, calls.recorder)
        except Full:
            await websocket.close(_TRY_AGAIN_LATER)

    return app


async def answer(websocket: WebSocket, settings: TwilioSettings, recorder: Recorder) -> None:
    """Talk to the caller at the other end of a websocket, until one of the two hangs up."""
    provider, call = await parse_telephony_websocket(websocket)
    if provider != "twilio":
        logger.warning("not a media stream of Twilio's: {}", provider)
        await websocket.close(_POLICY_VIOLATION)
        return
    stream_sid, call_sid = str(call["stream_id"]), str(call["call_id"])
    can_hang_up = bool(settings.token and settings.twilio_account_sid)
    serializer = TwilioFrameSerializer(
        stream_sid=stream_sid,
        call_sid=call_sid,
        account_sid=settings.twilio_account_sid,
        auth_token=settings.token or None,
        params=TwilioFrameSerializer.InputParams(auto_hang_up=can_hang_up),
    )
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
        ),
    )
    recording = RecorderProcessor(
        recorder=recorder,
        sample_rate=RATE,
        auto_start_recording=True,
        metadata={"twilio-call-sid": call_sid},
    )
    await run_call(transport, recording, in_rate=RATE, out_rate=RATE)


def signed_by_twilio(
    token: str, url: str, form: Mapping[str, str], headers: Mapping[str, str]
) -> bool:
    """Return whether a request is signed by Twilio; without a token everything is taken.

    See Twilio docs, "Security", "Validating Signatures from Twilio".

    Args:
        token: The account's auth token.
        url: What Twilio was told to call, to the letter.
        form: The request's form.
        headers: The request's.
    """
    if not token:
        return True
    signed = url + "".join(name + form[name] for name in sorted(form))
    digest = hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()
    wanted = base64.b64encode(digest).decode()
    return hmac.compare_digest(wanted, headers.get("x-twilio-signature", ""))


if __name__ == "__main__":
    found = Settings()
    serve(make_app(TwilioSettings(), found), found)  # type: ignore[call-arg]  # from the environment
