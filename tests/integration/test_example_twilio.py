"""The Twilio example, called over a real websocket by what speaks Twilio's side of it.

Messages are as in Twilio docs, "Media Streams - WebSocket Messages".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from calls import manifest, samples, settings_in
from drain import drain
from example_servers import served, twilio_bot, until_idle
from numpy.typing import NDArray
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from recorder.encodings import decoded

RATE, make_app, signed_by_twilio = twilio_bot.RATE, twilio_bot.make_app, twilio_bot.signed_by_twilio
Samples = NDArray[np.int16]
FRAME = RATE // 50
SPEECH_SECONDS = 1.0
SILENCE = b"\xff" * FRAME  # mu-law
CALL = "CA00000000000000000000000000000001"


@dataclass
class Phone:
    """A caller: speaks once, then listens.

    Attributes:
        speech: What is said, mu-law.
        heard: What came back, mu-law.
        events: Kinds of other messages that came.
    """

    speech: bytes
    heard: bytearray = field(default_factory=bytearray)
    events: list[str] = field(default_factory=list)

    async def call(self, socket: ClientConnection, seconds: float) -> None:
        """Call for so long, in real time, and hang up."""
        start = {
            "accountSid": "AC1",
            "callSid": CALL,
            "streamSid": "MZ1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1},
            "customParameters": {},
        }
        await self._send(socket, "connected", protocol="Call", version="1.0.0")
        await self._send(socket, "start", sequenceNumber="1", start=start, streamSid="MZ1")
        listening = asyncio.ensure_future(self._listen(socket))
        loop = asyncio.get_running_loop()
        began = loop.time()
        for index in range(round(seconds * 50)):
            await asyncio.sleep(max(0.0, began + (index + 1) / 50 - loop.time()))
            said = self.speech[index * FRAME : (index + 1) * FRAME] or SILENCE
            media = {
                "track": "inbound",
                "chunk": str(index + 1),
                "timestamp": str(index * 20),
                "payload": base64.b64encode(said).decode(),
            }
            number = str(index + 2)
            await self._send(socket, "media", sequenceNumber=number, media=media, streamSid="MZ1")
        await self._send(socket, "stop", streamSid="MZ1", stop={"callSid": CALL})
        await socket.close()
        await listening

    async def _send(self, socket: ClientConnection, event: str, **fields: Any) -> None:
        await socket.send(json.dumps({"event": event, **fields}))

    async def _listen(self, socket: ClientConnection) -> None:
        async for text in socket:
            message = json.loads(text)
            if message["event"] == "media":
                assert message["streamSid"] == "MZ1"
                self.heard += base64.b64decode(message["media"]["payload"])
            else:
                self.events.append(message["event"])


def speech() -> bytes:
    """A second of mu-law of which every stretch is unlike every other, and loud."""
    codes = np.random.default_rng(5).choice([*range(0x00, 0x30), *range(0x80, 0xB0)], RATE)
    return codes.astype(np.uint8).tobytes()


def settings(folder: Path, **changes: Any) -> twilio_bot.TwilioSettings:
    values: dict[str, Any] = {
        "public_url": "https://bot.example.com",
        "drain_token_file": folder / "token",
        **changes,
    }
    return twilio_bot.TwilioSettings(**values)


def sound(track: Samples) -> Samples:
    """Return what is not silence: a machine that is busy may tear speech, but changes nothing."""
    return track[track != 0]


@pytest.mark.realtime
async def test_a_call_is_answered_and_recorded(tmp_path: Path) -> None:
    said = speech()
    phone = Phone(said)
    app = make_app(settings(tmp_path), settings_in(tmp_path, chunk_seconds=0.5))
    async with served(app) as address:
        async with connect(f"ws://{address}/ws", proxy=None) as socket:
            await phone.call(socket, 3.4)
        await until_idle(app)
    told = manifest(tmp_path)
    assert told["state"] == "completed"
    assert told["metadata"] == {"twilio-call-sid": CALL}
    assert told["sample_rate"] == RATE
    assert told["gaps"] == []
    user, bot = samples(tmp_path), samples(tmp_path, channel=1)
    spoken = np.frombuffer(decoded(said, "mulaw"), np.int16)
    assert np.array_equal(sound(user), sound(spoken))
    # The echo, as the caller heard it, begins when a pause was long enough.
    heard = np.frombuffer(decoded(bytes(phone.heard), "mulaw"), np.int16)
    assert np.array_equal(sound(heard), sound(spoken))
    assert np.array_equal(sound(bot), sound(heard))
    asked, answered = np.nonzero(user)[0][0], np.nonzero(bot)[0][0]
    assert answered > asked + RATE * SPEECH_SECONDS


async def test_the_webhook_connects_the_call(tmp_path: Path) -> None:
    app = make_app(settings(tmp_path, max_calls=1), settings_in(tmp_path))
    async with served(app) as address, aiohttp.ClientSession(f"http://{address}") as client:
        answer = await client.post("/", data={"CallSid": CALL})
        assert answer.headers["content-type"].startswith("text/xml")
        assert '<Stream url="wss://bot.example.com/ws"/>' in await answer.text()
        async with app.state.calls.one():  # as many as may be
            assert "<Reject" in await (await client.post("/")).text()
            assert (await client.get("/readyz")).status == 503
            with pytest.raises(InvalidStatus):
                await connect(f"ws://{address}/ws", proxy=None)
        assert (await client.get("/readyz")).status == 200
        assert await (await client.get("/healthz")).text() == "ok"


async def test_draining_waits_for_calls_and_takes_no_more(tmp_path: Path) -> None:
    app = make_app(settings(tmp_path), settings_in(tmp_path))
    async with served(app) as address, aiohttp.ClientSession(f"http://{address}") as client:
        port = int(address.rpartition(":")[2])
        async with app.state.calls.one():
            assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
            for headers in ({}, {"X-Drain-Token": "guessed"}):
                assert (await client.get("/drain", headers=headers)).status == 403
            assert app.state.calls.ready
            token = (tmp_path / "token").read_text()
            draining = asyncio.ensure_future(asyncio.to_thread(drain, port, token))
            async with asyncio.timeout(20):
                while app.state.calls.ready:  # noqa: ASYNC110 - told by nobody
                    await asyncio.sleep(0.01)
            assert (await client.get("/readyz")).status == 503
            assert (await client.get("/healthz")).status == 200
            assert not draining.done()
        assert await draining == "0 calls"


async def test_draining_ends_when_its_time_is_up(tmp_path: Path) -> None:
    app = make_app(settings(tmp_path, drain_calls_seconds=0), settings_in(tmp_path))
    async with served(app) as address, app.state.calls.one():
        port = int(address.rpartition(":")[2])
        assert await asyncio.to_thread(drain, port, (tmp_path / "token").read_text()) == "1 calls"


def test_a_signature_is_checked() -> None:
    token, url = "12345", "https://example.com/myapp"
    form = {"To": "+18005551212", "CallSid": "CA1234567890ABCDE", "Digits": "1234"}
    signed = f"{url}CallSidCA1234567890ABCDEDigits1234To+18005551212".encode()
    good = base64.b64encode(hmac.new(token.encode(), signed, hashlib.sha1).digest()).decode()
    assert signed_by_twilio(token, url, form, {"x-twilio-signature": good})
    assert not signed_by_twilio(token, url, {**form, "Digits": "1"}, {"x-twilio-signature": good})
    assert not signed_by_twilio(token, f"{url}/", form, {"x-twilio-signature": good})
    assert not signed_by_twilio(token, url, form, {})
    assert signed_by_twilio("", url, form, {})


async def test_only_twilio_is_answered(tmp_path: Path) -> None:
    app = make_app(settings(tmp_path, twilio_auth_token=SecretStr("12345")), settings_in(tmp_path))
    async with served(app) as address, aiohttp.ClientSession(f"http://{address}") as client:
        refused = await client.post("/", data={"CallSid": CALL})
        assert refused.status == 403
        with pytest.raises(InvalidStatus):
            await connect(f"ws://{address}/ws", proxy=None)
        digest = hmac.new(b"12345", b"wss://bot.example.com/ws", hashlib.sha1).digest()
        headers = {"X-Twilio-Signature": base64.b64encode(digest).decode()}
        async with connect(f"ws://{address}/ws", proxy=None, additional_headers=headers):
            assert app.state.calls.live == 1
        await until_idle(app)


async def test_another_protocol_is_refused(tmp_path: Path) -> None:
    app = make_app(settings(tmp_path), settings_in(tmp_path))
    async with served(app) as address, connect(f"ws://{address}/ws", proxy=None) as socket:
        for _ in range(2):
            await socket.send(json.dumps({"event": "hello"}))
        await socket.wait_closed()
        assert socket.close_code == 1008
