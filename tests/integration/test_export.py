"""Exports, decoded: every sample of the lossless ones, the length of the others; on each store."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from calls import RATE, settings_in
from stored import (
    BOT,
    LENGTH,
    MONO,
    STEREO,
    USER,
    Make,
    decoded,
    forget,
    local,
    maker,
    manifest_of,
    record,
)

from recorder import Recorder, Track, VirtualClock
from recorder.export import StoreTarget, export
from recorder.export_formats import FORMAT_NAMES, FORMATS
from recorder.verification import verify
from uploader.store import Store

LOSSY = ("mp3", "m4a", "opus")
LOSSLESS = ("flac", "wav")
TRACKS = np.stack([BOT, USER], axis=1)


@pytest.fixture(params=["local", "moto", "seaweed"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A function that returns the same store anew, on each implementation in turn."""
    return maker(request, tmp_path)


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Callable[[Store], Any]]:
    """A function that opens a store, closed after the test."""
    async with AsyncExitStack() as stack:
        yield stack.enter_async_context


async def test_an_export_beside_the_recording_is_listed_and_proved(
    make: Make, opened: Any, tmp_path: Path
) -> None:
    await record(tmp_path, store=make())
    store: Store = await opened(make())
    done = {}
    for name in FORMAT_NAMES:
        done[name] = await export(store, "call", format=name)
        assert done[name].source == "output"
    for name, one in done.items():
        body, info = await store.read(one.key)
        assert one.key.endswith(f"/call/exports/stereo.{name}")
        assert (len(body), one.duration_seconds) == (one.bytes, LENGTH / RATE)
        assert info.content_type == FORMATS[name].media_type
        assert info.metadata["recorder-recording-id"] == "call"
        heard = await decoded(body, 2)
        if name in LOSSLESS:
            np.testing.assert_array_equal(heard, STEREO[:LENGTH])
    report = await verify(store, "call")
    assert report.findings == ()
    assert sum(one.kind == "export" for one in report.proofs) == len(FORMAT_NAMES)
    assert [upload async for upload in store.list_uploads("")] == []


@pytest.mark.parametrize(
    ("begin", "end"), [(0, LENGTH), (1, 17), (12_345, 12_346 + RATE), (LENGTH - 17, LENGTH)]
)
@pytest.mark.parametrize("name", LOSSLESS)
async def test_a_range_is_exact_to_the_sample(
    tmp_path: Path, name: Any, begin: int, end: int
) -> None:
    await record(tmp_path)
    path = tmp_path / f"out.{name}"
    async with local(tmp_path) as store:
        done = await export(store, "call", format=name, start=begin, end=end, output=path)
    assert (done.start, done.samples) == (begin, end - begin)
    heard, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == RATE
    np.testing.assert_array_equal(heard, STEREO[begin:end])
    np.testing.assert_array_equal(await decoded(path, 2), STEREO[begin:end])


@pytest.mark.parametrize("seconds", [0.5, 4.9])
@pytest.mark.parametrize("name", LOSSY)
async def test_a_lossy_file_is_as_long_and_in_its_place(
    tmp_path: Path, name: Any, seconds: float
) -> None:
    """Within a frame of AAC: its last one is padded, and ffmpeg plays the padding, too."""
    await record(tmp_path)
    path, begin = tmp_path / f"out.{name}", 3000
    count = round(seconds * RATE) + 7
    async with local(tmp_path) as store:
        await export(store, "call", format=name, start=begin, end=begin + count, output=path)
    heard = (await decoded(path, 2)).astype(np.float64)
    frame = 1024 if name == "m4a" else 1
    assert count <= len(heard) <= count + frame
    truth = STEREO[begin : begin + count, 0].astype(np.float64)
    shifts = range(-40, 41)
    found = heard[:count, 0]
    match = [np.dot(np.roll(found, shift), truth) for shift in shifts]
    assert abs(shifts[int(np.argmax(match))]) <= 1


