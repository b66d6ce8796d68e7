"""One recording's private folder on the local disk: what survives the process until it is safe.

<spool>/<recording id>/            mode 0700
    recording.json                 what is recorded and where it goes; enough to finish it
    lock                           held (flock) by the process that owns the recording
    journal/00000001.journal ...   accepted frames, see `recorder.journal`
    chunks/000001.wav ...          sealed chunks, byte for byte the objects they become
    encoded/audio.flac.00001 ...   a compressed output's parts, until they are in the bucket
    checkpoint.json                what sealing knew after the last chunk
    peaks-0                        the waveform of the chunks that were sent, see `recorder.tally`
    result.json                    how it ended, where it could not be finished
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
import weakref
from pathlib import Path
from typing import Any, Self

from recorder.quota import SpoolFull, SpoolQuota
from uploader.errors import BotRecorderError

PLAN = "recording.json"
LOCK = "lock"
NEW = ".new-"
GONE = ".gone-"
"""What the names of folders begin with that are not a recording's yet, or any more."""

TRIES = 5
ABANDONED_SECONDS = 60.0
"""A folder that was not finished being made after so long never will be."""


class RecordingExists(BotRecorderError):
    """A recording with this id is already there, in the spool or in the bucket."""


class SpoolBusy(BotRecorderError):
    """The recording's owner is alive: its spool is nobody else's business."""


class Spool:
    """The folder of one recording, locked. Made by `create` or `open`.

    Args:
        path: The folder.
        lock: Descriptor of its lock file, locked.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        _LOCKED.add(self)

    @classmethod
    def create(cls, root: Path, recording_id: str, plan: dict[str, Any]) -> Self:
        """Make a recording's folder; it appears at once, complete with its plan and locked.

        Args:
            root: The spool folder all recordings share; made with its parents if not there.
            recording_id: Validated id; the folder's name.
            plan: What `recording.json` says.

        Raises:
            RecordingExists: The folder is there already.
            SpoolFull: It cannot be made.
        """
        for _ in range(TRIES):
            try:
                return cls._create(root, root / recording_id, plan)
            except (BlockingIOError, FileNotFoundError):
                continue  # swept up before it was locked
        raise SpoolFull(f"cannot make spool {root / recording_id}: it goes as it is made")

    @classmethod
    def _create(cls, root: Path, path: Path, plan: dict[str, Any]) -> Self:
        new = root / f"{NEW}{secrets.token_hex(8)}"
        lock = -1
        try:
            if not root.is_dir():
                root.mkdir(mode=0o700, parents=True)
            if path.exists():
                raise FileExistsError(errno.EEXIST, "exists", str(path))
            new.mkdir(mode=0o700)
            lock = os.open(new / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (new / "journal").mkdir()
            (new / "chunks").mkdir()
            (new / PLAN).write_text(json.dumps(plan), encoding="utf-8")
            new.rename(path)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, BlockingIOError | FileNotFoundError) and root.is_dir():
                raise
            raise _not_made(error, root, path) from error
        return cls(path, lock)

    @classmethod
    def open(cls, root: Path, recording_id: str) -> Self:
        """Take over the folder of a recording whose owner is gone.

        Raises:
            FileNotFoundError: It is not there, or not any more.
            SpoolBusy: Its owner is alive.
            OSError: It cannot be opened.
        """
        path = root / recording_id
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have finished and removed it, lock file and all, just before.
            if not os.path.samestat(os.fstat(lock), (path / LOCK).stat()):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        except BlockingIOError:
            os.close(lock)
            raise SpoolBusy(f"recording {recording_id!r} has a live owner") from None
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock)

    @property
    def journal(self) -> Path:
        """Folder of journal segments."""
        return self.path / "journal"

    @property
    def chunks(self) -> Path:
        """Folder of sealed chunks."""
        return self.path / "chunks"

    @property
    def encoded(self) -> Path:
        """Folder of compressed outputs' bytes that are not in the store yet; perhaps not there."""
        return self.path / "encoded"

    def write_json(self, name: str, document: dict[str, Any]) -> None:
        """Replace a small file atomically; see `write`."""
        self.write(name, json.dumps(document))

    def write(self, name: str, text: str) -> None:
        """Replace a small file atomically.

        Raises:
            OSError: The disk refused; the old file is still there.
        """
        temporary = f"{self.path}/.{name}.new"
        with open(temporary, "wb") as file:  # noqa: PTH123 - a path costs as much
            file.write(text.encode())
        os.replace(temporary, f"{self.path}/{name}")  # noqa: PTH105

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return what a small file says, or None if it is not there.

        Raises:
            BotRecorderError: It is no JSON object.
            OSError: It cannot be read.
        """
        path = self.path / name
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise BotRecorderError(f"{path} is damaged: {error}") from error
        if not isinstance(document, dict):
            raise BotRecorderError(f"{path} is damaged: it is no JSON object")
        return document

    def release(self) -> None:
        """Give up the lock; the folder stays. Idempotent."""
        _LOCKED.discard(self)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def remove(self, quota: SpoolQuota) -> None:
        """Delete the folder and give up the lock: only for what is complete, or never began.

        Args:
            quota: Gets back the bytes of journal segments and chunk files.
        """
        for path in (*self.journal.glob("*.*"), *self.chunks.glob("*.wav")):
            with contextlib.suppress(OSError):
                quota.give(path.stat().st_size)
        # Under another name first: half a folder must not look like a recording.
        gone = self.path.with_name(f"{GONE}{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            self.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        self.release()


def recordings_in(root: Path) -> list[str]:
    """Return the names of the recordings' folders in a spool, oldest first.

    Raises:
        OSError: The spool cannot be read; not if it is not there.
    """
    found: list[tuple[int, str]] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # finished just now
                        changed = entry.stat(follow_symlinks=False).st_mtime_ns
                        found.append((changed, entry.name))
    except FileNotFoundError:
        return []
    return [name for _, name in sorted(found)]


def remove_abandoned(root: Path) -> int:
    """Remove folders that a process died making or removing; return how many there were.

    They hold no audio that was accepted, or audio that is safe elsewhere.
    """
    count = sum(_set_aside(path) for path in root.glob(f"{NEW}*"))
    gone = list(root.glob(f"{GONE}*"))
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return max(count, len(gone))


def _set_aside(path: Path) -> bool:
    """Rename a folder nobody is making any more; return whether it was that.

    Its lock is held meanwhile: who has just made it and locks it next finds it gone, and makes
    another one.
    """
    gone = path.with_name(f"{GONE}{secrets.token_hex(8)}")
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # not locked yet, for some microseconds, or never any more
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                path.rename(gone)
                return True
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.rename(gone)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


_LOCKED: weakref.WeakSet[Spool] = weakref.WeakSet()


def _release_in_child() -> None:
    """A forked child has the same locks open: it must not seem the owner when its parent dies."""
    for spool in list(_LOCKED):
        spool.release()


os.register_at_fork(after_in_child=_release_in_child)


def _not_made(error: OSError, root: Path, path: Path) -> BotRecorderError:
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        if not root.is_dir():
            return SpoolFull(f"cannot make spool {root}: it is a file, not a folder")
        return RecordingExists(
            f"recording id {path.name!r} is already in use in spool {root}",
            hint="give every recording its own id, or none to have one made",
        )
    hint = "set RECORDER_SPOOL_DIR to a folder this process may write to"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free disk space, or set RECORDER_SPOOL_DIR to a larger disk"
    return SpoolFull(f"cannot make spool {path}: {error.strerror}", hint=hint)


def spool_bytes(root: Path) -> int:
    """Return how many bytes the files below a spool folder take."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total
