"""The local store against deaths of the process, a full disk, other processes, and people."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from uploader import local_disk, local_files
from uploader.checksum import crc64nvme
from uploader.errors import (
    AccessDenied,
    InvalidPart,
    InvalidRequest,
    NoSuchBucket,
    NoSuchObject,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from uploader.local import LocalStore
from uploader.store import MIN_PART_BYTES, ObjectAttributes

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
KEY = "dt=1/call/audio.wav"
WAV = ObjectAttributes(
    content_type="audio/wav",
    content_disposition="inline",
    metadata={"recorder-recording-id": "call-1"},
    tags={"team": "voice"},
)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    async with LocalStore(tmp_path / "root") as opened:
        yield opened


async def keys(store: LocalStore) -> list[str]:
    return [info.key async for info in store.list_objects()]


def leftovers(store: LocalStore) -> list[Path]:
    return list((store.root / ".store" / "tmp").iterdir())


# -- a process that dies


def deaths(folder: Path, operation: str) -> list[dict[str, Any]]:
    """Return what was found after each death; the last is of a process that did not die."""
    done = subprocess.run(
        [sys.executable, HERE / "dying_disk.py", folder, operation],
        cwd=PROJECT,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["died"] for one in found] == [True] * (len(found) - 1) + [False]
    assert len(found) > 4
    for one in found:
        assert one["fits"], "a checksum of other bytes"
        assert one["keys"] in ([], [KEY])
        assert (one["keys"] == []) == (one["data"] == "")
    return found


def seen(found: list[dict[str, Any]], *fields: str) -> set[tuple[Any, ...]]:
    return {tuple(str(one[name]) for name in fields) for one in found}


@pytest.mark.parametrize("operation", ["create", "create if absent"])
def test_a_death_while_creating(tmp_path: Path, operation: str) -> None:
    found = deaths(tmp_path, operation)
    assert seen(found, "data", "attributes") == {("", "None"), ("new bytes", "new")}
    assert seen([one["again"] for one in found], "data") == {("new bytes",)}


@pytest.mark.parametrize("operation", ["replace", "replace in one tick"])
def test_a_death_while_replacing(tmp_path: Path, operation: str) -> None:
    found = deaths(tmp_path, operation)
    assert seen(found, "data", "attributes") == {("old bytes", "old"), ("new bytes", "new")}
    assert seen([one["again"] for one in found], "data", "attributes") == {("new bytes", "new")}


def test_a_death_while_deleting(tmp_path: Path) -> None:
    found = deaths(tmp_path, "delete")
    assert seen(found, "data", "attributes") == {("old bytes", "old"), ("", "None")}
    assert seen([one["again"] for one in found], "data") == {("",)}


def test_a_death_while_sending_a_part_again(tmp_path: Path) -> None:
    found = deaths(tmp_path, "resend")
    before, after = [[1, MIN_PART_BYTES], [2, 4]], [[1, MIN_PART_BYTES], [2, 5]]
    assert seen(found, "parts") == {(str(before),), (str(after),)}
    assert seen([one["again"] for one in found], "parts") == {(str(after),)}


def test_a_death_while_completing(tmp_path: Path) -> None:
    found = deaths(tmp_path, "complete")
    upload, parts = str([KEY]), str([[1, MIN_PART_BYTES], [2, 4]])
    assert seen(found, "data", "attributes", "uploads", "parts") == {
        ("", "None", upload, parts),  # before: all is there to do it once more
        ("joined", "new", upload, parts),
        ("joined", "new", "[]", "None"),
    }
    assert seen([one["again"] for one in found], "data", "attributes") == {("joined", "new")}


def test_a_death_while_beginning_or_aborting(tmp_path: Path) -> None:
    for operation in ("begin", "abort"):
        (tmp_path / operation).mkdir()
        found = deaths(tmp_path / operation, operation)
        assert seen(found, "data", "uploads") == {("", "[]"), ("", str([KEY]))}


async def test_what_a_dead_process_left_is_removed_in_time(store: LocalStore) -> None:
    await store.put(KEY, b"bytes")
    old, fresh = (store.root / ".store" / "tmp" / name for name in ("1-old", "2-fresh"))
    for path in (old, fresh):
        path.mkdir()
        (path / "part").write_bytes(b"half a part")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    async with LocalStore(store.root):
        pass
    assert leftovers(store) == [fresh]
    assert await keys(store) == [KEY]


# -- other processes


COUNTER = """
import asyncio, sys
from pathlib import Path
from uploader.errors import PreconditionFailed
from uploader.local import LocalStore

