"""Checks of the spool: its disk, what that does and holds, and what is left in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from recorder.doctor import filesystem
from recorder.doctor.check import Check, Status
from recorder.doctor.cost import Load
from recorder.names import shown
from recorder.settings import Settings
from recorder.settings_values import in_bytes
from recorder.spool import NEW, Spool, SpoolBusy, recordings_in, spool_bytes
from uploader.errors import BotRecorderError

AREA = "spool"
GIB = 1024**3

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_LAYERS = frozenset({"overlay", "aufs"})
LEAST_SECONDS = 600
"""A disk that holds less than so much of all calls is as good as full."""

_ELSEWHERE = "set RECORDER_SPOOL_DIR to a folder on a local disk"


def check_spool(settings: Settings, load: Load, calls: int, token: str) -> Iterator[Check]:
    """Yield the checks of a spool folder; it is made if it is not there.

    Args:
        settings: Of the process.
        load: What a call needs.
        calls: How many there are at a time.
        token: Makes the names of files this run's own.
    """
    folder = settings.spool_dir
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
        with filesystem.trial_file(folder, f"{NEW}doctor-{token}") as (fd, path):
            yield _permission(folder)
            yield _kind(folder)
            yield from _abilities(fd, path)
    except OSError as error:
        found = f"{folder} cannot be used: {error.strerror}"
        yield Check(AREA, "folder", Status.FAIL, found, _writable(error, folder))
        return
    used = spool_bytes(folder)
    yield check_room(filesystem.room(folder), used, settings, load, calls)
    yield from _left(folder)


def _writable(error: OSError, folder: Path) -> str:
    if isinstance(error, PermissionError):
        who = f"user {os.geteuid()}"
        return f"let {who} write there (in a container: the volume's owner, or fsGroup)"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{folder} must be a folder, or not be there"
    return _ELSEWHERE


def _permission(folder: Path) -> Check:
    mode = folder.stat().st_mode & 0o777
    # Each recording's folder is its owner's alone, whatever the mode of this one is.
    return Check(AREA, "folder", Status.OK, f"{folder}, mode {mode:04o}, written to")


def _kind(folder: Path) -> Check:
    kind = filesystem.kind_of(folder)
    name, warn = "file system", Status.WARN
    if kind in _NETWORK or kind.startswith("fuse"):
        found = f"{kind}: a network's, whose outages hold up the bot, and whose locks may not hold"
        return Check(AREA, name, warn, found, _ELSEWHERE)
    if kind in _MEMORY:
        found = f"{kind}: memory; audio that is not in the bucket is lost when the host restarts"
        return Check(AREA, name, warn, found, _ELSEWHERE)
    if kind in _LAYERS:
        found = f"{kind}: a container's own; audio that is not in the bucket is lost with it"
        return Check(AREA, name, warn, found, "mount a volume at RECORDER_SPOOL_DIR")
    return Check(AREA, name, Status.OK, kind or "not told by this system")


def _abilities(fd: int, path: Path) -> Iterator[Check]:
    """Yield what the file system can do, by trying it on a file."""
    yield _tried(
        "allocation",
        lambda: filesystem.allocates(fd),
        "posix_fallocate sets room aside",
        "room that was allocated is not set aside: on a full disk, capture is killed by SIGBUS",
    )
    if not filesystem.allocates_itself(fd):
        yield Check(
            AREA,
            "allocation speed",
            Status.WARN,
            "the file system has no fallocate: each new file is written out once, to no end",
            _ELSEWHERE,
        )
    yield _tried(
        "mapping",
        lambda: filesystem.maps(fd),
        "mmap writes are read back",
        "what is written through a mapping is not what is read",
    )
    yield _tried(
        "locks",
        lambda: filesystem.locks(path),
        "flock keeps others out",
        "a second owner gets the same lock: recovery would take live recordings for dead",
    )
    yield _tried("fsync", lambda: filesystem.syncs(fd), "works", "")


def _tried(name: str, work: Callable[[], bool], good: str, bad: str) -> Check:
    try:
        works = work()
    except OSError as error:
        return Check(AREA, name, Status.FAIL, f"{error.strerror}", _ELSEWHERE)
    if works:
        return Check(AREA, name, Status.OK, good)
    return Check(AREA, name, Status.FAIL, bad, _ELSEWHERE)


def check_room(
    room: filesystem.Room, used: int, settings: Settings, load: Load, calls: int
) -> Check:
    """Return how long an outage of the bucket the spool can take.

    Args:
        room: Of its disk.
        used: Bytes in the spool now.
        settings: Of the process.
        load: What a call needs.
        calls: How many there are at a time.
    """
    allowed = settings.spool_max_bytes - used
    usable = min(room.free, allowed)
    seconds = load.outage_seconds(usable, calls)
    many = "one call" if calls == 1 else f"{calls} calls"
    found = (
        f"{usable / GIB:.1f} GiB to be used: {_length(seconds)} of {many} while the bucket is away"
    )
    setting = f"RECORDER_SPOOL_MAX_BYTES={in_bytes(settings.spool_max_bytes)}"
    fix = ""
    status = Status.OK
    if room.free < allowed:
        status = Status.WARN
        found += f"; the disk has less than {setting} allows"
        fix = "free disk space, use a larger disk, or set RECORDER_SPOOL_MAX_BYTES lower"
    if seconds < LEAST_SECONDS:
        status = Status.FAIL
        fix = fix or f"set {setting.partition('=')[0]} higher, or run `recorder recover`"
    if room.files is not None and room.files < 100 * calls:
        status = Status.FAIL
        found += f"; the disk has room for {room.files} files (inodes) only"
        fix = "remove files, or use a file system with more inodes"
    return Check(AREA, "room", status, found, fix)


def _length(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min"


def _left(folder: Path) -> Iterator[Check]:
    """Yield what dead processes, or outages, have left in the spool."""
    live, left = 0, []
    for name in recordings_in(folder):
        try:
            spool = Spool.open(folder, name)
        except SpoolBusy:
            live += 1
            continue
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Check(
                AREA,
                "recordings",
                Status.FAIL,
                f"{shown(name)} cannot be opened: {error.strerror}",
                "run as the user that recorded it",
            )
            continue
        try:
            left.append((name, _reason(spool)))
        finally:
            spool.release()
    if not left:
        found = f"none left; {live} live" if live else "none left"
        yield Check(AREA, "recordings", Status.OK, found)
        return
    name, reason = left[0]
    found = f"{len(left)} not finished, {live} live; the oldest, {shown(name)}: {reason}"
    fix = "`recorder recover` finishes them; so does a Recorder that runs here"
    yield Check(AREA, "recordings", Status.WARN, found, fix)


def _reason(spool: Spool) -> str:
    try:
        result = spool.read_json("result.json")
    except (BotRecorderError, OSError, json.JSONDecodeError) as error:
        return str(error)
    if result is None:
        return "its process died, or its bucket was away"
    return f"{result.get('state')}: {result.get('reason')}"
