"""Whole recordings in each format, on a local directory, and on a real S3 server."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import Samples, by_ffmpeg, by_libsndfile, decibels, dialogue

from recorder import Recorder, RecordingResult, Settings, State, VirtualClock
from recorder.assemble import assemble
from recorder.at_rest import NoAudio
from recorder.containers.flac import FLAC
from recorder.embedded import EmbeddedS3
from recorder.export import export
from recorder.stores import make_store
from recorder.verification import verify
from uploader.checksum import crc64nvme, encode
from uploader.store import ObjectInfo

RATE, FRAME = 24_000, 480
MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg; codecs=opus"}
Make = Callable[..., Settings]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Settings for a store of the test's own: a local directory, or a real S3 server."""
    where: dict[str, Any] = {"bucket": (tmp_path / "bucket").as_uri()}
    if getattr(request, "param", "local") == "seaweed":
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
            **{**where, "spool_dir": tmp_path / "spool", "chunk_seconds": 2.0, **changes}
        )

    return settings


def talk() -> Samples:
    """What the user (left) and the bot (right) say: real speech, whole frames of it."""
    said, rate = dialogue()
    assert rate == RATE
    return said[: len(said) // FRAME * FRAME]


async def record(settings: Settings, said: Samples) -> RecordingResult:
    """Play both voices as a live call, with a turn of each."""
    clock = VirtualClock()
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start("call")
        for index in range(len(said) // FRAME):
            clock.advance_to(call.zero + (index + 1) / 50)
            frame = said[index * FRAME : (index + 1) * FRAME]
            call.write("user", frame[:, 0].tobytes(), RATE)
            call.write("bot", frame[:, 1].tobytes(), RATE)
            if index == 10:
                call.start_turn("bot", at=call.zero + 0.1)
            if index == 150:
                call.end_turn("bot", at=call.zero + 2.5)
            if index % 100 == 99:
                await call.flush()
        return await call.stop()


async def objects(settings: Settings) -> dict[str, tuple[bytes, ObjectInfo]]:
    """What the recording's folder has, by name below it."""
    async with make_store(settings) as store:
        keys = [info.key async for info in store.list_objects("dt=")]
        found = {key: (await store.get(key), await store.head(key)) for key in keys}
    return {key.split("/", 2)[2]: value for key, value in found.items()}


def wanted(said: Samples) -> dict[str, Samples]:
    """What each output must hold, by name."""
    user, bot = said[:, :1], said[:, 1:]
    mixed = np.clip(user.astype(int) + bot, -32768, 32767).astype(np.int16)
    clip = bot[round(0.1 * RATE) : round(2.5 * RATE)]
    return {"audio": said, "mono": mixed, "user": user, "bot": bot, "turns/0001-bot": clip}


@pytest.mark.parametrize("make", ["local", "seaweed"], indirect=True)
@pytest.mark.parametrize("form", ["wav", "flac", "opus"])
async def test_every_layout_in_every_format(make: Make, form: str) -> None:
    settings = make(format=form, outputs="stereo,mono,tracks,turns", keep_chunks=True)
    said = talk()
    result = await record(settings, said)
    assert result.state is State.COMPLETED, result
    assert {output.duration_seconds for output in result.outputs[:4]} == {len(said) / RATE}
    stored = await objects(settings)
    for name, samples in wanted(said).items():
        body, info = stored[f"{name}.{form}"]
        assert info.content_type == MEDIA_TYPES[form]
        found, rate = by_libsndfile(body)
        assert (rate, found.shape) == (RATE, samples.shape), name
        other = by_ffmpeg(body, samples.shape[1])
        if form == "opus":
            assert len(other) == 2 * len(samples)  # decoded at 48 kHz
            assert decibels(samples, found) > 10, name
        else:
            np.testing.assert_array_equal(found, samples)
            np.testing.assert_array_equal(other, samples)
    chunks = [info.content_type for name, (_, info) in stored.items() if "chunks/" in name]
    assert set(chunks) == {"audio/wav"}, "chunks are as they were recorded"
    assert not list(settings.spool_dir.iterdir())
    async with make_store(settings) as store:
        report = await verify(store, "call")
        assert not [one async for one in store.list_uploads()]
    assert report.ok, report.findings
    proofs = {proof.key.split("/", 2)[2]: proof for proof in report.proofs}
    assert len(proofs) == 5 + result.chunks + 1  # the waveform
    assert all(proof.compared for proof in proofs.values())
    assert proofs[f"audio.{form}"].rendered is (form != "opus")


async def test_the_sizes_are_worth_it(make: Make) -> None:
    """The bytes of a call of real speech, in each format."""
    sizes = {}
    for form in ("wav", "flac", "opus"):
        settings = make(format=form, prefix=form)
        await record(settings, talk())
        sizes[form] = len((await objects(settings))[f"audio.{form}"][0])
    assert sizes["flac"] < sizes["wav"] / 2
    assert sizes["opus"] < sizes["wav"] / 15


@pytest.mark.parametrize(("form", "media_type"), [("flac", "audio/flac"), ("opus", "audio/ogg")])
async def test_a_vcon_tells_what_kind_of_file_it_refers_to(
    make: Make, form: str, media_type: str
) -> None:
    settings = make(format=form, vcon=True, web_url="https://calls.example.org")
    await record(settings, talk())
    stored = await objects(settings)
    [dialog] = [
        one for one in json.loads(stored["vcon.json"][0])["dialog"] if one["type"] == "recording"
    ]
    assert dialog["mediatype"] == media_type
    assert dialog["url"].endswith(f"/audio.{form}")
    digest = hashlib.sha512(stored[f"audio.{form}"][0]).digest()
    told = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert dialog["content_hash"] == f"sha512-{told}"


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_outputs_that_are_assembled_later_have_the_recordings_format(
    make: Make, form: str
) -> None:
    settings = make(format=form, keep_chunks=True)
    said = talk()
    await record(settings, said)
    async with make_store(settings) as store:
        await assemble(store, "call", ["mono", "tracks", "turns"])
        report = await verify(store, "call")
    assert report.ok, report.findings
    stored = await objects(settings)
    for name, samples in wanted(said).items():
        found, _ = by_libsndfile(stored[f"{name}.{form}"][0])
        assert found.shape == samples.shape
        if form == "flac":
            np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("outputs", ["stereo", "tracks"])
async def test_flac_outputs_serve_for_exports_without_chunks(make: Make, outputs: str) -> None:
    settings = make(format="flac", outputs=outputs)
    said, file = talk(), io.BytesIO()
    await record(settings, said)
    async with make_store(settings) as store:
        await export(store, "call", format="wav", start=30_000, end=150_000, output=file)
    found, rate = by_libsndfile(file.getvalue())
    assert rate == RATE
    np.testing.assert_array_equal(found, said[30_000:150_000])


async def test_a_flac_output_that_was_changed_is_not_exported(make: Make, tmp_path: Path) -> None:
    settings = make(format="flac")
    await record(settings, talk())
    [path] = (tmp_path / "bucket").glob("dt=*/call/audio.flac")
    body = bytearray(path.read_bytes())
    body[-5_000] ^= 1
    path.write_bytes(body)
    async with make_store(settings) as store:
        with pytest.raises(NoAudio, match="cannot be decoded, so it is damaged"):
            await export(store, "call", format="wav", output=io.BytesIO())


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_a_call_of_nothing_is_complete_too(make: Make, form: str) -> None:
    settings = make(format=form)
    async with Recorder(settings, clock=VirtualClock()) as recorder:
        call = await recorder.start("call")
        result = await call.stop()
    assert (result.state, result.samples) == (State.COMPLETED, 0)
    body, _ = (await objects(settings))[f"audio.{form}"]
    assert len(by_ffmpeg(body, 2)) <= 2
    async with make_store(settings) as store:
        report = await verify(store, "call")
    assert report.ok, report.findings


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
async def test_opus_of_a_rate_it_cannot_take_is_resampled(make: Make, rate: int) -> None:
    settings = make(format="opus", sample_rate=rate)
    said = talk()
    result = await record(settings, said)
    body, info = (await objects(settings))["audio.opus"]
    found, coded = by_libsndfile(body)
    assert coded == {8_000: 8_000, 11_025: 12_000, 44_100: 48_000}[rate]
    assert abs(len(found) / coded - result.samples / rate) <= 0.5 / coded
    assert info.metadata["recorder-sample-rate"] == str(rate)
    async with make_store(settings) as store:
        report = await verify(store, "call")
    assert report.ok, report.findings


@pytest.mark.parametrize("form", ["flac", "opus"])
@pytest.mark.parametrize("place", [3, 200, 0.5, -100])
async def test_a_damaged_object_is_found(tmp_path: Path, form: str, place: float) -> None:
    settings = Settings(
        bucket=(tmp_path / "bucket").as_uri(), spool_dir=tmp_path / "spool", format=form
    )
    await record(settings, talk())
    [path] = (tmp_path / "bucket").glob(f"dt=*/call/audio.{form}")
    body = bytearray(path.read_bytes())
    body[int(place * len(body)) if isinstance(place, float) else place] ^= 0x20
    path.write_bytes(body)
    async with make_store(settings) as store:
        report = await verify(store, "call")
    assert not report.ok
    assert {finding.check for finding in report.findings} >= {"checksum"}


@pytest.mark.parametrize("forged", ["samples", "decoded"])
async def test_an_object_that_a_manifest_was_forged_for_is_found(
    tmp_path: Path, forged: str
) -> None:
    """Size and checksum are those of the manifest: chunks, or the file's own MD5, tell."""
    settings = Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        format="flac",
        keep_chunks=True,
    )
    said = talk()
    await record(settings, said)
    [path] = (tmp_path / "bucket").glob("dt=*/call/audio.flac")
    body = bytearray(path.read_bytes())
    if forged == "samples":
        other = said.copy()
        other[100_000, 1] += 1
        encoder = FLAC.encoder(RATE, 2, 0)
        body, ending = bytearray(encoder.write(other)), encoder.close()
        body[len(body) :] = ending.data
        body[: len(ending.head)] = ending.head
    else:
        body[30] ^= 1  # within the MD5
    path.write_bytes(body)
    document = json.loads((path.parent / "manifest.json").read_text())
    document["outputs"][0] |= {"bytes": len(body), "checksum": encode(crc64nvme(bytes(body)))}
    (path.parent / "manifest.json").write_text(json.dumps(document))
    async with make_store(settings) as store:
        report = await verify(store, "call")
    checks = {finding.check: finding.found for finding in report.findings}
    assert forged in checks
    if forged == "samples":
        assert "from sample 100000 " in checks["samples"]