async def main():
    async with LocalStore(Path(sys.argv[1])) as store:
        for _ in range(25):
            while True:
                data, info = await store.read("counter")
                try:
                    await store.put("counter", b"%d" % (int(data) + 1), if_match=info.etag)
                    break
                except PreconditionFailed:
                    pass

asyncio.run(main())
"""


async def test_processes_that_write_the_same_object(store: LocalStore) -> None:
    await store.put("counter", b"0")
    others = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNTER, str(store.root), env={"PYTHONPATH": str(PROJECT)}
        )
        for _ in range(3)
    ]
    assert [await other.wait() for other in others] == [0, 0, 0]
    assert await store.get("counter") == b"75"
    assert leftovers(store) == []


# -- a disk that is full, or that refuses


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, TransientError),
        (errno.EDQUOT, TransientError),
        (errno.EIO, TransientError),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
    ],
)
async def test_a_write_that_fails(
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[StoreError],
) -> None:
    await store.put(KEY, b"old", WAV)
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, b"part")

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    operations = [
        lambda: store.put(KEY, b"new"),
        lambda: store.upload_part(KEY, upload, 2, b"part"),
        lambda: store.create_multipart("other"),
        lambda: store.complete_multipart(KEY, upload, [part]),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        patch.setattr(os, "copy_file_range", fail)
        for operation in operations:
            with pytest.raises(expected) as raised:
                await operation()
            assert raised.value.code == errno.errorcode[number]
            if number in (errno.ENOSPC, errno.EDQUOT):
                assert "the disk is full" in raised.value.hint
            assert leftovers(store) == []
    data, info = await store.read(KEY)
    assert (data, info.metadata) == (b"old", dict(WAV.metadata))
    assert await store.list_parts(KEY, upload) == [part]


async def test_a_write_is_done_in_as_many_steps_as_it_takes(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    await store.put(KEY, bytes(range(100)), checksum=crc64nvme(bytes(range(100))))
    assert await store.get(KEY) == bytes(range(100))


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, None])
async def test_a_system_that_cannot_copy_by_itself(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    if number is None:
        monkeypatch.delattr(os, "copy_file_range")
    else:

        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "copy_file_range", fail)
    upload = await store.create_multipart(KEY)
    first = os.urandom(MIN_PART_BYTES)
    parts = [
        await store.upload_part(KEY, upload, 1, first),
        await store.upload_part(KEY, upload, 2, b"tail"),
    ]
    await store.complete_multipart(KEY, upload, parts)
    assert await store.get(KEY) == first + b"tail"


async def test_a_filesystem_without_hard_links(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", fail)
    await store.put(KEY, b"first", if_absent=True)
    with pytest.raises(PreconditionFailed):
        await store.put(KEY, b"second", if_absent=True)
    assert await store.get(KEY) == b"first"
    assert leftovers(store) == []


async def test_all_is_synced_before_it_is_shown(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace, real_link = os.fsync, Path.replace, os.link

    def name(fd: int) -> str:
        path = Path(f"/proc/self/fd/{fd}").readlink().relative_to(store.root)
        kind = "folder" if (store.root / path).is_dir() else "file"
        return f"sync {kind} {'data' if kind == 'file' else path}"

    def fsync(fd: int) -> None:
        steps.append(name(fd))
        real_fsync(fd)

    def replace(self: Path, target: Path) -> Path:
        steps.append("show" if target == store.root / "a" / "object" else "keep")
        return real_replace(self, target)

    def link(source: Path, target: Path) -> None:
        steps.append("show")
        real_link(source, target)

    await store.put("b/object", b"")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "replace", replace)
    for condition in (True, False):
        steps.clear()
        await store.put("a/object", b"bytes", if_absent=condition)
        assert steps[0] == "sync file data"
        kept, shown = steps.index("keep"), steps.index("show")
        assert steps[kept - 1] == "sync file data"
        assert kept < shown
        assert steps[shown + 1 :] == ["sync folder a"]
        if condition:
            assert "sync folder ." in steps[:shown], "of the new folder's name"


# -- a cancel waits for the thread


async def test_a_cancel_waits_for_the_write(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = local_files.write_file

    def slow(path: Path, *buffers: Any) -> None:
        begun.set()
        assert go_on.wait(10)
        real(path, *buffers)

    monkeypatch.setattr(local_disk, "write_file", slow)
    body = bytearray(b"bytes")
    task = asyncio.create_task(store.put(KEY, body))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):  # and is not hurried by being cancelled again
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    body[:] = b"other"  # the buffer is the caller's again
    assert await store.get(KEY) == b"bytes"


async def test_a_cancelled_call_that_fails_makes_no_noise(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        assert go_on.wait(10)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(local_disk, "write_file", slow)
    task = asyncio.create_task(store.put(KEY, b"bytes"))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- people


async def test_an_object_is_a_file_and_its_url_leads_there(store: LocalStore) -> None:
    await store.put("a b/call.wav", b"RIFF", WAV)
    path = store.root / "a b" / "call.wav"
    assert path.read_bytes() == b"RIFF"
    assert store.url("a b/call.wav") == path.as_uri()
    assert (store.root.stat().st_mode & 0o777) == 0o700
    [kept] = (store.root / ".store" / "info").glob("*/*.json")
    version = json.loads(kept.read_text())["versions"][0]
    assert version["content_disposition"] == "inline"
    assert version["tags"] == {"team": "voice"}


async def test_a_file_that_somebody_put_there(store: LocalStore) -> None:
    (store.root / "folder").mkdir()
    (store.root / "folder" / "file.wav").write_bytes(b"RIFF")
    assert await keys(store) == ["folder/file.wav"]
    data, info = await store.read("folder/file.wav")
    assert (data, info.size, info.checksum) == (b"RIFF", 4, crc64nvme(b"RIFF"))
    with pytest.raises(PreconditionFailed):
        await store.put("folder/file.wav", b"", if_absent=True)
    await store.put("folder/file.wav", b"new", if_match=info.etag)
    await store.delete("folder/file.wav")
    assert not (store.root / "folder").exists()


async def test_an_empty_folder_is_none(store: LocalStore) -> None:
    (store.root / "empty" / "deeper").mkdir(parents=True)
    assert (await store.list_level()).folders == []


async def test_a_file_that_somebody_changed(store: LocalStore) -> None:
    before = await store.put(KEY, b"old", WAV)
    path = store.root / KEY
    path.write_bytes(b"new")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    info = await store.head(KEY)
    assert info.etag != before.etag
    assert info.checksum == crc64nvme(b"new")
    with pytest.raises(PreconditionFailed):
        await store.put(KEY, b"newer", if_match=before.etag)


async def test_versions_written_within_one_tick_of_the_clock(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File times are coarse: two versions of one length must be told apart all the same."""
    real = local_files.write_file

    def same_time(path: Path, *buffers: Any) -> None:
        real(path, *buffers)
        os.utime(path, ns=(10**18, 10**18))

    monkeypatch.setattr(local_disk, "write_file", same_time)
    for number in range(10):
        body = b"%d" % number
        await store.put(KEY, body, ObjectAttributes(metadata={"number": str(number)}))
        data, info = await store.read(KEY)
        assert (data, info.checksum) == (body, crc64nvme(body))
        assert info.metadata == {"number": str(number)}


