"""`peaks.json`: there with the outputs, after whatever death; made later where it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import RATE, VOICE, die, samples, settings_in, speak
from faulty_store import FaultyStore, refusal, reset
from plans import make_plan
from stored import (
    LENGTH,
    MONO,
    STEREO,
    change_manifest,
    files,
    forget,
    local,
    manifest_of,
    path_of,
    record,
    rewrite,
)

from recorder import Recorder, State, VirtualClock
from recorder.at_rest import NotFinished
from recorder.peaks import NoAudio, PeaksError, UnusableChunks, write_peaks
from recorder.plan import Plan
from recorder.rescue import Sighting
from recorder.rescue import _note as note
from recorder.tally import Tally
from recorder.verification import verify
from recorder.waveform import Parsed, extremes
from uploader.checksum import crc64nvme, encode
from uploader.errors import AccessDenied
from uploader.local import LocalStore
from uploader.store import ObjectInfo


def peaks(folder: Path, below: str = "") -> Parsed:
    [path] = folder.glob(f"bucket/dt=*/*/{below}peaks.json")
    return Parsed.from_json(path.read_bytes())


def assert_peaks(found: Parsed, frames: Any, per_pixel: int = 2400) -> None:
    frames = frames if frames.ndim == 2 else frames.reshape(-1, 1)
    assert (found.channels, found.sample_rate) == (frames.shape[1], RATE)
    assert (found.samples_per_pixel, found.bits) == (per_pixel, 8)
    np.testing.assert_array_equal(found.values, extremes(frames, per_pixel))


# -- with the recording ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "frames"),
    [("stereo", STEREO), ("mono", MONO), ("stereo,mono", STEREO), ("tracks", STEREO)],
)
async def test_it_shows_the_mixed_output_and_is_listed(
    tmp_path: Path, outputs: str, frames: Any
) -> None:
    await record(tmp_path, outputs=tuple(outputs.split(",")))
    assert_peaks(peaks(tmp_path), frames[:LENGTH])
    told, body = manifest_of(tmp_path)["peaks"], path_of(tmp_path, "peaks.json").read_bytes()
    assert (told["state"], told["bytes"]) == ("completed", len(body))
    assert told["checksum"] == encode(crc64nvme(body))
    async with local(tmp_path) as store:
        info = await store.head(told["key"])
        assert info.content_type == "application/json"
        assert info.metadata["recorder-recording-id"] == "call"
        assert info.metadata["recorder-started-at"] == manifest_of(tmp_path)["started_at"]
        report = await verify(store, "call")
    assert report.ok
    assert [one.kind for one in report.proofs][-1] == "peaks"


@pytest.mark.parametrize(("chunk_seconds", "per_pixel"), [(0.1, 2400), (1.1, 999), (30, 64)])
async def test_chunks_and_points_need_not_fit(
    tmp_path: Path, chunk_seconds: float, per_pixel: int
) -> None:
    await record(tmp_path, chunk_seconds=chunk_seconds, peaks_samples_per_pixel=per_pixel)
    assert_peaks(peaks(tmp_path), STEREO[:LENGTH], per_pixel)


async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    await record(tmp_path, peaks=False)
    assert not path_of(tmp_path, "peaks.json").exists()
    assert manifest_of(tmp_path)["peaks"] is None


async def test_no_audio_is_read_back_for_it(tmp_path: Path) -> None:
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    await record(tmp_path, store=store)
    assert "get" not in store.calls
    assert_peaks(peaks(tmp_path), STEREO[:LENGTH])


async def test_a_call_of_no_audio_has_an_empty_one(tmp_path: Path) -> None:
    async with Recorder(settings_in(tmp_path), clock=VirtualClock()) as recorder:
        call = await recorder.start("call")
        assert (await call.stop()).durable
    assert peaks(tmp_path).length == 0


async def test_a_refusal_costs_the_waveform_and_nothing_else(tmp_path: Path) -> None:
    class NoPeaks(FaultyStore):
        async def put(self, key: str, *args: Any, **options: Any) -> Any:
            if key.endswith("peaks.json"):
                raise refusal(AccessDenied, "put")()
            return await super().put(key, *args, **options)

    await record(tmp_path, store=NoPeaks(LocalStore(tmp_path / "bucket")))
    document = manifest_of(tmp_path)
    assert document["state"] == "completed"
    assert document["peaks"]["state"] == "failed"
    assert "put refused" in document["peaks"]["reason"]
    async with local(tmp_path) as store:
        report = await verify(store, "call")
        assert report.ok
        assert any("recorder peaks" in note for note in report.notes)
        assert (await write_peaks(store, "call")).written
    assert_peaks(peaks(tmp_path), STEREO[:LENGTH])


async def test_a_moment_without_the_store_is_nothing(tmp_path: Path) -> None:
    class Shaky(FaultyStore):
        async def put(self, key: str, *args: Any, **options: Any) -> Any:
            if key.endswith("peaks.json") and self.calls["peaks"] < 2:
                self.calls["peaks"] += 1
                raise reset("put")()
            return await super().put(key, *args, **options)

    await record(tmp_path, store=Shaky(LocalStore(tmp_path / "bucket")))
    assert_peaks(peaks(tmp_path), STEREO[:LENGTH])


async def test_a_recording_does_not_wait_long_for_nothing_but_its_waveform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(FaultyStore):
        async def put(self, key: str, *args: Any, **options: Any) -> Any:
            if key.endswith("peaks.json"):
                raise reset("put")()
            return await super().put(key, *args, **options)

    monkeypatch.setattr("recorder.tally.PATIENCE_SECONDS", 0.05)
    await record(tmp_path, store=Hanging(LocalStore(tmp_path / "bucket")))
    document = manifest_of(tmp_path)
    assert (document["state"], document["peaks"]["state"]) == ("completed", "failed")
    assert "in time" in document["peaks"]["reason"]


# -- after a death ---------------------------------------------------------------------------------


async def dead(
    folder: Path, seconds: int = 6, store: FaultyStore | None = None, **changes: Any
) -> None:
    """A call of one voice whose process has died in the middle of a second."""
    clock = VirtualClock()
    recorder = Recorder(settings_in(folder, **changes), clock=clock, store=store, recover=False)
    await recorder.__aenter__()
    call = await recorder.start("call")
    for second in range(seconds):
        speak(call, clock, second, second + 1)
        await call.flush()
    await die(recorder)


def stereo(folder: Path) -> Any:
    return np.stack([samples(folder, channel=0), samples(folder, channel=1)], axis=1)


async def test_after_a_death_it_comes_from_what_was_noted(tmp_path: Path) -> None:
    await dead(tmp_path)
    assert (tmp_path / "spool" / "call" / "peaks-0").stat().st_size > 0
    store = FaultyStore(LocalStore(tmp_path / "bucket"))
    async with Recorder(settings_in(tmp_path), store=store, recover=False) as recorder:
        [one] = await recorder.recover()
    assert one.outcome == "recovered"
    assert "get" not in store.calls, "audio was read from the store"
    assert len(stereo(tmp_path)) == 6 * RATE
    assert_peaks(peaks(tmp_path), stereo(tmp_path))


@pytest.mark.parametrize("damage", ["torn", "rotten", "gone", "empty", "a folder"])
async def test_what_was_noted_and_is_damaged_is_computed_anew(tmp_path: Path, damage: str) -> None:
    await dead(tmp_path)
    path = tmp_path / "spool" / "call" / "peaks-0"
    body = bytearray(path.read_bytes())
    if damage == "torn":
        path.write_bytes(body[:-7])
    elif damage == "rotten":
        body[40] ^= 1
        path.write_bytes(body)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    async with Recorder(settings_in(tmp_path), recover=False) as recorder:
        [one] = await recorder.recover()
    assert one.outcome == "recovered"
    assert_peaks(peaks(tmp_path), stereo(tmp_path))


class NoChunks(FaultyStore):
    """Takes everything but chunks."""

    async def put(self, key: str, *args: Any, **options: Any) -> Any:
        if "/chunks/0" in key:
            raise refusal(AccessDenied, "put")()
        return await super().put(key, *args, **options)


async def test_a_chunk_that_is_sent_again_and_again_is_noted_once(tmp_path: Path) -> None:
    await dead(tmp_path, store=NoChunks(LocalStore(tmp_path / "bucket")))
    once = 28 + 10 * 4  # a record of a second: its head, and ten points of two channels
    assert (tmp_path / "spool" / "call" / "peaks-0").stat().st_size == once


class NoOutput(FaultyStore):
    """Takes everything but the output."""

    async def put(self, key: str, *args: Any, **options: Any) -> Any:
        if key.endswith("audio.wav"):
            raise refusal(AccessDenied, "put")()
        return await super().put(key, *args, **options)

    async def upload_part(self, key: str, *args: Any, **options: Any) -> Any:
        raise refusal(AccessDenied, "upload_part")()


async def test_what_is_noted_behind_a_torn_record_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies while it notes; the next one notes all, in vain; the third one finishes."""
    await dead(tmp_path, store=NoChunks(LocalStore(tmp_path / "bucket")))
    path = tmp_path / "spool" / "call" / "peaks-0"
    path.write_bytes(path.read_bytes()[:-9])
    store = NoOutput(LocalStore(tmp_path / "bucket"))
    async with Recorder(settings_in(tmp_path), store=store, recover=False) as recorder:
        [one] = await recorder.recover()
        assert one.outcome == "failed"

    async def read(_: Tally, chunk: object) -> None:
        raise AssertionError(f"{chunk} was read again")

    monkeypatch.setattr(Tally, "_read", read)
    async with Recorder(settings_in(tmp_path), recover=False) as recorder:
        [one] = await recorder.recover()
    assert one.outcome == "recovered"
    assert_peaks(peaks(tmp_path), stereo(tmp_path))


