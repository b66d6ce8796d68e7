"""Checks of the spool and of the machine, on this one's own disk."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from calls import FRAME, RATE, VOICE, die, settings_in
from packaging.specifiers import SpecifierSet

from recorder import Recorder, Settings
from recorder.doctor import Check, Status, filesystem, machine
from recorder.doctor.cost import Usage, load_of
from recorder.doctor.filesystem import Room, kind_of
from recorder.doctor.spool import check_room, check_spool

GIB = 1024**3
MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /run/mem rw,nosuid shared:4 - tmpfs tmpfs rw
41 22 0:40 / /data rw,relatime - overlay overlay rw,lowerdir=/a
42 41 0:41 / /data/calls\\040two rw - nfs4 host:/calls rw,vers=4.2
43 22 0:42 / /data rw - xfs /dev/sdb rw
damaged
"""


def checks_of(settings: Settings, calls: int = 1) -> dict[str, Check]:
    load = load_of(settings, Usage())
    return {one.name: one for one in check_spool(settings, load, calls, "token")}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path, spool_max_bytes=GIB)


def test_a_good_disk_passes_and_nothing_is_left_on_it(settings: Settings) -> None:
    checks = checks_of(settings)
    for name in ("folder", "allocation", "mapping", "locks", "fsync", "recordings"):
        assert checks[name].status is Status.OK, checks[name]
    assert list(settings.spool_dir.iterdir()) == []
    assert settings.spool_dir.stat().st_mode & 0o777 == 0o700


def test_a_disk_that_sets_nothing_aside_is_found_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_a_hole(fd: int, offset: int, length: int) -> None:
        os.ftruncate(fd, offset + length)

    monkeypatch.setattr(os, "posix_fallocate", leave_a_hole)
    check = checks_of(settings)["allocation"]
    assert check.status is Status.FAIL
    assert "SIGBUS" in check.found


def test_a_file_system_without_fallocate_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "allocation speed" not in checks_of(settings)
    monkeypatch.setattr(filesystem, "allocates_itself", lambda fd: False)
    assert checks_of(settings)["allocation speed"].status is Status.WARN


def test_locks_that_keep_nobody_out_are_found_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    assert checks_of(settings)["locks"].status is Status.FAIL


@pytest.mark.parametrize("name", ["mapping", "locks", "fsync"])
def test_what_the_disk_refuses_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: Any) -> bool:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    functions = {"mapping": "maps", "locks": "locks", "fsync": "syncs"}
    monkeypatch.setattr(filesystem, functions[name], refuse)
    check = checks_of(settings)[name]
    assert check.status is Status.FAIL
    assert "not supported" in check.found


def test_a_file_in_the_spools_place(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    checks = checks_of(settings)
    assert checks["folder"].status is Status.FAIL
    assert "must be a folder" in checks["folder"].fix


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/var/spool", "ext4"),
        ("/run/mem/spool", "tmpfs"),
        ("/data/calls two/spool", "nfs4"),
        ("/data/spool", "xfs"),  # mounted over the overlay
    ],
)
def test_the_file_system_is_the_innermost_mount(place: str, kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert kind_of(Path(place), mounts) == kind
    assert kind_of(Path(place), tmp_path / "nothing") == ""


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("ext4", Status.OK),
        ("xfs", Status.OK),
        ("nfs4", Status.WARN),
        ("fuse.s3fs", Status.WARN),
        ("overlay", Status.WARN),
        ("tmpfs", Status.WARN),
    ],
)
def test_kinds_of_file_systems(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str, status: Status
) -> None:
    monkeypatch.setattr(filesystem, "kind_of", lambda folder: kind)
    check = checks_of(settings)["file system"]
    assert check.status is status
    assert bool(check.fix) is (status is Status.WARN)


@pytest.mark.parametrize(
    ("free", "used", "calls", "status"),
    [
        (100 * GIB, 0, 1, Status.OK),
        (GIB, 0, 1, Status.OK),
        (GIB - 1, 0, 1, Status.WARN),  # less than the setting allows
        (GIB // 100, 0, 1, Status.FAIL),
        (100 * GIB, GIB, 1, Status.FAIL),  # nothing left of what is allowed
        (100 * GIB, 0, 50, Status.FAIL),  # some minutes of fifty calls
    ],
)
def test_room(settings: Settings, free: int, used: int, calls: int, status: Status) -> None:
    load = load_of(settings, Usage())
    check = check_room(Room(free, 200 * GIB, None), used, settings, load, calls)
    assert check.status is status
    assert bool(check.fix) is (status is not Status.OK)


def test_room_for_files(settings: Settings) -> None:
    load = load_of(settings, Usage())
    check = check_room(Room(100 * GIB, 200 * GIB, 99), 0, settings, load, 1)
    assert check.status is Status.FAIL
    assert "99 files" in check.found


async def test_what_is_left_and_what_is_live(settings: Settings) -> None:
    dead, live = Recorder(settings, recover=False), Recorder(settings, recover=False)
    await dead.__aenter__()
    call = await dead.start("died")
    call.write("user", VOICE[:FRAME].tobytes(), RATE)
    await die(dead)
    async with live:
        await live.start("lives")
        check = checks_of(settings)["recordings"]
        assert check.status is Status.WARN
        assert "1 not finished, 1 live" in check.found
        assert "'died'" in check.found
        assert "recorder recover" in check.fix
        await live.recover()
    assert checks_of(settings)["recordings"].status is Status.OK


def test_open_files() -> None:
    assert machine.check_open_files(resource.RLIM_INFINITY, 10**6).status is Status.OK
    needed = machine.FILES_BESIDE + 100 * (machine.FILES_PER_CALL + machine.SOCKETS_PER_CALL)
    assert machine.check_open_files(needed, 100).status is Status.OK
    check = machine.check_open_files(needed - 1, 100)
    assert check.status is Status.FAIL
    assert str(needed) in check.fix


def test_file_size(settings: Settings) -> None:
    assert machine.check_file_size(resource.RLIM_INFINITY, settings).status is Status.OK
    assert machine.check_file_size(10**9, settings).status is Status.OK
    assert machine.check_file_size(10**6, settings).status is Status.FAIL


@pytest.mark.parametrize(
    ("version", "status"),
    [("1.13.9", Status.FAIL), ("1.14.0", Status.OK), ("1.99", Status.OK), ("2.0.0", Status.FAIL)],
)
def test_versions_of_pipecat(version: str, status: Status) -> None:
    supported = machine._supported()
    assert supported == SpecifierSet(">=1.14,<2")
    assert machine.check_pipecat(version, supported).status is status
