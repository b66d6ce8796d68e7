"""What `verify` finds: each kind of damage, by itself, and nothing on recordings that are whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_store import FaultyStore, refusal, reset

from recorder import Recorder, Session, Settings, State, Track, VirtualClock
from recorder.catalog import NoSuchRecording
from recorder.names import InvalidName
from recorder.verification import Report, Step, UnreadableManifest, objects, verify
from uploader.checksum import crc64nvme, encode
from uploader.errors import AccessDenied, NoSuchObject
from uploader.local import LocalStore
from uploader.store import MIN_PART_BYTES, ObjectAttributes

RATE = 8000
FRAME = RATE // 50
VOICE = np.random.default_rng(5).integers(1, 9000, 40 * RATE, dtype=np.int16)
ALL = "stereo,mono,tracks,turns"

Record = Callable[..., Awaitable["Recorded"]]


class Recorded:
    """A recording in a folder, to be damaged."""

    def __init__(self, bucket: Path) -> None:
        self.bucket = bucket
        (self.folder,) = bucket.glob("dt=*/call")

    def key(self, name: str) -> str:
        return f"{self.folder.parent.name}/call/{name}"

    def path(self, name: str) -> Path:
        return self.folder / name

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path("manifest.json").read_text())
        return found

    def change(self, **changes: Any) -> None:
        self.path("manifest.json").write_text(json.dumps({**self.manifest(), **changes}))

    def rot(self, name: str, position: int = 4001) -> None:
        """Flip a bit so that the file system does not notice, as a failing disk does."""
        path = self.path(name)
        status, body = path.stat(), bytearray(path.read_bytes())
        body[position] ^= 1
        path.write_bytes(body)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    async def put(self, name: str, body: bytes, like: str = "") -> None:
        """Replace an object, with the attributes of another or of itself."""
        async with LocalStore(self.bucket) as store:
            info = await store.head(self.key(like or name))
            await store.put(self.key(name), body, attributes(info.content_type, info.metadata))

    async def verify(self, **options: Any) -> Report:
        async with LocalStore(self.bucket) as store:
            return await verify(store, "call", **options)

    async def found(self) -> list[str]:
        """Return the findings, with keys as they are within the folder."""
        report = await self.verify()
        return [str(one).replace(self.key(""), "") for one in report.findings]


def attributes(content_type: str, metadata: Any) -> ObjectAttributes:
    return ObjectAttributes(content_type=content_type, metadata=metadata)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Return a function that records a call of two voices and two turns."""

    async def make(seconds: float = 5.3, **changes: Any) -> Recorded:
        values: dict[str, Any] = {
            "bucket": (tmp_path / "bucket").as_uri(),
            "spool_dir": tmp_path / "spool",
            "chunk_seconds": 1.0,
            "sample_rate": RATE,
            "outputs": ALL,
            "peaks": False,  # what these tests damage and count is audio
            **changes,
        }
        clock = VirtualClock()
        async with Recorder(Settings(**values), clock=clock) as recorder:
            call = await recorder.start("call", tracks=[Track("user"), Track("bot", "playout")])
            call.start_turn("user", at=call.zero)
            await speak(call, clock, seconds)
            result = await call.stop()
        assert result.state is State.COMPLETED
        return Recorded(tmp_path / "bucket")

    return make