async def test_a_lost_hosts_recording_has_it_too(tmp_path: Path) -> None:
    await dead(tmp_path)
    shutil.rmtree(tmp_path / "spool")
    settings = settings_in(tmp_path, spool_dir=tmp_path / "other")
    async with Recorder(settings, clock=VirtualClock(), recover=False) as recorder:
        [one] = await recorder.recover(bucket=True, stale_after=0)
    assert one.result is not None
    assert one.result.state is State.COMPLETED_WITH_GAPS
    assert_peaks(peaks(tmp_path), stereo(tmp_path))
    np.testing.assert_array_equal(samples(tmp_path), VOICE[: len(samples(tmp_path))])


async def test_a_lost_chunk_is_silent_in_it(tmp_path: Path) -> None:
    await dead(tmp_path)
    shutil.rmtree(tmp_path / "spool")
    [chunk] = tmp_path.glob("bucket/dt=*/call/chunks/000002.wav")
    chunk.unlink()
    settings = settings_in(tmp_path, spool_dir=tmp_path / "other")
    async with Recorder(settings, clock=VirtualClock(), recover=False) as recorder:
        [one] = await recorder.recover(bucket=True, stale_after=0)
    assert one.outcome == "recovered"
    heard = stereo(tmp_path)
    assert not heard[RATE : 2 * RATE].any()
    assert_peaks(peaks(tmp_path), heard)