async def test_a_store_that_was_copied_or_moved(store: LocalStore, tmp_path: Path) -> None:
    await store.put(KEY, b"RIFF", WAV)
    shutil.copytree(store.root, tmp_path / "copy")
    async with LocalStore(tmp_path / "copy") as copy:
        assert (await copy.head(KEY)).metadata == dict(WAV.metadata)


async def test_without_its_own_folder_the_files_are_there(store: LocalStore) -> None:
    await store.put(KEY, b"RIFF", WAV)
    upload = await store.create_multipart(KEY)
    shutil.rmtree(store.root / ".store")
    assert await store.get(KEY) == b"RIFF"
    with pytest.raises(NoSuchUpload):
        await store.upload_part(KEY, upload, 1, b"part")
    assert [one async for one in store.list_uploads()] == []
    await store.abort_multipart(KEY, upload)
    await store.put(KEY, b"new", WAV)
    assert (await store.head(KEY)).metadata == dict(WAV.metadata)
    shutil.rmtree(store.root / ".store")
    await store.delete(KEY)
    assert await keys(store) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"versions": [{}]}', b"\xff\xfe"])
async def test_damaged_notes_cost_the_metadata_only(store: LocalStore, damage: bytes) -> None:
    await store.put(KEY, b"RIFF", WAV)
    upload = await store.create_multipart(KEY)
    for kept in [
        *(store.root / ".store" / "info").glob("*/*.json"),
        *(store.root / ".store" / "uploads").glob("*/upload.json"),
    ]:
        kept.write_bytes(damage)
    data, info = await store.read(KEY)
    assert (data, info.checksum, info.metadata) == (b"RIFF", crc64nvme(b"RIFF"), {})
    with pytest.raises(NoSuchUpload):
        await store.list_parts(KEY, upload)