async def speak(call: Session, clock: VirtualClock, seconds: float) -> None:
    for index in range(round(seconds * 50)):
        clock.advance_to(call.zero + (index + 1) / 50)
        frame = VOICE[index * FRAME : (index + 1) * FRAME]
        call.write("user", frame.tobytes(), RATE)
        if 50 <= index < 150:
            if index == 50:
                call.end_turn("user")
                call.start_turn("bot")
            call.write("bot", (frame // 3).tobytes(), RATE)
        if index % 50 == 49:
            await call.flush()


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


# -- damaged objects -------------------------------------------------------------------------------

OBJECTS = ["audio.wav", "mono.wav", "user.wav", "bot.wav", "turns/0001-user.wav"]


@pytest.mark.parametrize("name", OBJECTS)
async def test_a_flipped_bit_is_found(record: Record, name: str) -> None:
    recorded = await record()
    good = encode(crc64nvme(recorded.path(name).read_bytes()))
    recorded.rot(name)
    bad = encode(crc64nvme(recorded.path(name).read_bytes()))
    assert await recorded.found() == [
        f"{name}: checksum: expected {good} of the manifest and the store, found {bad}"
    ]


@pytest.mark.parametrize("name", OBJECTS)
async def test_kept_chunks_tell_where_the_flipped_bit_is(record: Record, name: str) -> None:
    recorded = await record(keep_chunks=True)
    recorded.rot(name)
    report = await recorded.verify()
    [finding] = report.findings
    sample = (4001 - 80) // (4 if name == "audio.wav" else 2)
    assert (finding.key, finding.check) == (recorded.key(name), "checksum")
    where = f"not those of its chunks from sample {sample} ({sample / RATE:.3f} s) on"
    assert finding.found.endswith(where)
    assert recorded.key(name) not in {proof.key for proof in report.proofs}


async def test_a_flipped_bit_in_a_header_is_found(record: Record) -> None:
    recorded = await record(keep_chunks=True)
    recorded.rot("mono.wav", 20)
    [finding] = (await recorded.verify()).findings
    assert (finding.key, finding.check) == (recorded.key("mono.wav"), "checksum")


@pytest.mark.parametrize("by", [-1, 1, -4000, 7])
@pytest.mark.parametrize("name", ["audio.wav", "turns/0002-bot.wav", "chunks/000002.wav"])
async def test_another_length_is_found(record: Record, name: str, by: int) -> None:
    recorded = await record(keep_chunks=True)
    body = recorded.path(name).read_bytes()
    await recorded.put(name, body[:by] if by < 0 else body + bytes(by))
    size = len(body)
    assert await recorded.found() == [
        f"{name}: size: expected {size} bytes, found {size + by} bytes"
    ]


@pytest.mark.parametrize("name", [*OBJECTS, "chunks/000006.wav"])
async def test_a_missing_object_is_found(record: Record, name: str) -> None:
    recorded = await record(keep_chunks=True)
    size = recorded.path(name).stat().st_size
    recorded.path(name).unlink()
    assert await recorded.found() == [
        f"{name}: object: expected an object of {size} bytes, found no object"
    ]


async def test_swapped_chunks_are_found_and_named(record: Record) -> None:
    recorded = await record(keep_chunks=True)
    names = ["chunks/000002.wav", "chunks/000004.wav"]
    bodies = [recorded.path(name).read_bytes() for name in names]
    sums = [encode(crc64nvme(body)) for body in bodies]
    for name, body in zip(names, reversed(bodies), strict=True):
        await recorded.put(name, body)
    report = await recorded.verify()
    assert [str(one).replace(recorded.key(""), "") for one in report.findings] == [
        f"{names[0]}: checksum: expected {sums[0]} of the manifest, "
        f"found {sums[1]}, which is that of {names[1]}",
        f"{names[1]}: checksum: expected {sums[1]} of the manifest, "
        f"found {sums[0]}, which is that of {names[0]}",
    ]
    assert not any(proof.rendered for proof in report.proofs)
    assert "were not compared" in report.notes[0]


async def test_an_output_that_is_not_what_its_chunks_make_is_found(record: Record) -> None:
    """The manifest and the object agree with each other, and with the chunks they do not."""
    recorded = await record(keep_chunks=True)
    body = bytearray(recorded.path("user.wav").read_bytes())
    body[80 + 2 * 12_345] ^= 4
    await recorded.put("user.wav", bytes(body))
    outputs = recorded.manifest()["outputs"]
    outputs[2]["checksum"] = encode(crc64nvme(bytes(body)))
    recorded.change(outputs=outputs)
    assert await recorded.found() == [
        "user.wav: samples: expected those of its chunks, "
        "found not those of its chunks from sample 12345 (1.543 s) on"
    ]


async def test_a_header_that_says_something_else_is_found(record: Record) -> None:
    recorded = await record()
    body = bytearray(recorded.path("mono.wav").read_bytes())
    body[60:64] = (16_000).to_bytes(4, "little")
    await recorded.put("mono.wav", bytes(body))
    outputs = recorded.manifest()["outputs"]
    outputs[1]["checksum"] = encode(crc64nvme(bytes(body)))
    recorded.change(outputs=outputs)
    assert await recorded.found() == ["mono.wav: header's sample rate: expected 8000, found 16000"]


async def test_what_is_no_audio_is_found(record: Record) -> None:
    recorded = await record()
    body = b"x" * recorded.path("mono.wav").stat().st_size
    await recorded.put("mono.wav", body)
    outputs = recorded.manifest()["outputs"]
    outputs[1]["checksum"] = encode(crc64nvme(body))
    recorded.change(outputs=outputs)
    [finding] = await recorded.found()
    assert finding.startswith("mono.wav: header: expected a WAV file of 16-bit PCM, found not a")


async def test_what_the_store_says_of_an_object_is_compared_too(record: Record) -> None:
    recorded = await record()
    body = recorded.path("audio.wav").read_bytes()
    async with LocalStore(recorded.bucket) as store:
        plain = store.head

        async def head(key: str) -> Any:
            info = await plain(key)
            return replace(info, checksum=5) if key.endswith("audio.wav") else info

        store.head = head  # type: ignore[method-assign]  # a store that is wrong of itself
        report = await verify(store, "call")
    [finding] = report.findings
    assert finding.check == "checksum"
    assert finding.expected == f"{encode(5)} of the store"
    assert finding.found == encode(crc64nvme(body))


async def test_an_object_of_another_recording_is_found(record: Record) -> None:
    recorded = await record()
    async with LocalStore(recorded.bucket) as store:
        key = recorded.key("audio.wav")
        info = await store.head(key)
        metadata = {**info.metadata, "recorder-recording-id": "other"}
        body = await store.get(key)
        await store.put(key, body, attributes(info.content_type, metadata))
    assert await recorded.found() == [
        "audio.wav: metadata recorder-recording-id: expected call, found other"
    ]


async def test_an_object_that_does_not_say_whose_it_is_is_found(record: Record) -> None:
    recorded = await record()
    body = recorded.path("audio.wav").read_bytes()
    recorded.path("audio.wav").write_bytes(body)  # by hand: the store knows nothing of it
    assert await recorded.found() == [
        "audio.wav: metadata recorder-recording-id: expected call, found none"
    ]


async def test_wrong_metadata_of_a_chunk_is_found(record: Record) -> None:
    recorded = await record(keep_chunks=True)
    body = recorded.path("chunks/000001.wav").read_bytes()
    await recorded.put("chunks/000001.wav", body, like="chunks/000003.wav")
    assert await recorded.found() == [
        "chunks/000001.wav: metadata recorder-sequence: expected 1, found 3",
        "chunks/000001.wav: metadata recorder-first-sample: expected 0, found 16000",
    ]


# -- what should not be there ----------------------------------------------------------------------


async def test_a_foreign_object_is_found(record: Record) -> None:
    recorded = await record()
    recorded.path("notes.txt").write_text("hello")
    recorded.path("chunks").mkdir(exist_ok=True)
    recorded.path("chunks/000099.wav").write_bytes(b"")
    assert await recorded.found() == [
        "chunks/000099.wav: object: expected none, as no manifest names it, "
        "found an object of 0 bytes",
        "notes.txt: object: expected none, as no manifest names it, found an object of 5 bytes",
    ]


async def test_a_chunk_that_was_not_deleted_is_found_unless_it_is_listed(record: Record) -> None:
    recorded = await record()
    recorded.path("chunks").mkdir(exist_ok=True)
    recorded.path("chunks/000002.wav").write_bytes(b"1234")
    assert await recorded.found() == [
        "chunks/000002.wav: object: expected none, as chunks are not kept, "
        "found an object of 4 bytes"
    ]
    recorded.change(leftovers=[recorded.key("chunks/000002.wav")])
    report = await recorded.verify()
    assert report.ok
    assert report.notes == ("1 superfluous objects, listed as leftovers, are still there",)
    recorded.path("chunks/000002.wav").unlink()
    assert (await recorded.verify()).notes == ()


async def test_an_upload_that_was_left_open_is_found(record: Record) -> None:
    recorded = await record()
    async with LocalStore(recorded.bucket) as store:
        upload = await store.create_multipart(recorded.key("audio.wav"))
        await store.upload_part(recorded.key("audio.wav"), upload, 1, bytes(MIN_PART_BYTES))
        await store.create_multipart(recorded.key("").replace("/call/", "/another/") + "audio.wav")
    assert await recorded.found() == [
        f"audio.wav: upload in progress: expected none, found {upload} with 1 parts of "
        f"{MIN_PART_BYTES} bytes"
    ]


async def test_uploads_that_may_not_be_listed_are_a_note(record: Record) -> None:
    recorded = await record()

    class Closed(LocalStore):
        async def list_uploads(self, prefix: str = "") -> Any:
            raise refusal(AccessDenied, "list_uploads")()
            yield

    async with Closed(recorded.bucket) as store:
        report = await verify(store, "call")
    assert report.ok
    assert report.notes == ("no permission to list uploads in progress: there may be some",)


# -- what a manifest says --------------------------------------------------------------------------


def changed(name: str, index: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Return what changes one entry of a manifest's list."""
    return lambda manifest: manifest[name][index].update(changes)


def set_to(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(changes)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (set_to(recording_id="other"), "recording_id: expected call, found other"),
        (set_to(day="2020-01-01"), "day: expected "),
        (set_to(duration_seconds=5.4), "duration_seconds: expected 5.300000 (42400 samples at "),
        (set_to(chunk_seconds=2), "chunk_seconds: expected 1.000000 (8000 samples at 8000 Hz), "),
        (set_to(format="vinyl"), "format: expected a format, found no format is called "),
        (set_to(sealed=False), "sealed: expected true, as it is complete, found not true"),
        (changed("chunks", 1, number=9), "chunk 2, number: expected 2, found 9"),
        (changed("chunks", 1, first_sample=1), "chunk 2, first_sample: expected 8000, found 1"),
        (changed("chunks", 1, bytes=5), "chunk 2, bytes: expected 32080, found 5"),
        (changed("chunks", 1, checksum="x"), "chunk 2, checksum: expected base64 of 8 bytes, "),
        (changed("chunks", 1, tracks=["bot", "user"]), "chunk 2, tracks: expected first those "),
        (changed("outputs", 0, key="x"), "output stereo, key: expected audio.wav, found x"),
        (changed("outputs", 0, layout="x"), "output stereo, layout: expected stereo, found x"),
        (changed("outputs", 0, channels=1), "output stereo, channels: expected 2, found 1"),
        (changed("outputs", 0, state="pending"), "output stereo, state: expected completed, "),
        (changed("outputs", 0, parts=3), "output stereo, parts: expected 1 at most, found 3"),
        (changed("outputs", 0, duration_seconds=1), "output stereo, duration_seconds: expected 5"),
        (changed("outputs", 0, checksum=""), "output stereo, checksum: expected base64 of 8 "),
        (changed("turns", 1, number=1), "turn 1, number: expected more than 1, found 1"),
        (changed("turns", 0, track="nobody"), "turn 1, track: expected of user, bot, found nobod"),
        (changed("turns", 0, start=-1), "turn 1, range: expected inside samples 0 to 42400, "),
        (changed("turns", 0, state="failed"), "turn 1, state: expected completed, found failed"),
        (changed("turns", 0, key=None), "turn 1, key: expected turns/0001-user.wav, found none"),
        (changed("turns", 0, first_sample=5), "turn 1, first_sample: expected 0 to 0, found 5"),
    ],
)
async def test_a_manifest_that_contradicts_itself_is_found(
    record: Record, change: Callable[[dict[str, Any]], None], found: str
) -> None:
    recorded = await record()
    manifest = recorded.manifest()
    change(manifest)
    recorded.change(**manifest)
    findings = await recorded.found()
    assert any(one.startswith(f"manifest.json: {found}") for one in findings), findings


async def test_a_wrong_length_is_told_of_everything_it_contradicts(record: Record) -> None:
    recorded = await record(outputs="stereo")
    recorded.change(samples=42_401)
    assert await recorded.found() == [
        "manifest.json: duration_seconds: expected 5.300125 (42401 samples at 8000 Hz), "
        "found 5.300000",
        "manifest.json: samples, as the sum of all chunks: expected 42400, found 42401",
        "manifest.json: output stereo, samples: expected 42401, found 42400",
    ]


async def test_an_output_that_is_not_listed_or_listed_twice_is_found(record: Record) -> None:
    recorded = await record(outputs="stereo,mono")
    stereo, mono = recorded.manifest()["outputs"]
    recorded.change(outputs=[stereo, stereo])
    assert await recorded.found() == [
        "manifest.json: output 'stereo', times listed: expected 1, found 2",
        "manifest.json: outputs: expected one called 'mono', found none",
        "mono.wav: object: expected none, as no manifest names it, "
        f"found an object of {mono['bytes']} bytes",
    ]


@pytest.mark.parametrize("state", ["recording", "pending", "failed"])
async def test_what_is_not_final_is_said_and_its_chunks_are_proved(
    record: Record, state: str
) -> None:
    recorded = await record(keep_chunks=True, outputs="stereo")
    outputs = [{**recorded.manifest()["outputs"][0], "state": "recording", "checksum": ""}]
    recorded.change(state=state, outputs=outputs)
    recorded.path("audio.wav").unlink()
    beyond = recorded.path("chunks/000007.wav")
    beyond.write_bytes(b"sealed since")
    not_final = (
        "manifest.json: state: expected completed or completed_with_gaps, "
        f"found {state}, so that there is nothing final to prove"
    )
    report = await recorded.verify()
    assert await recorded.found() == [not_final]
    assert not report.ok
    assert len(report.proofs) == 6
    recorded.rot("chunks/000003.wav")
    [_, finding] = await recorded.found()
    assert finding.startswith("chunks/000003.wav: checksum: ")


async def lose(recorded: Recorded, number: int) -> None:
    """Lose a chunk as a rescue would have found it: silence in the outputs, and a gap."""
    manifest = recorded.manifest()
    chunk = manifest["chunks"][number - 1]
    chunk["lost"] = True
    start, end = chunk["first_sample"], chunk["first_sample"] + chunk["samples"]
    for made in manifest["outputs"]:
        name = made["key"].removeprefix(recorded.key(""))
        body, width = bytearray(recorded.path(name).read_bytes()), 2 * made["channels"]
        body[80 + start * width : 80 + end * width] = bytes((end - start) * width)
        await recorded.put(name, bytes(body))
        made["checksum"] = encode(crc64nvme(bytes(body)))
    gap = {"start": start, "end": end, "reason": "not in the bucket"}
    manifest["gaps"] += [{**gap, "track": name} for name in chunk["tracks"]]
    recorded.change(**{**manifest, "state": "completed_with_gaps"})
    recorded.path(f"chunks/{number:06d}.wav").unlink(missing_ok=True)


@pytest.mark.parametrize("keep_chunks", [False, True])
@pytest.mark.parametrize("number", [1, 3, 6])
async def test_a_lost_chunk_is_silence_and_a_gap(
    record: Record, keep_chunks: bool, number: int
) -> None:
    recorded = await record(keep_chunks=keep_chunks, outputs="stereo,tracks")
    await lose(recorded, number)
    report = await recorded.verify()
    assert report.findings == ()
    assert all(one.rendered == keep_chunks for one in report.proofs if one.kind == "output")
    recorded.change(gaps=recorded.manifest()["gaps"][:0], state="completed")
    [finding] = await recorded.found()
    assert finding.startswith(f"manifest.json: chunk {number}, lost: expected samples ")


async def test_sound_where_a_chunk_is_lost_is_found(record: Record) -> None:
    recorded = await record(outputs="mono")
    await lose(recorded, 3)
    body = bytearray(recorded.path("audio.wav").read_bytes())
    body[80 + 2 * 20_000] = 1
    await recorded.put("audio.wav", bytes(body))
    outputs = recorded.manifest()["outputs"]
    outputs[0]["checksum"] = encode(crc64nvme(bytes(body)))
    recorded.change(outputs=outputs)
    assert await recorded.found() == [
        "audio.wav: samples of lost chunks: expected silence, found sound at sample 20000"
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
