"""What `verify` finds of objects: each kind of damage, by itself, and what should not be there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from damaged import RATE, Record, attributes
from faulty_store import refusal

from recorder.verification import verify
from uploader.checksum import crc64nvme, encode
from uploader.errors import AccessDenied
from uploader.local import LocalStore
from uploader.store import MIN_PART_BYTES

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
