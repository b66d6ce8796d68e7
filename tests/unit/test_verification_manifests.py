"""What `verify` finds in manifests: contradictions, what is not final, and chunks that are lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from damaged import Record, Recorded

from uploader.checksum import crc64nvme, encode


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
