"""Encoded bytes on their way into the store: in files, part by part, until they are there.

What is encoded comes in order and cannot be made again by itself, as samples can: it is kept from
when it is made until its part is acknowledged. All of it can be made anew from chunks, so that
nothing here needs to outlive the process.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from recorder.quota import SpoolFull, SpoolQuota


@dataclass(slots=True)
class _Kept:
    """One part's bytes: in a named file, in one without a name, or in memory."""

    size: int = 0
    path: Path | None = None
    unnamed: IO[bytes] | None = None
    memory: bytearray = field(default_factory=bytearray)


class EncodedParts:
    """The parts of one output that are encoded and not in the store yet. Not thread-safe.

    In a full spool, and on a full disk, they are held in memory: a few parts at most, without which
    the recording could not be finished, and its spool not be emptied.

    Args:
        folder: Where files are made, as soon as there is something to keep; files without names,
            in the system's folder for them, if None.
        name: Of the output.
        quota: Counts the bytes.
    """

    def __init__(self, folder: Path | None, name: str, quota: SpoolQuota) -> None:
        self._folder = folder
        self._name = name.replace("/", "-")
        self._quota = quota
        self._kept: dict[int, _Kept] = {}
        self._swept = False

    def size(self, number: int) -> int:
        """Return how many bytes of a part are there."""
        return self._kept[number].size if number in self._kept else 0

    def append(self, number: int, data: bytes) -> None:
        """Keep a part's next bytes."""
        kept = self._kept.setdefault(number, _Kept())
        if not kept.memory:
            try:
                self._write(number, kept, data)
                return
            except (OSError, SpoolFull):
                before = bytearray(kept.size)
                self._read(kept, memoryview(before))
                self._let_go(kept)
                kept.memory = before
        kept.memory += data
        kept.size += len(data)

    def read(self, number: int, into: memoryview) -> None:
        """Fill `into` with a part's first bytes, all of which must be there.

        Raises:
            OSError: They cannot be read.
        """
        self._read(self._kept[number], into)

    def drop(self, number: int) -> None:
        """Let a part's bytes go. Idempotent."""
        kept = self._kept.pop(number, None)
        if kept is not None:
            self._let_go(kept)

    def clear(self) -> None:
        """Let all bytes go. Idempotent."""
        for number in list(self._kept):
            self.drop(number)

    def _write(self, number: int, kept: _Kept, data: bytes) -> None:
        self._quota.take(len(data), drop=False)
        try:
            file = self._file(number, kept)
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(file, memoryview(data)[written:], kept.size + written)
            finally:
                if kept.unnamed is None:
                    os.close(file)
        except BaseException:
            self._quota.give(len(data))
            raise
        kept.size += len(data)

    def _file(self, number: int, kept: _Kept) -> int:
        """Return a descriptor of a part's file, which is made if there is none.

        Named ones are opened anew each time: live recordings must not use descriptors up.
        """
        if self._folder is None:
            if kept.unnamed is None:
                kept.unnamed = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - until let go
            return kept.unnamed.fileno()
        if kept.path is None:
            self._sweep(self._folder)
            kept.path = self._folder / f"{self._name}.{number:05d}"
        return os.open(kept.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _sweep(self, folder: Path) -> None:
        """Remove what an owner before left: it is of a state that nobody knows."""
        if self._swept:
            return
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in folder.iterdir():
            if path.name.rpartition(".")[0] == self._name:
                size = path.stat().st_size
                path.unlink()
                self._quota.give(size)
        self._swept = True

    def _read(self, kept: _Kept, into: memoryview) -> None:
        if kept.memory:
            into[:] = memoryview(kept.memory)[: len(into)]
            return
        if not len(into):
            return
        file = -1
        if kept.unnamed is not None:
            descriptor = kept.unnamed.fileno()
        elif kept.path is not None:
            descriptor = file = os.open(kept.path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            raise FileNotFoundError("nothing is kept")
        try:
            at = 0
            while at < len(into):
                count = os.preadv(descriptor, [into[at:]], at)
                if count == 0:
                    raise OSError(f"{self._name}: encoded bytes are cut off")
                at += count
        finally:
            if file >= 0:
                os.close(file)

    def _let_go(self, kept: _Kept) -> None:
        on_disk = 0 if kept.memory else kept.size
        if kept.path is not None:
            with contextlib.suppress(FileNotFoundError):
                kept.path.unlink()
        if kept.unnamed is not None:
            kept.unnamed.close()
        kept.path = kept.unnamed = None
        self._quota.give(on_disk)
