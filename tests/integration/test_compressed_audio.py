"""Compressed outputs as sources: what is exported, or drawn, of FLAC and Ogg Opus in the store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from calls import RATE, settings_in
from decoders import decibels
from stored import (
    LENGTH,
    MONO,
    STEREO,
    USER,
    Counting,
    Make,
    Samples,
    forget,
    local,
    maker,
    manifest_of,
    path_of,
    record,
)

from recorder import Recorder, Track, VirtualClock, object_file, stored_encoded
from recorder.export import export
from recorder.peaks import write_peaks
from recorder.verification import verify
from uploader.store import Store

BOT_AND_USER = STEREO[:, ::-1]


@pytest.fixture(params=["local", "seaweed"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A function that returns the same store anew, on each implementation in turn."""
    return maker(request, tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that a recording of seconds has many, of the object and of its samples."""
    monkeypatch.setattr(object_file, "BLOCK_BYTES", 7_001)
    monkeypatch.setattr(stored_encoded, "BLOCK_SAMPLES", 9_973)


async def heard(store: Store, start: int = 0, end: int | None = None, **options: Any) -> Samples:
    """What an export in WAV has, which is what was read: shape (samples, channels)."""
    stream = io.BytesIO()
    await export(store, "call", format="wav", start=start, end=end, output=stream, **options)
    stream.seek(0)
    frames, _ = soundfile.read(stream, dtype="int16", always_2d=True)
    return np.asarray(frames, np.int16)


def shift(truth: Samples, found: Samples) -> int:
    """By how many samples one is late against the other: where they are most alike."""
    shifts = range(-40, 41)
    inner = slice(40, len(truth) - 40)
    alike = [np.dot(np.roll(found, -by)[inner].astype(float), truth[inner]) for by in shifts]
    return shifts[int(np.argmax(alike))]


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_it_works_on_each_store(make: Make, tmp_path: Path, small: None, form: str) -> None:
    await record(tmp_path, store=make(), format=form)
    async with make() as store:
        done = await export(store, "call", format="flac", start=12_345, end=99_999)
        assert (done.source, done.lossy_source) == ("output", form == "opus")
        body = await store.get(done.key)
        found, _ = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
        truth = STEREO[12_345:99_999]
        if form == "flac":
            np.testing.assert_array_equal(found, truth)
        else:
            assert found.shape == truth.shape
            assert decibels(truth, found) > 10
        assert (await write_peaks(store, "call", overwrite=True)).written
        report = await verify(store, "call")
    assert report.findings == ()
    assert [one.kind for one in report.proofs] == ["output", "peaks", "export"]


async def test_flac_is_exact_to_the_sample_whatever_the_range(tmp_path: Path, small: None) -> None:
    await record(tmp_path, format="flac")

    async with local(tmp_path) as store:

        async def check(begin: int, end: int) -> None:
            np.testing.assert_array_equal(await heard(store, begin, end), STEREO[begin:end])

        for begin, end in ((0, LENGTH), (0, 1), (LENGTH - 1, LENGTH), (9_972, 9_974)):
            await check(begin, end)
        for seed in range(20):
            numbers = np.random.default_rng(seed).choice(LENGTH + 1, 2, replace=False)
            await check(*map(int, sorted(numbers)))


@pytest.mark.parametrize(
    ("options", "truth"),
    [
        ({"layout": "stereo"}, STEREO),
        ({"layout": "mono"}, MONO.reshape(-1, 1)),
        ({"layout": "track", "tracks": ["user"]}, USER.reshape(-1, 1)),
        ({"layout": "track", "tracks": ["bot", "user"]}, BOT_AND_USER),
    ],
)
@pytest.mark.parametrize("outputs", ["stereo", "tracks"])
@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_every_layout_that_follows_is_had(
    tmp_path: Path, small: None, options: dict[str, Any], truth: Samples, outputs: str, form: str
) -> None:
    await record(tmp_path, format=form, outputs=(outputs,))
    begin, end = 23_456, 99_999
    async with local(tmp_path) as store:
        found = await heard(store, begin, end, **options)
    if form == "flac":
        np.testing.assert_array_equal(found, truth[begin:end])
    else:
        assert found.shape == truth[begin:end].shape
        assert decibels(truth[begin:end], found) > 8
        assert shift(truth[begin:end, 0], found[:, 0]) == 0


@pytest.mark.parametrize("rate", [4_000, 8_000, 16_000, 22_050, 44_100, 96_000])
async def test_opus_comes_back_at_the_recordings_rate_and_in_its_place(
    tmp_path: Path, small: None, rate: int
) -> None:
    """It is encoded at 8, 16, 24 and 48 kHz: the others are resampled on the way, and back."""
    kept, bare = tmp_path / "kept", tmp_path / "bare"
    for folder in (kept, bare):
        folder.mkdir()
        changes = {"format": "opus", "sample_rate": rate, "opus_bitrate": 128_000, "seconds": 2.3}
        await record(folder, keep_chunks=folder == kept, **changes)
    samples = round(2.3 * rate)
    async with local(kept) as store:
        truth = await heard(store)
    async with local(bare) as store:
        whole = await heard(store)
        # Deep inside, so that the decoder has settled: not even its last bit is another.
        begin, end = samples // 3 + 1, samples * 4 // 5
        part = await heard(store, begin, end)
        last = await heard(store, samples - 1, samples)
    assert whole.shape == truth.shape == (samples, 2)
    assert (shift(truth[:, 0], whole[:, 0]), shift(truth[:, 1], whole[:, 1])) == (0, 0)
    assert decibels(truth, whole) > 20
    assert np.abs(part.astype(int) - whole[begin:end]).max() <= 1
    assert last.shape == (1, 2)


async def test_what_swings_further_than_16_bits_does_not_wrap(tmp_path: Path) -> None:
    """A square wave of full scale, of which Opus makes overshoots."""
    square = np.where(np.arange(2 * RATE) // 37 % 2, 32_767, -32_768).astype(np.int16)
    clock = VirtualClock()
    async with Recorder(settings_in(tmp_path, format="opus"), clock=clock, recover=False) as one:
        call = await one.start("call", tracks=[Track("user"), Track("bot", "playout")])
        clock.advance(2)
        call.write("user", square.tobytes(), RATE)
        await call.stop()
    async with local(tmp_path) as store:
        found = await heard(store, layout="track", tracks=["user"])
    inner = slice(RATE // 10, -RATE // 10)
    assert decibels(square[inner], found[inner, 0]) > 6
    assert np.corrcoef(square[inner], found[inner, 0])[0, 1] > 0.9


async def test_chunks_are_better_than_opus_and_flac_is_as_good(tmp_path: Path) -> None:
    for form, source in (("opus", "chunks"), ("flac", "output")):
        folder = tmp_path / form
        folder.mkdir()
        await record(folder, format=form, keep_chunks=True)
        async with local(folder) as store:
            done = await export(store, "call", format="wav", output=io.BytesIO())
            assert (done.source, done.lossy_source) == (source, False)
            np.testing.assert_array_equal(await heard(store), STEREO[:LENGTH])


async def test_of_flac_little_more_is_read_than_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = 16 * 1024  # twice as much as libsndfile reads at a time
    monkeypatch.setattr(object_file, "BLOCK_BYTES", block)
    await record(tmp_path, format="flac")
    size = path_of(tmp_path, "audio.flac").stat().st_size
    store = Counting(local(tmp_path))
    async with store:
        await heard(store, LENGTH // 2, LENGTH // 2 + 100)
        assert 0 < store.given < size / 4
        store.given = 0
        await heard(store)
    assert size <= store.given <= size + 2 * block


async def test_what_is_held_does_not_grow_with_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[tuple[str, float], int] = {}
    for form in ("flac", "opus"):
        for seconds in (2.0, 18.0):
            folder = tmp_path / f"{form}-{seconds}"
            folder.mkdir()
            await record(folder, format=form, seconds=seconds, sample_rate=48_000)
            async with local(folder) as store:
                done = await export(store, "call", format="wav", output=folder / "out")
            held[form, seconds] = done.held_bytes
        assert held[form, 2.0] == held[form, 18.0] < 5 * 1024**2


@pytest.mark.parametrize("outputs", ["stereo", "mono", "tracks"])
async def test_the_waveform_of_flac_is_the_same_bytes_later(
    tmp_path: Path, small: None, outputs: str
) -> None:
    await record(tmp_path, format="flac", outputs=(outputs,))
    path = path_of(tmp_path, "peaks.json")
    at_once = path.read_bytes()
    forget(tmp_path, "peaks.json")
    async with local(tmp_path) as store:
        done = await write_peaks(store, "call")
    assert (done.written, done.lossy_source) == (True, False)
    assert path.read_bytes() == at_once


async def test_the_waveform_of_opus_is_nearly_that_and_says_so(tmp_path: Path) -> None:
    await record(tmp_path, format="opus")
    async with local(tmp_path) as store:
        at_once = (await store.get(manifest_of(tmp_path)["peaks"]["key"])).decode()
        done = await write_peaks(store, "call", overwrite=True)
        later = (await store.get(done.key)).decode()
        report = await verify(store, "call")
    assert (done.source, done.lossy_source, report.findings) == ("output", True, ())
    points = [
        np.fromstring(text.partition("[")[2].partition("]")[0], sep=",")
        for text in (at_once, later)
    ]
    assert points[0].shape == points[1].shape
    assert np.abs(points[0] - points[1]).max() < 10


async def test_a_recording_of_no_audio_has_an_empty_waveform(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, format="flac", peaks=False)
    async with Recorder(settings, clock=VirtualClock(), recover=False) as recorder:
        call = await recorder.start("call")
        assert (await call.stop()).durable
    async with local(tmp_path) as store:
        assert (await write_peaks(store, "call")).length == 0


@pytest.mark.parametrize(("form", "room"), [("flac", 3 * 1024**2), ("wav", 1024)])
async def test_more_tracks_than_the_budget_has_room_for_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, room: int
) -> None:
    monkeypatch.setattr("recorder.at_rest.HELD_BYTES", room)
    await record(tmp_path, format=form, outputs=("tracks",))
    async with local(tmp_path) as store:
        np.testing.assert_array_equal(await heard(store), STEREO[:LENGTH])
