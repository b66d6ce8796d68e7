"""The SmallWebRTC example, called by a WebRTC peer (aiortc) over loopback."""

from __future__ import annotations

import asyncio
import fractions
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aioice import ice
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame
from calls import manifest, samples, settings_in
from example_servers import served, smallwebrtc_bot, until_idle
from numpy.typing import NDArray

RATE = 48_000
FRAME = RATE // 50
SPEECH_SECONDS = 1.0
TONE = 440.0
PEAK, LOUD = 8000, 1000
LOUD_SHARE = 1 - 2 / np.pi * np.arcsin(LOUD / PEAK)
"""Of a sine's samples."""


class Microphone(MediaStreamTrack):
    """A tone of a second, then silence; a frame every 20 ms."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        at = np.arange(int(SPEECH_SECONDS * RATE)) / RATE
        self._speech = (PEAK * np.sin(2 * np.pi * TONE * at)).astype(np.int16)
        self._sent = 0
        self._began = 0.0

    async def recv(self) -> AudioFrame:
        self._began = self._began or time.monotonic()
        await asyncio.sleep(max(0.0, self._began + self._sent / RATE - time.monotonic()))
        said = self._speech[self._sent : self._sent + FRAME]
        pcm = np.pad(said, (0, FRAME - len(said))).reshape(1, -1)
        frame = AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = (
            RATE,
            self._sent,
            fractions.Fraction(1, RATE),
        )
        self._sent += FRAME
        return frame


async def listen(track: Any, heard: list[NDArray[np.int16]]) -> None:
    try:
        while True:
            frame = await track.recv()
            heard.append(frame.to_ndarray().reshape(-1)[:: len(frame.layout.channels)])
    except MediaStreamError:
        return


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both peers offer the loopback interface, which ICE leaves out, and no other."""
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


def level_of_tone(audio: NDArray[np.int16], rate: int) -> float:
    """Return how much of some audio's energy is the tone."""
    spectrum = np.abs(np.fft.rfft(audio.astype(np.float64) * np.hanning(len(audio)))) ** 2
    at = round(TONE * len(audio) / rate)
    return float(spectrum[at - 3 : at + 4].sum() / spectrum.sum())


def loud_part(audio: NDArray[np.int16]) -> tuple[int, int]:
    (places,) = np.nonzero(np.abs(audio.astype(int)) > LOUD)
    return int(places[0]), int(places[-1]) + 1


@pytest.mark.realtime
async def test_a_call_is_answered_and_recorded(tmp_path: Path) -> None:
    app = smallwebrtc_bot.make_app(
        smallwebrtc_bot.WebRTCSettings(drain_token_file=tmp_path / "token"),
        settings_in(tmp_path, chunk_seconds=0.5, sample_rate=24_000),
    )
    heard: list[NDArray[np.int16]] = []
    listening: list[asyncio.Task[None]] = []
    async with served(app) as address, aiohttp.ClientSession(f"http://{address}") as client:
        peer = RTCPeerConnection()

        @peer.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "audio":
                listening.append(asyncio.ensure_future(listen(track, heard)))

        peer.addTrack(Microphone())
        peer.createDataChannel("pipecat")
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"sdp": peer.localDescription.sdp, "type": peer.localDescription.type}
        answer = await (await client.post("/api/offer", json=offer)).json()
        await peer.setRemoteDescription(
            RTCSessionDescription(sdp=answer["sdp"], type=answer["type"])
        )
        async with asyncio.timeout(20):
            while not said_and_done(heard):  # noqa: ASYNC110 - told by nobody
                await asyncio.sleep(0.05)
        await peer.close()
        await until_idle(app)
        await asyncio.gather(*listening)
    told = manifest(tmp_path)
    assert told["state"] == "completed"
    assert told["metadata"] == {"peer-connection": answer["pc_id"]}
    assert told["gaps"] == []
    user, bot = samples(tmp_path), samples(tmp_path, channel=1)
    user_begins, user_ends = loud_part(user)
    bot_begins, bot_ends = loud_part(bot)
    # Opus changes samples, but not the tone; on a machine that is busy, aiortc loses some of it.
    for begin, end, audio in ((user_begins, user_ends, user), (bot_begins, bot_ends, bot)):
        loud = np.count_nonzero(np.abs(audio.astype(int)) > LOUD) / 24_000
        assert 0.75 < loud / (LOUD_SHARE * SPEECH_SECONDS) < 1.05
        assert 0.75 < (end - begin) / 24_000 / SPEECH_SECONDS < 1.5
        assert level_of_tone(audio[begin:end], 24_000) > 0.8
    assert bot_begins > user_ends


def said_and_done(heard: list[NDArray[np.int16]]) -> bool:
    """Return whether somebody has spoken, and then been silent for 0.3 s."""
    loud = [bool(np.abs(one.astype(int)).max() > LOUD) for one in heard]
    return sum(loud) > 25 * SPEECH_SECONDS and not any(loud[-15:])


async def test_more_calls_than_may_be_are_refused(tmp_path: Path) -> None:
    app = smallwebrtc_bot.make_app(
        smallwebrtc_bot.WebRTCSettings(max_calls=1, drain_token_file=tmp_path / "token"),
        settings_in(tmp_path),
    )
    async with served(app) as address, aiohttp.ClientSession(f"http://{address}") as client:
        assert "Talk to the bot" in await (await client.get("/")).text()
        async with app.state.calls.one():
            refused = await client.post("/api/offer", json={"sdp": "", "type": "offer"})
            assert refused.status == 503