# -- later -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "kept", "gone", "source"),
    [
        ("stereo", False, [], "output"),
        ("stereo", True, ["audio.wav"], "chunks"),
        ("tracks", False, [], "user.wav, bot.wav"),
        ("stereo,tracks", False, ["audio.wav"], "user.wav, bot.wav"),
    ],
)
async def test_it_is_made_later_from_what_there_is(
    tmp_path: Path, outputs: str, kept: bool, gone: list[str], source: str
) -> None:
    await record(tmp_path, outputs=tuple(outputs.split(",")), keep_chunks=kept, peaks=False)
    forget(tmp_path, *gone)
    async with local(tmp_path) as store:
        done = await write_peaks(store, "call", samples_per_pixel=777)
        assert (done.written, done.source) == (True, source)
        again = await write_peaks(store, manifest_of(tmp_path))
    assert (again.written, again.checksum) == (False, done.checksum)
    assert_peaks(peaks(tmp_path), STEREO[:LENGTH], 777)
    document = manifest_of(tmp_path)
    assert document["peaks"]["samples_per_pixel"] == 777
    assert document["state"] == "completed"


async def test_later_and_at_once_are_the_same_bytes(tmp_path: Path) -> None:
    await record(tmp_path)
    path = path_of(tmp_path, "peaks.json")
    at_once = path.read_bytes()
    path.unlink()
    async with local(tmp_path) as store:
        assert (await write_peaks(store, "call")).written
    assert path.read_bytes() == at_once


