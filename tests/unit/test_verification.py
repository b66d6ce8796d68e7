"""`verify` on recordings that are whole, or were recovered; and what comes from outside."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged import ALL, FRAME, RATE, VOICE, Record, Recorded, speak
from faulty_store import FaultyStore, refusal, reset

from recorder import Recorder, Settings, State, Track, VirtualClock
from recorder.catalog import NoSuchRecording
from recorder.names import InvalidName
from recorder.verification import Step, UnreadableManifest, objects, verify
from uploader.checksum import crc64nvme, encode
from uploader.errors import AccessDenied, NoSuchObject
from uploader.local import LocalStore

# -- whole recordings ------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["stereo", "mono", "tracks", "turns", ALL])
@pytest.mark.parametrize("keep_chunks", [False, True])
async def test_a_whole_recording_is_proved_byte_for_byte(
    record: Record, outputs: str, keep_chunks: bool
) -> None:
    recorded = await record(outputs=outputs, keep_chunks=keep_chunks)
    report = await recorded.verify()
    assert report.findings == ()
    assert report.ok
    assert report.notes == ()
    files = {path: path.read_bytes() for path in recorded.folder.rglob("*.wav")}
    assert {proof.key for proof in report.proofs} == {
        recorded.key(path.relative_to(recorded.folder).as_posix()) for path in files
    }
    for proof in report.proofs:
        body = recorded.bucket.joinpath(proof.key).read_bytes()
        assert (proof.bytes, proof.checksum) == (len(body), encode(crc64nvme(body)))
        assert proof.compared
        assert proof.rendered == (keep_chunks and proof.kind != "chunk")
    assert report.counts.objects == len(files)
    assert report.counts.bytes == sum(map(len, files.values()))
    assert (report.samples, report.duration_seconds) == (round(5.3 * RATE), 5.3)


async def test_an_object_is_read_in_pieces_and_progress_is_told(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = await record(keep_chunks=True)
    monkeypatch.setattr(objects, "PIECE_BYTES", 10_001)  # not a whole number of frames
    steps: list[Step] = []
    largest = 0
    async with LocalStore(recorded.bucket) as store:
        plain = store.get

        async def get(key: str, *, start: int = 0, end: int | None = None) -> bytes:
            nonlocal largest
            body = await plain(key, start=start, end=end)
            largest = max(largest, len(body))
            return body

        store.get = get  # type: ignore[method-assign]  # to see what is asked for
        report = await verify(store, "call", progress=steps.append)
    assert report.ok
    assert all(proof.rendered for proof in report.proofs if proof.kind != "chunk")
    assert largest == 10_001
    total = sum(path.stat().st_size for path in recorded.folder.rglob("*.wav"))
    assert steps[-1].bytes_read == steps[-1].bytes_total == total
    read = [step.bytes_read for step in steps]
    assert read == sorted(read)


async def test_a_recording_without_audio_is_proved(record: Record) -> None:
    report = await (await record(0, keep_chunks=True)).verify()
    assert report.findings == ()
    assert report.samples == 0
    assert all(proof.bytes == 80 for proof in report.proofs)


@pytest.mark.parametrize("keep_chunks", [False, True])
async def test_gaps_are_told_and_are_no_finding(tmp_path: Path, keep_chunks: bool) -> None:
    clock = VirtualClock()
    settings = Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        spool_max_bytes="16MiB",
        chunk_seconds=60,
        sample_rate=24_000,
        outputs=("stereo", "tracks"),
        keep_chunks=keep_chunks,
    )
    frame = np.full(480, 77, dtype=np.int16).tobytes()

    def talk(start: int, end: int) -> None:
        for index in range(start * 50, end * 50):
            clock.advance_to(call.zero + (index + 1) / 50)
            call.write("user", frame, 24_000)

    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start("call")
        talk(0, 30)
        quota = recorder._quota
        allowed, quota.limit = quota.limit, 0  # the disk fills up
        talk(30, 90)
        quota.limit = allowed
        talk(90, 93)
        assert (await call.stop()).state is State.COMPLETED_WITH_GAPS
    recorded = Recorded(tmp_path / "bucket")
    report = await recorded.verify()
    assert report.findings == ()
    [gap] = report.gaps
    assert gap.track == "user"
    recorded.change(gaps=[])
    assert await recorded.found() == [
        "manifest.json: state with 0 gaps: expected completed, found completed_with_gaps"
    ]
    told = {"track": "user", "start": gap.start, "end": None, "reason": "the host was lost"}
    recorded.change(gaps=[told])
    assert (await recorded.verify()).gaps[0].end is None
    assert await recorded.found() == []
    recorded.change(gaps=[{**told, "track": "nobody"}, {**told, "end": 93 * 24_000 + 1}])
    assert await recorded.found() == [
        "manifest.json: gap 1, track: expected of user, bot, found nobody",
        "manifest.json: gap 2, range: expected inside samples 0 to 2232000, "
        f"found {gap.start} to 2232001",
    ]


# -- what was recovered ----------------------------------------------------------------------------


async def attached(tmp_path: Path, **changes: Any) -> Recorded:
    """Return a call that another host finished half-way, and whose rest was attached to it."""
    values = {
        "bucket": (tmp_path / "bucket").as_uri(),
        "spool_dir": tmp_path / "spool",
        "chunk_seconds": 1.0,
        "sample_rate": RATE,
        "outputs": ALL,
        **changes,
    }
    elsewhere, clock = tmp_path / "elsewhere", VirtualClock()
    tracks = [Track("user"), Track("bot", "playout")]
    async with Recorder(Settings(**values), clock=clock, recover=False) as recorder:
        call = await recorder.start("call", tracks=tracks)
        call.start_turn("user", at=call.zero)
        await speak(call, clock, 4)
        shutil.copytree(tmp_path / "bucket", elsewhere / "bucket")  # with its attributes
        call.write("user", VOICE[:FRAME].tobytes(), RATE)
        shutil.copytree(tmp_path / "spool", elsewhere / "spool")
        await call.stop()
    values |= {"bucket": (elsewhere / "bucket").as_uri(), "spool_dir": elsewhere / "other"}
    async with Recorder(Settings(**values), recover=False) as recorder:
        [rescued] = await recorder.recover(bucket=True, stale_after=0, wait=False)
        assert rescued.outcome == "recovered", rescued
    plan = elsewhere / "spool" / "call" / "recording.json"
    document = json.loads(plan.read_text())
    plan.write_text(json.dumps({**document, "location": values["bucket"]}))
    values["spool_dir"] = elsewhere / "spool"
    async with Recorder(Settings(**values), recover=False) as recorder:
        [late] = await recorder.recover()
        assert late.outcome == "continued", late
    return Recorded(elsewhere / "bucket")


@pytest.mark.parametrize("keep_chunks", [False, True])
async def test_late_audio_is_proved_with_the_recording_it_belongs_to(
    tmp_path: Path, keep_chunks: bool
) -> None:
    recorded = await attached(tmp_path, keep_chunks=keep_chunks)
    report = await recorded.verify()
    assert [str(one) for one in report.findings] == []
    [folder] = report.continuations
    name = folder.removeprefix(recorded.key(""))
    late = {one.key.removeprefix(folder) for one in report.proofs if one.key.startswith(folder)}
    assert {"audio.wav", "mono.wav", "user.wav", "bot.wav"} <= late
    assert all(one.rendered == keep_chunks for one in report.proofs if one.kind == "output")
    assert [one.rendered for one in report.proofs if one.kind == "peaks"] == [True, True]
    recorded.rot(f"{name}user.wav", 101)
    [finding] = await recorded.found()
    assert finding.startswith(f"{name}user.wav: checksum: ")
    listed = recorded.manifest()["continuations"]
    recorded.change(continuations=[{**listed[0], "samples": 7}])
    first, _ = await recorded.found()
    assert first.startswith(f"{name}manifest.json: samples: expected 7, found ")
    recorded.path(f"{name}manifest.json").write_text("{}")
    [first] = await recorded.found()
    assert first.startswith(f"{name}manifest.json: object: expected a manifest, found ")
    recorded.path(f"{name}manifest.json").unlink()
    [first] = await recorded.found()
    assert first == f"{name}manifest.json: object: expected a manifest, found no object"


# -- what comes from outside -----------------------------------------------------------------------

ODD: list[Any] = [None, -1, 1e300, True, "x", "../../x", [], [1], {}, [{}], [{"name": 1}]]


async def test_no_manifest_makes_it_fail(record: Record) -> None:
    """Whatever a manifest says, there is a report, and no object elsewhere is asked for."""
    recorded = await record(keep_chunks=True)
    good = recorded.manifest()
    async with LocalStore(recorded.bucket) as inner:
        store = FaultyStore(inner)
        for name in good:
            if name in ("version", "owner", "epoch", "revision", "state"):
                continue
            for odd in ODD:
                recorded.change(**{**good, name: odd})
                await verify(store, "call")
        for name in ("chunks", "outputs", "turns"):
            for field in good[name][0]:
                for odd in ODD:
                    manifest = json.loads(json.dumps(good))
                    manifest[name][0][field] = odd
                    recorded.change(**manifest)
                    await verify(store, "call")
    asked = {key for op, key, _ in store.log if op in ("get", "head", "read")}
    assert all(key.startswith(recorded.key("")) for key in asked)


async def test_what_is_not_there_or_no_manifest_is_one_clear_error(record: Record) -> None:
    recorded = await record(outputs="stereo")
    async with LocalStore(recorded.bucket) as store:
        with pytest.raises(NoSuchRecording, match="no recording 'nobody'"):
            await verify(store, "nobody")
        with pytest.raises(InvalidName, match=r"\.\./up"):
            await verify(store, "../up")
        with pytest.raises(NoSuchRecording):
            await verify(store, "call", day=date(2001, 1, 1))
        recorded.path("manifest.json").write_text("{")
        with pytest.raises(UnreadableManifest, match=r"manifest\.json is not JSON"):
            await verify(store, "call")


async def test_a_store_that_fails_for_a_moment_is_asked_again(record: Record) -> None:
    recorded = await record(keep_chunks=True)
    async with LocalStore(recorded.bucket) as inner:
        store = FaultyStore(inner)
        store.fail("get", reset("get"), times=2)
        store.fail("head", reset("head"))
        assert (await verify(store, "call")).ok
        store.refuse("get", refusal(AccessDenied, "get"))
        with pytest.raises(AccessDenied):
            await verify(store, "call")


async def test_an_object_that_goes_while_it_is_read_is_found(record: Record) -> None:
    recorded = await record(outputs="stereo")
    size = recorded.path("audio.wav").stat().st_size
    async with LocalStore(recorded.bucket) as inner:
        store = FaultyStore(inner)
        store.refuse("get", refusal(NoSuchObject, "get"))
        [finding] = (await verify(store, "call")).findings
    assert (finding.check, finding.expected, finding.found) == ("bytes read", str(size), "0")