@pytest.mark.parametrize(
    ("options", "truth"),
    [
        ({"layout": "mono"}, MONO.reshape(-1, 1)),
        ({"layout": "track", "tracks": ["user"]}, USER.reshape(-1, 1)),
        ({"layout": "track", "tracks": ["bot", "user"]}, TRACKS),
        ({"layout": "stereo"}, STEREO),
    ],
)
@pytest.mark.parametrize(
    ("outputs", "kept", "gone"),
    [
        (("stereo",), False, []),
        (("stereo",), True, []),
        (("mono",), True, []),
        (("tracks",), False, []),
        (("stereo", "tracks"), True, ["audio.wav", "user.wav", "bot.wav"]),
    ],
)
async def test_every_layout_is_had_from_whatever_there_is(
    tmp_path: Path,
    options: dict[str, Any],
    truth: Any,
    outputs: tuple[str, ...],
    kept: bool,
    gone: list[str],
) -> None:
    await record(tmp_path, outputs=outputs, keep_chunks=kept)
    forget(tmp_path, *gone)
    stream, begin, end = io.BytesIO(), 23_456, 99_999
    async with local(tmp_path) as store:
        done = await export(
            store, "call", format="wav", start=begin, end=end, output=stream, **options
        )
    assert (done.url, done.bytes) == ("-", len(stream.getvalue()))
    stream.seek(0)
    heard, _ = soundfile.read(stream, dtype="int16", always_2d=True)
    np.testing.assert_array_equal(heard, truth[begin:end])


@pytest.mark.parametrize("name", FORMAT_NAMES)
async def test_a_stream_is_the_same_as_a_file(tmp_path: Path, name: Any) -> None:
    await record(tmp_path, seconds=2.0)
    stream, path = io.BytesIO(), tmp_path / f"out.{name}"
    async with local(tmp_path) as store:
        await export(store, "call", format=name, output=stream)
        await export(store, "call", format=name, output=path)
    np.testing.assert_array_equal(
        await decoded(stream.getvalue(), 2) if name != "m4a" else await decoded(path, 2),
        await decoded(path, 2),
    )
    if name != "opus":  # each stream of which has a random serial number
        assert stream.getvalue() == path.read_bytes()


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("name", FORMAT_NAMES)
async def test_whatever_rate_a_recording_has_its_length_stays(
    tmp_path: Path, name: Any, rate: int
) -> None:
    await record(tmp_path, sample_rate=rate, seconds=1.3)
    path = tmp_path / f"out.{name}"
    async with local(tmp_path) as store:
        done = await export(store, "call", format=name, layout="mono", output=path)
    assert done.samples == round(1.3 * rate)
    at = 48_000 if name == "opus" else rate  # which decodes to that, whatever it was made of
    heard = await decoded(path, 1, at)
    most = {"m4a": 1024, "mp3": 16}.get(name, 1)  # of padding that the decoder plays, too
    assert 0 <= len(heard) - round(1.3 * at) <= most


async def test_m4a_can_be_played_while_it_comes_and_tells_its_length(tmp_path: Path) -> None:
    """The index (moov) lies before the audio (mdat): ISO/IEC 14496-12, section 8.1."""
    await record(tmp_path, seconds=2.0)
    stream = io.BytesIO()
    async with local(tmp_path) as store:
        await export(store, "call", format="m4a", output=stream)
    body = stream.getvalue()
    assert 0 < body.index(b"moov") < body.index(b"mdat")


async def test_another_bucket_is_a_target_too(tmp_path: Path, s3_store: Any) -> None:
    await record(tmp_path, seconds=2.0)
    other = await s3_store()
    async with local(tmp_path) as store:
        done = await export(store, "call", format="opus", output=StoreTarget(other, "a/b.opus"))
    assert (done.key, done.url) == ("", other.url("a/b.opus"))
    heard = await decoded(await other.get("a/b.opus"), 2)
    assert len(heard) == 2 * RATE
    assert "exports" not in manifest_of(tmp_path)


async def test_more_tracks_than_two_keep_apart(tmp_path: Path) -> None:
    clock = VirtualClock()
    names = [f"guest-{number}" for number in range(5)]
    voices = [USER[number * 7 :][: 2 * RATE] for number in range(5)]
    settings = settings_in(tmp_path, keep_chunks=True)
    async with Recorder(settings, clock=clock, recover=False) as recorder:
        call = await recorder.start("call", tracks=[Track(name) for name in names])
        clock.advance(2)
        for name, voice in zip(names, voices, strict=True):
            call.write(name, voice.tobytes(), RATE)
        await call.stop()
    path = tmp_path / "out.flac"
    async with local(tmp_path) as store:
        await export(store, "call", format="flac", layout="track", tracks=names[::-1], output=path)
    heard, _ = soundfile.read(path, dtype="int16", always_2d=True)
    np.testing.assert_array_equal(heard, np.stack(voices[::-1], axis=1))