async def test_what_is_damaged_counts_as_missing(tmp_path: Path) -> None:
    await record(tmp_path)
    path = path_of(tmp_path, "peaks.json")
    good = path.read_bytes()
    rewrite(path, good.replace(b"[", b"[ ", 1)[: len(good)])
    async with local(tmp_path) as store:
        report = await verify(store, "call")
        assert [one.check for one in report.findings] == ["checksum"]
        assert (await write_peaks(store, "call")).written
    assert path.read_bytes() == good


async def test_another_resolution_has_to_be_asked_for(tmp_path: Path) -> None:
    await record(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(PeaksError, match="has 2400 samples per pixel, not 500"):
            await write_peaks(store, "call", samples_per_pixel=500)
        for wrong in (0, 63, 1_000_001):
            with pytest.raises(PeaksError, match="must be from 64 to 1000000"):
                await write_peaks(store, "call", samples_per_pixel=wrong)
        assert (await write_peaks(store, "call", samples_per_pixel=500, overwrite=True)).written
    assert_peaks(peaks(tmp_path), STEREO[:LENGTH], 500)


async def test_audio_that_is_not_what_was_recorded_makes_no_waveform(tmp_path: Path) -> None:
    await record(tmp_path, peaks=False)
    path = path_of(tmp_path, "audio.wav")
    body = bytearray(path.read_bytes())
    body[5001] ^= 1
    rewrite(path, body)
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(NoAudio, match=r"audio\.wav has other bytes than were recorded"):
            await write_peaks(store, "call")
    assert files(tmp_path) == before


async def test_a_damaged_chunk_makes_no_waveform(tmp_path: Path) -> None:
    await record(tmp_path, keep_chunks=True, peaks=False)
    forget(tmp_path, "audio.wav")
    path = path_of(tmp_path, "chunks/000003.wav")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(UnusableChunks, match=r"chunks/000003\.wav has other bytes"):
            await write_peaks(store, "call")
    assert files(tmp_path) == before


async def test_a_recording_under_way_is_left_to_its_owner(tmp_path: Path) -> None:
    await record(tmp_path, peaks=False)
    change_manifest(tmp_path, lambda document: {**document, "state": "recording"})
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(NotFinished, match="'call' is recording"):
            await write_peaks(store, "call")
    assert files(tmp_path) == before


async def test_a_waveform_that_shows_other_audio_is_found(tmp_path: Path) -> None:
    await record(tmp_path)
    body = path_of(tmp_path, "peaks.json").read_bytes()
    found = Parsed.from_json(body)
    values = found.values.reshape(-1).tolist()
    values[20] = -values[20]
    text = body.split(b"[")[0] + b"[" + ",".join(map(str, values)).encode() + b"]}\n"
    async with local(tmp_path) as store:
        info = await store.head(manifest_of(tmp_path)["peaks"]["key"])
        await store.put(info.key, text)
        change_manifest(
            tmp_path,
            lambda document: {
                **document,
                "peaks": {
                    **document["peaks"],
                    "bytes": len(text),
                    "checksum": encode(crc64nvme(text)),
                },
            },
        )
        [finding] = (await verify(store, "call")).findings
    assert (finding.check, finding.found) == ("points", "another at point 5")


def test_a_manifest_of_before_there_were_any_is_read() -> None:
    document = make_plan().to_dict()
    del document["peaks_samples_per_pixel"]
    assert Plan.from_dict(document).peaks_samples_per_pixel == 0


def test_a_waveform_or_an_export_is_no_output_of_a_recording_that_is_not_finished() -> None:
    """A rescuer tells by the objects alone whether there may be something to do."""
    seen: dict[str, Sighting] = {}
    for name, size in (("manifest.json", 900), ("peaks.json", 9000), ("exports/a.mp3", 9000)):
        note(seen, ObjectInfo(f"dt=2026-01-01/call/{name}", size, "etag"))
    [sighting] = seen.values()
    assert not sighting.looks_finished
    note(seen, ObjectInfo("dt=2026-01-01/call/audio.wav", 9000, "etag"))
    assert sighting.looks_finished
