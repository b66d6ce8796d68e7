"""One recording's private folder on the local disk: what survives the process until it is safe.

<spool>/<recording id>/            mode 0700
    recording.json                 what is recorded and where it goes; enough to finish it
    lock                           held (flock) by the process that owns the recording
    journal/00000001.journal ...   accepted frames, see `recorder.journal`
    chunks/000001.wav ...          sealed chunks, byte for byte the objects they become
    checkpoint.json                what sealing knew after the last chunk
    result.json                    how it ended, where it could not be finished
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from recorder.quota import SpoolFull
from uploader.errors import BotRecorderError


class RecordingExists(BotRecorderError):
    """A recording with this id is already there, in the spool or in the bucket."""


class Spool:
    """The folder of one recording, created and locked.

    Args:
        root: The spool folder all recordings share; made with its parents if it is not there.
        recording_id: Validated id; the folder's name.

    Raises:
        RecordingExists: The folder is there already.
        SpoolFull: It cannot be made.
    """

    def __init__(self, root: Path, recording_id: str) -> None:
        self.path = root / recording_id
        try:
            if not root.is_dir():
                root.mkdir(mode=0o700, parents=True)
            self.path.mkdir(mode=0o700)
            self.journal.mkdir()
            self.chunks.mkdir()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            if not root.is_dir():
                raise SpoolFull(f"cannot make spool {root}: it is a file, not a folder") from error
            raise RecordingExists(
                f"recording id {recording_id!r} is already in use in spool {root}",
                hint="give every recording its own id, or none to have one made",
            ) from error
        except OSError as error:
            hint = "set RECORDER_SPOOL_DIR to a folder this process may write to"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = "free disk space, or set RECORDER_SPOOL_DIR to a larger disk"
            raise SpoolFull(
                f"cannot make spool {self.path}: {error.strerror}", hint=hint
            ) from error
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def journal(self) -> Path:
        """Folder of journal segments."""
        return self.path / "journal"

    @property
    def chunks(self) -> Path:
        """Folder of sealed chunks."""
        return self.path / "chunks"

    def write_json(self, name: str, document: dict[str, Any]) -> None:
        """Replace a small file atomically.

        Raises:
            OSError: The disk refused; the old file is still there.
        """
        temporary = self.path / f".{name}.new"
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self.path / name)

    def release(self) -> None:
        """Give up the lock; the folder stays. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the folder and give up the lock: only for what is complete, or never began."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


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