async def test_a_part_that_somebody_changed(store: LocalStore) -> None:
    upload = await store.create_multipart(KEY)
    part = await store.upload_part(KEY, upload, 1, b"all of it")
    [path] = (store.root / ".store" / "uploads" / upload).glob("*.part")
    os.truncate(path, 3)
    with pytest.raises(InvalidPart, match="3 bytes"):
        await store.complete_multipart(KEY, upload, [part])
    path.unlink()
    assert await store.list_parts(KEY, upload) == []
    assert leftovers(store) == []


async def test_of_two_files_of_a_part_the_newer_counts(store: LocalStore) -> None:
    """A process that died between showing the new one and removing the old one."""
    upload = await store.create_multipart(KEY)
    folder = store.root / ".store" / "uploads" / upload
    await store.upload_part(KEY, upload, 1, b"old")
    [old] = folder.glob("*.part")
    copy = old.read_bytes()
    new = await store.upload_part(KEY, upload, 1, b"newer")
    old.write_bytes(copy)
    os.utime(old, ns=(0, 0))
    assert await store.list_parts(KEY, upload) == [new]
    again = await store.upload_part(KEY, upload, 1, b"newer")
    assert await store.list_parts(KEY, upload) == [again]
    assert not old.exists()


async def test_links_pipes_and_odd_names_are_no_objects(store: LocalStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not in the store")
    (store.root / "link").symlink_to(secret)
    (store.root / "folder").symlink_to(tmp_path)
    os.mkfifo(store.root / "pipe")
    os.close(os.open(bytes(store.root) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    os.close(os.open(bytes(store.root) + b"/line\nbreak", os.O_CREAT | os.O_WRONLY))
    assert await keys(store) == []
    for key in ("link", "pipe"):
        with pytest.raises(NoSuchObject):
            await store.get(key)
        await store.delete(key)
    assert secret.exists()
    assert (store.root / "link").is_symlink()


@pytest.mark.parametrize("key", [".store", ".store/lock", "a/.store/b"])
async def test_its_own_folder_is_out_of_reach(store: LocalStore, key: str) -> None:
    await store.put(KEY, b"bytes")
    with pytest.raises(InvalidRequest):
        await store.put(key, b"")
    with pytest.raises(InvalidRequest):
        await store.get(key)
    with pytest.raises(InvalidRequest):
        await store.delete(key)
    with pytest.raises(InvalidRequest):
        await store.create_multipart(key)
    assert await keys(store) == [KEY]


async def test_an_object_is_no_folder_of_others(store: LocalStore) -> None:
    await store.put("call", b"bytes")
    await store.put("folder/object", b"bytes")
    for options in ({}, {"if_absent": True}):
        with pytest.raises(InvalidRequest):
            await store.put("call/chunk", b"", **options)
        with pytest.raises(InvalidRequest):
            await store.put("folder", b"", **options)
    upload = await store.create_multipart("folder")
    part = await store.upload_part("folder", upload, 1, b"part")
    with pytest.raises(InvalidRequest):
        await store.complete_multipart("folder", upload, [part])
    assert await keys(store) == ["call", "folder/object"]
    assert leftovers(store) == []


@pytest.mark.parametrize(("length", "fits"), [(254, True), (255, True), (256, False)])
async def test_the_longest_name(store: LocalStore, length: int, fits: bool) -> None:
    if fits:
        await store.put("n" * length, b"bytes")
        assert (await store.head("n" * length)).size == 5
    else:
        with pytest.raises(InvalidRequest, match="255 bytes"):
            await store.put("n" * length, b"bytes")


# -- the root folder


async def test_the_root_is_made_where_its_parent_is(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "root", "deep/prefix/"):
        pass
    assert (tmp_path / "root").is_dir()
    async with LocalStore(tmp_path / "no" / "root") as store:
        with pytest.raises(NoSuchBucket):
            await store.put(KEY, b"")
    assert not (tmp_path / "no").exists()


async def test_a_root_that_is_taken_away_is_not_made_again(store: LocalStore) -> None:
    """It may be a disk that is not mounted: writing below the mount point would hide the audio."""
    await store.put(KEY, b"")
    shutil.rmtree(store.root)
    for operation in (
        lambda: store.put(KEY, b""),
        lambda: store.get(KEY),
        lambda: store.delete(KEY),
        lambda: store.list_level(),
        lambda: store.create_multipart(KEY),
    ):
        with pytest.raises(NoSuchBucket):
            await operation()
    assert not store.root.exists()


async def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    with pytest.raises(StoreError):
        async with LocalStore(tmp_path / "root") as store:
            await store.put(KEY, b"")
