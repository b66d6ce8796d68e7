"""Compressed outputs that are damaged, or cannot be read: one clear error, and nothing is made."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from faulty_store import FaultyStore, refusal, reset
from stored import LENGTH, change_manifest, files, left_over, local, path_of, record, rewrite

from recorder import object_file
from recorder.export import NoAudio, export
from recorder.peaks import write_peaks
from uploader.checksum import crc64nvme, encode
from uploader.errors import AccessDenied, BotRecorderError


def damage(folder: Path, form: str, how: str) -> None:
    """Change an output's bytes, and nothing of what is told of it."""
    path = path_of(folder, f"audio.{form}")
    body = bytearray(path.read_bytes())
    if how == "middle":
        body[len(body) // 2] ^= 0x10
    elif how == "zeros":
        body[len(body) // 2 : len(body) // 2 + 3000] = bytes(3000)
    elif how == "end":
        body[-3] ^= 0x10
    elif how == "beginning":
        body[1] ^= 0x10
    elif how == "length":  # of FLAC, in STREAMINFO: one sample more (RFC 9639, section 8.2)
        body[25] ^= 0x01
    elif how == "truncated":
        del body[len(body) * 2 // 3 :]
    rewrite(path, body)


def nothing_left(folder: Path) -> bool:
    decoders = [one.name for one in threading.enumerate() if one.name.startswith("decode")]
    return not (left_over(folder) or decoders)


@pytest.mark.parametrize(
    ("form", "how", "says"),
    [
        ("flac", "middle", r"audio\.flac cannot be decoded, so it is damaged \(libsnd"),
        ("flac", "zeros", r"audio\.flac cannot be decoded, so it is damaged \(libsnd"),
        ("flac", "end", r"audio\.flac (cannot be decoded|has other bytes)"),
        ("flac", "beginning", r"audio\.flac cannot be decoded, so it is damaged \(libsnd"),
        ("flac", "length", r"audio\.flac does not begin as it was recorded: 127201 samples of 2"),
        ("flac", "truncated", r"whole \(there is none; audio\.flac has \d+ bytes, and \d+ by the"),
        ("opus", "middle", r"audio\.opus (cannot be decoded: it ends at|has other bytes)"),
        ("opus", "zeros", r"audio\.opus (cannot be decoded: it ends at|has other bytes)"),
        ("opus", "end", r"audio\.opus does not begin as it was recorded"),
        ("opus", "beginning", r"audio\.opus cannot be decoded, so it is damaged \(libsnd"),
        ("opus", "truncated", r"whole \(there is none; audio\.opus has \d+ bytes, and \d+ by the"),
    ],
)
async def test_what_is_damaged_becomes_nothing(
    tmp_path: Path, form: str, how: str, says: str
) -> None:
    await record(tmp_path, format=form)
    damage(tmp_path, form, how)
    before, path = files(tmp_path), tmp_path / "out"
    async with local(tmp_path) as store:
        for output in (None, path):
            for name in ("wav", "mp3"):
                with pytest.raises(NoAudio, match=says):
                    await export(store, "call", format=name, output=output)  # type: ignore[arg-type] # of a tuple, not of literals
        with pytest.raises(NoAudio, match=says):
            await write_peaks(store, "call", overwrite=True)
    assert files(tmp_path) == before
    assert not path.exists()
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_what_is_damaged_inside_a_range_is_found(tmp_path: Path, form: str) -> None:
    """Opus is proved as a whole, since a page that is damaged is passed over without a word."""
    await record(tmp_path, format=form)
    damage(tmp_path, form, "middle")
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(NoAudio, match=f"{form} (cannot be decoded|has other bytes)"):
            await export(store, "call", format="wav", start=LENGTH // 10, end=LENGTH * 3 // 4)
    assert files(tmp_path) == before


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_other_audio_than_was_recorded_is_found(tmp_path: Path, form: str) -> None:
    """A file that is in order, and is not that of which the manifest has the checksum."""
    await record(tmp_path, format=form)
    other = encode(crc64nvme(b"other"))

    def change(document: dict[str, Any]) -> dict[str, Any]:
        [output] = document["outputs"]
        return {**document, "outputs": [{**output, "checksum": other}]}

    change_manifest(tmp_path, change)
    before = files(tmp_path)
    async with local(tmp_path) as store:
        with pytest.raises(NoAudio, match=f"{form} has other bytes than were recorded"):
            await export(store, "call", format="wav")
    assert files(tmp_path) == before


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_what_gets_shorter_on_the_way_becomes_nothing(tmp_path: Path, form: str) -> None:
    await record(tmp_path, format=form)
    before = files(tmp_path)

    class Shrinking(FaultyStore):
        async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
            return (await super().get(key, start=start, end=end))[:-1]

    async with Shrinking(local(tmp_path)) as store:
        with pytest.raises(BotRecorderError, match=rf"audio\.{form} is cut off: it ends before"):
            await export(store, "call", format="wav")
    assert files(tmp_path) == before


@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_what_the_store_says_is_what_is_told(
    tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not that a decoder ran out of bytes, and nothing from inside of one."""
    await record(tmp_path, format=form)
    before, store = files(tmp_path), FaultyStore(local(tmp_path))
    async with store:
        store.refuse("get", refusal(AccessDenied, "get"))
        with pytest.raises(AccessDenied):
            await export(store, "call", format="wav")
    assert files(tmp_path) == before
    assert nothing_left(tmp_path)
    assert not re.search("Traceback|callback", capfd.readouterr().err)


async def test_a_moment_without_the_store_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_file, "BLOCK_BYTES", 20_000)
    await record(tmp_path, format="flac")
    store = FaultyStore(local(tmp_path))
    async with store:
        store.fail("get", reset("get"), times=2)
        done = await export(store, "call", format="wav")
    assert done.samples == LENGTH


@pytest.mark.parametrize("layout", ["stereo", "mono"])
@pytest.mark.parametrize("form", ["flac", "opus"])
async def test_a_cancelled_export_leaves_nothing_and_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, layout: Any
) -> None:
    monkeypatch.setattr(object_file, "BLOCK_BYTES", 9_000)
    await record(tmp_path, format=form)
    before, path = files(tmp_path), tmp_path / "out"
    reached, store = asyncio.Event(), FaultyStore(local(tmp_path))

    async def hang(op: str, key: str, done: bool) -> None:
        if op == "get" and store.calls["get"] > 2:
            reached.set()
            await asyncio.Event().wait()

    async with store:
        store.hook = hang
        task = asyncio.ensure_future(
            export(store, "call", format="wav", layout=layout, output=path)
        )
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert files(tmp_path) == before
    assert not path.exists()
    assert nothing_left(tmp_path)


async def test_more_decoders_than_the_loop_has_threads_do_not_wait_for_each_other(
    tmp_path: Path,
) -> None:
    """The local store reads on threads of the loop's, of which decoders must take none."""
    await record(tmp_path, format="flac")
    many = 2 * (min(32, (os.cpu_count() or 1) + 4))
    async with local(tmp_path) as store:
        made = await asyncio.gather(
            *(
                export(store, "call", format="wav", output=tmp_path / f"{number}.wav")
                for number in range(many)
            )
        )
    assert {one.samples for one in made} == {LENGTH}
