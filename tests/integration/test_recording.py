"""Whole recordings, from frames to objects, on a local directory and on a real S3 server."""

from __future__ import annotations

import io
import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from recorder import Recorder, Session, Settings, State, Track, VirtualClock
from recorder.embedded import EmbeddedS3
from recorder.events import ChunkUploaded, Event, OutputCompleted, PartUploaded, RecordingEnded
from recorder.stores import make_store
from recorder.verification import verify
from uploader.checksum import crc64nvme, encode

RATE = 24000
FRAME = RATE // 50
Make = Callable[..., Settings]


@pytest.fixture(params=["local", "seaweed"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Settings for a store of the test's own."""
    where: dict[str, Any] = {"bucket": (tmp_path / "bucket").as_uri()}
    if request.param == "seaweed":
        server: EmbeddedS3 = request.getfixturevalue("seaweed")
        where = {
            "bucket": f"s3://{server.bucket}/{uuid.uuid4().hex}",
            "aws_endpoint_url_s3": server.endpoint_url,
            "aws_access_key_id": server.access_key,
            "aws_secret_access_key": server.secret_key,
            "aws_region": server.region,
        }

    def settings(**changes: Any) -> Settings:
        return Settings(
            **{**where, "spool_dir": tmp_path / "spool", "chunk_seconds": 1.0, **changes}
        )

    return settings


def noise(seconds: float, seed: int, rate: int = RATE) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return rng.integers(-20000, 20000, round(seconds * rate), dtype=np.int16)


async def play(
    call: Session,
    clock: VirtualClock,
    tracks: dict[str, tuple[float, NDArray[np.int16]]],
    seconds: float,
) -> None:
    """Speak each track from its start on, in 20 ms frames, in virtual time."""
    origin = call.zero
    for index in range(round(seconds * 50)):
        clock.advance_to(origin + (index + 1) / 50)
        for name, (start, pcm) in tracks.items():
            first = index * FRAME - round(start * RATE)
            if 0 <= first < len(pcm):
                call.write(name, pcm[first : first + FRAME].tobytes(), RATE)
        if index % 100 == 99:
            await call.flush()


async def objects(settings: Settings) -> dict[str, bytes]:
    async with make_store(settings) as store:
        return {info.key: await store.get(info.key) async for info in store.list_objects()}


def decoded(body: bytes) -> NDArray[np.int16]:
    """Decode with two independent readers, which must agree: shape (samples, channels)."""
    audio, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    assert rate == RATE
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "-", "-f", "s16le", "-"]
    raw = subprocess.run(command, input=body, capture_output=True, check=True).stdout
    np.testing.assert_array_equal(
        np.frombuffer(raw, dtype="<i2").reshape(-1, audio.shape[1]), audio
    )
    return np.asarray(audio, dtype=np.int16)


async def test_a_call_becomes_one_object_sample_for_sample(make: Make) -> None:
    settings = make(outputs="stereo,mono,tracks,turns", tags="team=voice", metadata="tenant=7")
    clock = VirtualClock(50.0)
    user, bot = noise(5, 1), noise(2, 2)
    seen: list[Event] = []
    async with (
        Recorder(settings, clock=clock) as recorder,
        recorder.start("call-1", metadata={"call": "42"}, on_event=seen.append) as call,
    ):
        call.start_turn("bot", at=call.zero + 1.5)
        await play(call, clock, {"user": (0, user), "bot": (1.5, bot)}, 5)
        call.end_turn("bot", at=call.zero + 3.5)
    result = call.result
    assert result is not None
    assert (result.state, result.samples, result.chunks) == (State.COMPLETED, 5 * RATE, 5)
    assert not list(settings.spool_dir.iterdir())

    stored = await objects(settings)
    folder = next(iter(stored)).rsplit("/", 1)[0].removesuffix("/turns")
    names = {key.removeprefix(folder + "/"): body for key, body in stored.items()}
    expected = {"audio.wav", "mono.wav", "user.wav", "bot.wav", "turns/0001-bot.wav"}
    assert set(names) == {*expected, "manifest.json", "peaks.json"}

    late = np.zeros(5 * RATE, dtype=np.int16)
    late[round(1.5 * RATE) : round(3.5 * RATE)] = bot
    mixed = np.clip(user.astype(int) + late, -32768, 32767)
    np.testing.assert_array_equal(decoded(names["audio.wav"]), np.stack([user, late], axis=1))
    np.testing.assert_array_equal(decoded(names["mono.wav"])[:, 0], mixed)
    np.testing.assert_array_equal(decoded(names["user.wav"])[:, 0], user)
    np.testing.assert_array_equal(decoded(names["bot.wav"])[:, 0], late)
    np.testing.assert_array_equal(decoded(names["turns/0001-bot.wav"])[:, 0], bot)

    for output in result.outputs:
        body = stored[output.key]
        assert (output.state, output.bytes) == (State.COMPLETED, len(body))
        assert output.checksum == encode(crc64nvme(body))
    manifest = json.loads(names["manifest.json"])
    assert manifest["state"] == "completed"
    assert manifest["metadata"] == {"tenant": "7", "call": "42"}
    assert [chunk["samples"] for chunk in manifest["chunks"]] == [RATE] * 5
    kinds = [type(event) for event in seen]
    assert kinds.count(ChunkUploaded) == 5
    assert kinds.count(OutputCompleted) == 5
    assert kinds[-1] is RecordingEnded


async def test_parts_are_uploaded_while_the_call_goes_on(make: Make) -> None:
    """130 s of stereo are 12.5 MB: two parts of 5 MiB go before the end, part 1 after it."""
    settings = make(part_bytes="5MiB", chunk_seconds=10)
    clock = VirtualClock()
    user = noise(130, 3)
    seen: list[Event] = []
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start("long", on_event=seen.append)
        await play(call, clock, {"user": (0, user)}, 130)
        await call.flush()
        before = [event.number for event in seen if isinstance(event, PartUploaded)]
        result = await call.stop()
    assert before == [2]
    after = [event.number for event in seen if isinstance(event, PartUploaded)]
    assert sorted(after) == [1, 2, 3]
    assert result.outputs[0].parts == 3
    [body] = [body for key, body in (await objects(settings)).items() if key.endswith("audio.wav")]
    np.testing.assert_array_equal(decoded(body)[:, 0], user)


async def test_chunks_are_kept_when_asked_for_and_each_plays(make: Make) -> None:
    settings = make(keep_chunks=True, chunk_seconds=0.5)
    clock = VirtualClock()
    user = noise(1.7, 4)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start("kept")
        await play(call, clock, {"user": (0, user)}, 1.7)
        result = await call.stop()
    assert result.chunks == 4
    async with make_store(settings) as store:
        infos = [info async for info in store.list_objects() if "/chunks/" in info.key]
        assert [info.key[-10:] for info in infos] == [f"{n:06d}.wav" for n in (1, 2, 3, 4)]
        pieces = []
        for number, info in enumerate(infos, 1):
            metadata = (await store.head(info.key)).metadata
            assert metadata["recorder-recording-id"] == "kept"
            assert metadata["recorder-sequence"] == str(number)
            assert metadata["recorder-first-sample"] == str((number - 1) * RATE // 2)
            assert metadata["recorder-sample-rate"] == str(RATE)
            assert metadata["recorder-channels"] == "2"
            seconds = 0.5 if number < 4 else 0.2
            assert metadata["recorder-duration-seconds"] == f"{seconds:g}"
            pieces.append(decoded(await store.get(info.key)))
    assert [len(piece) for piece in pieces] == [RATE // 2] * 3 + [RATE // 5]
    np.testing.assert_array_equal(np.concatenate(pieces)[:, 0], user)


@pytest.mark.parametrize("samples", [0, 1, 2, RATE - 1, RATE, RATE + 1])
async def test_lengths_round_a_chunks_end(make: Make, samples: int) -> None:
    settings = make(outputs="mono")
    clock = VirtualClock()
    user = noise(2, 5)[:samples]
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start()
        for first in range(0, samples, FRAME):
            frame = user[first : first + FRAME]
            clock.advance_to(call.zero + (first + len(frame)) / RATE)
            call.write("user", frame.tobytes(), RATE)
        result = await call.stop()
    assert (result.state, result.samples) == (State.COMPLETED, samples)
    assert result.chunks == -(-samples // RATE)
    [body] = [body for key, body in (await objects(settings)).items() if key.endswith("audio.wav")]
    assert len(body) == 80 + 2 * samples
    np.testing.assert_array_equal(decoded(body)[:, 0], user)


async def test_paused_audio_is_silence_and_never_leaves_the_process(make: Make) -> None:
    settings = make()
    clock = VirtualClock()
    user = noise(3, 6)
    user[user == 0] = 1
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start()
        for index in range(150):
            clock.advance_to(call.zero + (index + 1) / 50)
            if index == 50:
                call.pause()
            if index == 100:
                call.resume()
            call.write("user", user[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)
        result = await call.stop()
    assert call.ignored == 50
    assert result.samples == 3 * RATE
    [body] = [body for key, body in (await objects(settings)).items() if key.endswith("audio.wav")]
    left = decoded(body)[:, 0]
    edge = FRAME  # the marks fall between frames: the one at the edge is silenced in part
    np.testing.assert_array_equal(left[: RATE - edge], user[: RATE - edge])
    assert not left[RATE + edge : 2 * RATE - edge].any()
    np.testing.assert_array_equal(left[2 * RATE + edge :], user[2 * RATE + edge :])


async def test_what_a_bot_sent_ahead_is_silent_while_paused_and_goes_on_after(make: Make) -> None:
    settings = make()
    clock = VirtualClock()
    speech = np.full(4 * RATE, 1234, dtype=np.int16)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start()
        for first in range(0, len(speech), FRAME):  # 4 s at once, played from 0 on
            call.write("bot", speech[first : first + FRAME].tobytes(), RATE)
        for second, mark in ((1, call.pause), (2, call.resume)):
            clock.advance_to(call.zero + second)
            mark()
        clock.advance_to(call.zero + 4)
        await call.stop()
    [body] = [body for key, body in (await objects(settings)).items() if key.endswith("audio.wav")]
    right = decoded(body)[:, 1]
    assert (right[:RATE] == 1234).all()
    assert not right[RATE : 2 * RATE].any()
    assert (right[2 * RATE :] == 1234).all()


async def test_other_speakers_join_with_their_first_frame(make: Make) -> None:
    settings = make(outputs="tracks,stereo")
    clock = VirtualClock()
    voices = {"agent": (0.0, noise(4, 7)), "caller-2": (2.5, noise(1, 8))}
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start(tracks=[Track("agent")])
        await play(call, clock, voices, 4)
        result = await call.stop()
    assert [output.name for output in result.outputs] == ["stereo", "agent", "caller-2"]
    stored = {key.rsplit("/", 1)[1]: body for key, body in (await objects(settings)).items()}
    joined = decoded(stored["caller-2.wav"])[:, 0]
    assert len(joined) == 4 * RATE
    assert not joined[: round(2.5 * RATE)].any()
    spoken = joined[round(2.5 * RATE) : round(3.5 * RATE)]
    np.testing.assert_array_equal(spoken, voices["caller-2"][1])


async def test_many_sessions_at_once_share_one_recorder(make: Make) -> None:
    settings = make()
    clock = VirtualClock()
    voices = [noise(2, 20 + index) for index in range(8)]
    async with Recorder(settings, clock=clock) as recorder:
        calls = [await recorder.start(f"call-{index}") for index in range(8)]
        for index in range(100):
            clock.advance(0.02)
            for call, voice in zip(calls, voices, strict=True):
                call.write("user", voice[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)
        results = [await call.stop() for call in calls]
    assert {result.state for result in results} == {State.COMPLETED}
    stored = await objects(settings)
    for index, voice in enumerate(voices):
        [body] = [b for key, b in stored.items() if f"/call-{index}/audio.wav" in key]
        np.testing.assert_array_equal(decoded(body)[:, 0], voice)


async def test_what_is_read_while_recording_is_what_is_recorded(make: Make) -> None:
    settings = make()
    clock = VirtualClock()
    user = noise(6, 9)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start()
        call.hold("test", 0)
        await play(call, clock, {"user": (0, user)}, 6)
        planes = await call.read(RATE // 2, 6 * RATE)
        assert planes.tracks == ("user", "bot")
        np.testing.assert_array_equal(planes.samples[0], user[RATE // 2 :])
        call.end()
        assert (await call.stop()).state is State.COMPLETED
        assert list(settings.spool_dir.iterdir()), "the spool went while samples were held"
        call.release("test")
    assert not list(settings.spool_dir.iterdir())


async def test_tracks_that_join_late_are_silent_before_in_whatever_parts_they_are_sent(
    tmp_path: Path,
) -> None:
    clock, rate = VirtualClock(), 192_000
    settings = Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        chunk_seconds=5,
        sample_rate=rate,
        part_bytes=5 * 1024**2,
        outputs=("tracks", "stereo"),
    )
    voice = np.random.default_rng(2).integers(-3000, 3000, (3, 20 * rate), dtype=np.int16)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start("call", tracks=["a", "b"])
        for second in range(20):
            now = slice(second * rate, (second + 1) * rate)
            if second >= 16:  # what a bot says begins when it is given
                call.write("bot", voice[2, now].tobytes(), rate)
            clock.advance(1)
            call.write("a", voice[0, now].tobytes(), rate)
            call.write("b", voice[1, now].tobytes(), rate)
            await call.flush()
        result = await call.stop()
    assert result.state is State.COMPLETED
    voice[2, : 16 * rate] = 0
    [folder] = tmp_path.glob("bucket/dt=*/call")
    bot = np.frombuffer((folder / "bot.wav").read_bytes()[80:], dtype="<i2")
    np.testing.assert_array_equal(bot, voice[2])
    stereo = np.frombuffer((folder / "audio.wav").read_bytes()[80:], dtype="<i2").reshape(-1, 2)
    np.testing.assert_array_equal(stereo[:, 0], voice[0])
    np.testing.assert_array_equal(stereo[:, 1], voice[1] + voice[2])


@pytest.mark.parametrize("joins", [True, False])
async def test_a_recording_may_begin_without_any_track(tmp_path: Path, joins: bool) -> None:
    clock = VirtualClock()
    settings = Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        chunk_seconds=1,
        outputs=("stereo", "tracks"),
        keep_chunks=True,
    )
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start("call", tracks=[])
        clock.advance(5)
        await call.flush()
        if joins:
            clock.advance(1)
            call.write("late", b"\x01\x02" * 24000, 24000)
        result = await call.stop()
    assert result.state is State.COMPLETED
    assert [output.name for output in result.outputs] == ["stereo"] + ["late"] * joins
    [path] = tmp_path.glob("bucket/dt=*/call/audio.wav")
    left = np.frombuffer(path.read_bytes()[80:], dtype="<i2").reshape(-1, 2)[:, 0]
    assert len(left) == (6 if joins else 5) * 24000
    assert not left[: 5 * 24000].any()
    assert (left[5 * 24000 :] == 0x0201).all()
    async with make_store(settings) as store:
        report = await verify(store, "call")
    assert report.ok, report.findings
