"""Several participants in one call, through a real pipeline: a track for each, and all together."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from headless import Speaker, Synthesizer, noise, params, run_pipeline
from numpy.typing import NDArray
from pipecat.frames.frames import EndFrame, StartFrame, TTSSpeakFrame, UserAudioRawFrame
from pipecat.pipeline.worker import PipelineWorker
from pipecat.transports.base_input import BaseInputTransport

from recorder import Settings, State
from recorder.pipecat import RecorderProcessor
from recorder.stores import make_store

pytestmark = pytest.mark.realtime

RATE = 24_000
FRAME = RATE // 50
Samples = NDArray[np.int16]


class Said(NamedTuple):
    """What a participant says, and when, in seconds."""

    user_id: str
    begin: float
    pcm: bytes


class Crowd(BaseInputTransport):
    """Sends what participants say, each by itself, as Daily and LiveKit do."""

    def __init__(self, said: Sequence[Said]) -> None:
        super().__init__(params())
        self.said = said
        self.done = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._talking = self.create_task(self._talk())

    async def _talk(self) -> None:
        began = time.monotonic()
        last = max(said.begin + len(said.pcm) / 2 / RATE for said in self.said)
        for number in range(round(last * 50)):
            await asyncio.sleep(max(0.0, began + (number + 1) / 50 - time.monotonic()))
            for user_id, begin, pcm in self.said:
                first = (number - round(begin * 50)) * FRAME * 2
                audio = pcm[first : first + FRAME * 2] if first >= 0 else b""
                if audio:
                    await self.push_audio_frame(UserAudioRawFrame(audio, RATE, 1, user_id=user_id))
        self.done.set()

    async def cleanup(self) -> None:
        await super().cleanup()
        if self._talking is not None:
            await self.cancel_task(self._talking)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        chunk_seconds=0.5,
        outputs=("stereo", "mono", "tracks"),
    )


async def stored(
    settings: Settings, recorder: RecorderProcessor
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Return the outputs by name, and the manifest."""
    assert recorder.result is not None
    assert recorder.result.state is State.COMPLETED
    async with make_store(settings) as store:
        bodies = {
            one.key.rpartition("/")[2]: await store.get(one.key) for one in recorder.result.outputs
        }
        folder = recorder.result.outputs[0].key.rpartition("/")[0]
        manifest = json.loads(await store.get(f"{folder}/manifest.json"))
    outputs = {}
    for name, body in bodies.items():
        outputs[name], rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
        assert rate == RATE
    return outputs, manifest


def sounding(channel: Samples) -> bytes:
    """Return what is not silence; the noise of the tests has no sample of 0."""
    return bytes(channel[channel != 0].tobytes())


def begin(channel: Samples) -> int:
    return int(np.flatnonzero(channel)[0])


async def test_everybody_has_a_track_and_is_in_the_mix(settings: Settings) -> None:
    pcm = {name: noise(0.8, RATE, seed=seed) for seed, name in enumerate(("ann", "again", "bob"))}
    crowd = Crowd(
        [
            Said("id-ann", 0.2, pcm["ann"]),
            Said("id-bob\n", 0.6, pcm["bob"]),  # both at once for 0.4 s
            Said("id-ann", 1.8, pcm["again"]),  # after she had left
        ]
    )
    speaker = Speaker()
    recorder = RecorderProcessor(
        settings=settings, auto_start_recording=True, track_names={"id-ann": "ann"}
    )

    async def script(worker: PipelineWorker) -> None:
        await worker.queue_frame(TTSSpeakFrame("0.4"))
        await crowd.done.wait()
        await worker.queue_frame(EndFrame())

    await run_pipeline([crowd, Synthesizer(), speaker, recorder], script)
    outputs, manifest = await stored(settings, recorder)
    assert set(outputs) == {"audio.wav", "mono.wav", "ann.wav", "user.wav", "bot.wav"}
    tracks = {name[:-4]: outputs[name][:, 0] for name in ("ann.wav", "user.wav", "bot.wav")}
    assert len({len(track) for track in tracks.values()}) == 1
    assert sounding(tracks["ann"]) == pcm["ann"] + pcm["again"]
    assert sounding(tracks["user"]) == pcm["bob"]
    assert sounding(tracks["bot"]) == bytes(speaker.played)
    breaks = np.diff(np.flatnonzero(tracks["ann"]))
    assert abs(int(breaks.max()) - 0.8 * RATE) <= FRAME
    assert abs(begin(tracks["user"]) - begin(tracks["ann"]) - 0.4 * RATE) <= FRAME
    everybody = sum(track.astype(np.int32) for track in tracks.values())
    users = tracks["ann"].astype(np.int32) + tracks["user"]
    assert np.array_equal(outputs["mono.wav"][:, 0], everybody)
    assert np.array_equal(outputs["audio.wav"][:, 0], users)
    assert np.array_equal(outputs["audio.wav"][:, 1], tracks["bot"])
    told = {track["name"]: track for track in manifest["tracks"]}
    assert {name: track["participant"] for name, track in told.items()} == {
        "ann": "id-ann",
        "user": "id-bob\ufffd",
        "bot": None,
    }
    for name, track in told.items():
        assert track["joined"] == begin(tracks[name])


async def test_more_participants_than_there_are_tracks_for(settings: Settings) -> None:
    said = [Said(f"id-{number}", 0.2, noise(0.2, RATE, seed=number)) for number in range(16)]
    late = noise(0.2, RATE, seed=16)
    crowd = Crowd([*said, Said("id-16", 0.6, late)])
    recorder = RecorderProcessor(settings=settings, auto_start_recording=True)

    async def script(worker: PipelineWorker) -> None:
        await crowd.done.wait()
        await worker.queue_frame(EndFrame())

    await run_pipeline([crowd, Speaker(), recorder], script, in_rate=RATE)
    outputs, manifest = await stored(settings, recorder)
    by_participant = {track["participant"]: track["name"] for track in manifest["tracks"]}
    for user_id, _, pcm in said:
        assert sounding(outputs[f"{by_participant[user_id]}.wav"][:, 0]) == pcm
    assert sounding(outputs["others.wav"][:, 0]) == late
    assert "id-16" not in by_participant
    latest = recorder._latest
    assert latest is not None
    assert len(latest._ears) == 16  # there is no end to ids that strangers can make up
    assert recorder.errors == 0
