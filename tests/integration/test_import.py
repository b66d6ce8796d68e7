"""Imports of what providers make: every sample of it, in its place, on every store."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vcon_schema
from provider_files import (
    ALICE,
    BOB,
    START_MS,
    Pcm,
    egress,
    encode,
    lag,
    noise,
    raw_track,
    speech,
    write_wav,
)

from recorder import Settings
from recorder.catalog import Catalog
from recorder.containers.wav import parse_header
from recorder.embedded import EmbeddedS3
from recorder.imports import Imported, ImportRefused, ImportRequest, import_recording
from recorder.stores import make_store
from recorder.vcon import write_vcon
from recorder.verification import verify

SID = "RE0123456789abcdef0123456789abcdef"
WHEN = datetime(2026, 11, 23, 15, 44, 2, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(), spool_dir=tmp_path / "spool", chunk_seconds=1
    )


@pytest.fixture(params=["local", "moto", "seaweed"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> Settings:
    """Settings for each kind of store in turn."""
    prefix = f"import-{uuid.uuid4().hex}"
    if request.param == "local":
        return settings.replace(prefix=prefix)
    if request.param == "moto":
        url = request.getfixturevalue("moto_url")
        return settings.replace(bucket="calls", prefix=prefix, aws_endpoint_url_s3=url)
    server: EmbeddedS3 = request.getfixturevalue("seaweed")
    return settings.replace(
        bucket=server.bucket,
        prefix=prefix,
        aws_endpoint_url_s3=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


async def bring(settings: Settings, *sources: object, **options: Any) -> Imported:
    request = ImportRequest(sources=tuple(map(str, sources)), **options)
    return await import_recording(settings, request)


async def heard(settings: Settings, made: Imported) -> dict[str, Pcm]:
    """Return the samples of all outputs, of shape (samples, channels), once they are proved."""
    assert made.created
    assert made.result is not None
    assert made.result.state == "completed", made.result
    async with make_store(settings) as store:
        report = await verify(store, made.recording_id)
        assert report.ok, report.findings
        found = {}
        for output in made.result.outputs:
            body = await store.get(output.key)
            header = parse_header(body)
            pcm = np.frombuffer(body, "<i2", offset=header.data_offset)
            found[output.name] = pcm.reshape(-1, header.channels)
    assert not list(settings.spool_dir.glob("*"))
    return found


async def manifest(settings: Settings, recording_id: str) -> dict[str, Any]:
    async with make_store(settings) as store:
        found = await Catalog(store).find(recording_id)
    return dict(found.recording.manifest.values)


# -- Twilio ----------------------------------------------------------------------------------------


async def test_two_channels_come_out_sample_for_sample(tmp_path: Path, anywhere: Settings) -> None:
    pcm = noise(8000 * 3 + 123, 1, channels=2)
    path = write_wav(tmp_path / f"{SID}.wav", pcm, 8000)
    made = await bring(anywhere, path, started_at=WHEN, outputs=("stereo", "tracks"))
    found = await heard(anywhere, made)
    assert np.array_equal(found["stereo"], pcm)
    assert np.array_equal(found["user"][:, 0], pcm[:, 0])
    assert np.array_equal(found["bot"][:, 0], pcm[:, 1])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.recording_id == f"20261123T154402Z-{digest[:12]}"
    told = await manifest(anywhere, made.recording_id)
    assert (told["day"], told["sample_rate"]) == ("2026-11-23", 8000)
    assert told["started_at"].startswith("2026-11-23T15:44:02")
    imported = told["imported"]
    assert imported == made.imported
    assert (imported["provider"], imported["provider_id"]) == ("twilio", SID)
    [file] = imported["files"]
    assert (file["url"], file["bytes"]) == (path.as_uri(), path.stat().st_size)
    assert (file["sha256"], file["tracks"]) == (digest, ["user", "bot"])


async def test_an_mp3_is_as_long_and_sounds_the_same(tmp_path: Path, settings: Settings) -> None:
    pcm = np.hstack([speech(8000, 6, 1), speech(8000, 6, 2)])
    path = encode(tmp_path / f"{SID}.mp3", pcm, 8000, "-c:a", "libmp3lame", "-b:a", "64k")
    found = await heard(settings, await bring(settings, path, started_at=WHEN))
    assert len(found["stereo"]) == len(pcm)
    for channel in (0, 1):
        at, alike = lag(found["stereo"][:, channel], pcm[:, channel])
        assert at == 0
        assert alike > 0.99


# -- Daily -----------------------------------------------------------------------------------------


async def test_raw_tracks_are_on_one_timeline(tmp_path: Path, anywhere: Settings) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    alice, bob = speech(48_000, 5, 1), speech(48_000, 3, 2)
    raw_track(folder, ALICE, alice, 1.237)
    raw_track(folder, BOB, bob, 2.5, clock=False)  # its times begin at 0: the name places it
    raw_track(folder, BOB, bob, 0.1, media="cam-video")  # never opened
    made = await bring(anywhere, folder, outputs=("tracks",))
    found = await heard(anywhere, made)
    at, alike = lag(found["user"][:, 0], alice[:, 0])
    assert at == round(1.237 * 48_000)
    assert alike > 0.999
    at, alike = lag(found["user-2"][:, 0], bob[:, 0])
    assert at == round(2.513 * 48_000)
    assert alike > 0.999
    assert len(found["user"]) == len(found["user-2"]) == round(1.237 * 48_000) + len(alice)
    assert not found["user"][: round(1.237 * 48_000)].any()
    told = await manifest(anywhere, made.recording_id)
    assert told["started_at"].startswith("2023-11-14T22:13:20")
    assert (told["imported"]["provider"], told["imported"]["provider_id"]) == (
        "daily",
        str(START_MS),
    )
    tracks = [(one["name"], one["participant"], one["joined"]) for one in told["tracks"]]
    assert tracks == [("user", ALICE, 59_376), ("user-2", BOB, 120_624)]


async def test_a_muted_microphone_is_silence_and_what_follows_is_in_its_place(
    tmp_path: Path, settings: Settings
) -> None:
    """A track of which nothing was sent for 2 s: packets are missing in the file, not silent."""
    said = speech(48_000, 6, 1)
    name = f"{START_MS}-{ALICE}-cam-audio-{START_MS}"
    lost = "noise=drop='gte(pts*tb,2)*lt(pts*tb,4)'"
    words = ["-c:a", "libopus", "-b:a", "96k", "-bsf:a", lost, "-live", "1", "-f", "webm"]
    encode(tmp_path / name, said, 48_000, *words)
    made = await bring(settings, tmp_path / name)
    found = (await heard(settings, made))["mono"][:, 0]
    ms = 48  # samples: WebM has times of whole milliseconds
    assert abs(len(found) - len(said)) <= ms
    for start, end in ((0, 2), (4.1, 6)):  # a decoder that has lost packets takes 80 ms
        begin, until = round(start * 48_000), round(end * 48_000)
        at, alike = lag(found[begin - bool(begin) * ms :], said[begin:until, 0])
        assert abs(at - bool(begin) * ms) <= ms
        assert alike > 0.999
    assert not found[round(2.05 * 48_000) : round(3.95 * 48_000)].any()


async def test_who_comes_back_goes_on_in_the_same_track(tmp_path: Path, settings: Settings) -> None:
    first, second = speech(48_000, 1.5, 1), speech(48_000, 1, 2)
    raw_track(tmp_path, ALICE, first, 0)
    raw_track(tmp_path, ALICE, second, 2.2)
    made = await bring(settings, *tmp_path.glob("17*"), names={ALICE: "ann"}, outputs=("tracks",))
    found = await heard(settings, made)
    assert list(found) == ["ann"]
    assert lag(found["ann"][:, 0], first[:, 0])[0] == round(0.013 * 48_000)  # as its name says
    assert lag(found["ann"][:, 0], second[:, 0])[0] == round(2.2 * 48_000)


async def test_a_cloud_recording_tells_when_it_began(tmp_path: Path, settings: Settings) -> None:
    pcm = np.hstack([speech(48_000, 3, 1), speech(48_000, 3, 2)])
    path = encode(tmp_path / f"{START_MS}.mp4", pcm, 48_000, "-c:a", "aac", "-b:a", "128k")
    made = await bring(settings, path)
    found = await heard(settings, made)
    assert made.recording_id.startswith("20231114T221320Z-")
    assert abs(len(found["stereo"]) - len(pcm)) <= 1024  # AAC's frames are of 1024 samples
    at, alike = lag(found["stereo"][:, 0], pcm[:, 0])
    assert at == 0
    assert alike > 0.99


# -- LiveKit ---------------------------------------------------------------------------------------


async def test_an_egress_is_found_by_its_manifest(tmp_path: Path, settings: Settings) -> None:
    pcm = speech(48_000, 3, 1)
    media = encode(tmp_path / "room.ogg", pcm, 48_000, "-c:a", "libopus", "-b:a", "96k")
    made = await bring(settings, egress(tmp_path, media, START_MS / 1000 + 0.5))
    found = await heard(settings, made)
    assert lag(found["mono"][:, 0], pcm[:, 0]) == (0, pytest.approx(1, abs=0.01))
    assert len(found["mono"]) == len(pcm)
    told = await manifest(settings, made.recording_id)
    assert told["started_at"].startswith("2023-11-14T22:13:20.5")
    assert told["imported"]["provider_id"] == "EG_room"


async def test_track_egresses_of_a_room_are_one_recording(
    tmp_path: Path, settings: Settings
) -> None:
    user, agent = speech(48_000, 3, 1), speech(48_000, 2, 2)
    began = START_MS / 1000
    manifests = [
        egress(
            tmp_path,
            encode(tmp_path / f"{name}.ogg", pcm, 48_000, "-c:a", "libopus", "-b:a", "96k"),
            began + after,
            publisher_identity=who,
            track_kind="AUDIO",
            track_source="MICROPHONE",
        )
        for name, pcm, after, who in (
            ("a", agent, 0.75, "agent-AJ_1"),
            ("u", user, 0, "+491700000"),
        )
    ]
    made = await bring(settings, *manifests, outputs=("stereo",))
    found = (await heard(settings, made))["stereo"]
    assert lag(found[:, 0], user[:, 0])[0] == 0
    assert lag(found[:, 1], agent[:, 0])[0] == 36_000
    told = await manifest(settings, made.recording_id)
    assert [(one["name"], one["participant"]) for one in told["tracks"]] == [
        ("user", "+491700000"),
        ("bot", "agent-AJ_1"),
    ]


# -- any file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.wav", ["-c:a", "pcm_s16le"]),
        ("a.flac", ["-c:a", "flac"]),
        ("a.aiff", ["-c:a", "pcm_s16be"]),
        ("b.wav", ["-c:a", "pcm_s24le"]),
        ("c.wav", ["-c:a", "pcm_f32le"]),
        ("a.mka", ["-c:a", "pcm_s16le"]),
    ],
)
async def test_what_is_lossless_comes_out_sample_for_sample(
    tmp_path: Path, settings: Settings, name: str, words: list[str]
) -> None:
    pcm = noise(44_100 + 77, 4, channels=2)
    pcm[:2] = 32_767, -32_768
    path = encode(tmp_path / name, pcm, 44_100, *words)
    found = await heard(settings, await bring(settings, path))
    assert np.array_equal(found["stereo"], pcm)  # left and right, as they were


async def test_files_without_a_provider_are_placed_and_named_as_told(
    tmp_path: Path, settings: Settings
) -> None:
    one, other = noise(16_000 * 2, 1), noise(16_000 * 2 + 9, 2)
    made = await bring(
        settings,
        write_wav(tmp_path / "one.wav", one, 16_000),
        write_wav(tmp_path / "other.wav", other, 16_000),
        tracks=("ann", "bot"),
        offsets=(0.0, 1.5),
        outputs=("tracks", "stereo"),
        metadata={"case": "7"},
    )
    found = await heard(settings, made)
    assert np.array_equal(found["ann"][: len(one)], one)
    assert np.array_equal(found["bot"][24_000:], other)
    assert not found["bot"][:24_000].any()
    assert len(found["ann"]) == len(found["bot"]) == 24_000 + len(other)
    assert np.array_equal(found["stereo"], np.hstack([found["ann"], found["bot"]]))
    assert (await manifest(settings, made.recording_id))["metadata"] == {"case": "7"}


async def test_turns_are_found_by_their_level(tmp_path: Path, settings: Settings) -> None:
    pcm = np.zeros((8000 * 6, 2), np.int16)
    pcm[8000:16_000, 0] = noise(8000, 1)[:, 0]
    pcm[24_000:36_000, 1] = noise(12_000, 2)[:, 0]
    path = write_wav(tmp_path / f"{SID}.wav", pcm, 8000)
    made = await bring(settings, path, started_at=WHEN, outputs=("stereo", "turns"))
    found = await heard(settings, made)
    turns = (await manifest(settings, made.recording_id))["turns"]
    assert [(one["track"], one["start"], one["end"]) for one in turns] == [
        ("user", 8000, 16_000),
        ("bot", 24_000, 36_000),
    ]
    assert np.array_equal(found["turns/0002-bot"][:, 0], pcm[24_000:36_000, 1])


async def test_another_rate_is_resampled_to(tmp_path: Path, settings: Settings) -> None:
    pcm = speech(8000, 3, 1)
    path = write_wav(tmp_path / "a.wav", pcm, 8000)
    found = (await heard(settings, await bring(settings, path, sample_rate=16_000)))["mono"]
    assert len(found) == 2 * len(pcm)
    at, alike = lag(found[::2, 0], pcm[:, 0])
    assert at == 0
    assert alike > 0.99


async def test_from_a_bucket_it_is_read_in_pieces_and_its_etag_is_kept(
    tmp_path: Path, settings: Settings, seaweed: EmbeddedS3
) -> None:
    """The source is in a bucket, the recording goes into a folder; more than one piece of 8 MiB."""
    there = settings.replace(
        bucket=seaweed.bucket,
        aws_endpoint_url_s3=seaweed.endpoint_url,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
    )
    folder = f"twilio-{uuid.uuid4().hex}"
    pcm = noise(48_000 * 50, 5, channels=2)
    body = write_wav(tmp_path / "a.wav", pcm, 48_000).read_bytes()
    async with make_store(there) as store:
        info = await store.put(f"{folder}/{SID}", body)
    here = there.replace(bucket=settings.bucket, chunk_seconds=30)
    made = await bring(here, f"s3://{seaweed.bucket}/{folder}/{SID}", started_at=WHEN)
    found = await heard(here, made)
    assert np.array_equal(found["stereo"], pcm)
    [file] = made.imported["files"]
    assert file["url"] == f"s3://{seaweed.bucket}/{folder}/{SID}"
    assert (file["etag"], file["bytes"]) == (info.etag, len(body))
    assert file["sha256"] == hashlib.sha256(body).hexdigest()
    again = await bring(here, f"s3://{seaweed.bucket}/{folder}/*", started_at=WHEN)
    assert (again.created, again.recording_id) == (False, made.recording_id)
    with pytest.raises(ImportRefused, match="there is no object s3://"):
        await bring(here, f"s3://{seaweed.bucket}/{folder}/other")
    with pytest.raises(ImportRefused, match="there are no objects s3://"):
        await bring(here, f"s3://{seaweed.bucket}/{folder}/other/*")


async def test_an_import_makes_a_vcon_that_tells_the_provider(
    tmp_path: Path, settings: Settings
) -> None:
    path = write_wav(tmp_path / f"{SID}.wav", noise(8000, 1, channels=2), 8000)
    made = await bring(settings, path, started_at=WHEN)
    async with make_store(settings) as store:
        written = await write_vcon(store, made.recording_id, base_url="https://calls.example.org")
        assert (await verify(store, made.recording_id)).ok
    vcon_schema.check(written.document)
    [dialog] = written.document["dialog"]
    assert (dialog["parties"], dialog["application"]) == ([0, 1], "twilio")
    assert dialog["start"] == "2026-11-23T15:44:02.000Z"
