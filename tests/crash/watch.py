"""What a process tells of itself through shared memory, which outlives it; and how it is killed."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from faulty_store import FaultyStore

from recorder.sealer import RESERVE
from uploader.store import Body, ObjectAttributes, ObjectInfo, Store

CHANGES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
"""Audit events (https://docs.python.org/3/library/audit_events.html) of file-system changes."""


class Step(IntEnum):
    """Where a process is, in its order."""

    BEFORE = 0
    RUNNING = 1
    STOPPING = 2
    CLEANING = 3
    ENDED = 4


class Field(IntEnum):
    """Places in the shared memory; from `SEAL` on, steps: how many of these are going on."""

    GO = 0
    STEP = 1
    ACCEPTED = 2
    STORE_CALLS = 3
    DISK_CHANGES = 4
    SEAL = 5
    CHUNK = 6
    PART = 7
    COMPLETE = 8
    MANIFEST = 9
    OUTPUT = 10
    DELETE = 11


AFTER_THE_END = "after the end"
STEPS = [field for field in Field if field >= Field.SEAL]
_TOTALS = len(Field)


@dataclass(frozen=True)
class Kill:
    """When a process dies: at a time, or by its own hand at a store call or a change on disk.

    Attributes:
        by: `nothing`, `time`, `store` for any call, `disk` for any change, or a step: `seal`, ...
        at: Seconds, or which of the calls, changes or steps, from 1.
        after: Whether a call still has its effect, and a chunk is written but for its name.
    """

    by: str = "nothing"
    at: float = 0
    after: bool = False


class Watch:
    """The shared memory; made by the parent, before it forks."""

    def __init__(self) -> None:
        self.fields = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), dtype=np.int64)
        self._lock = threading.Lock()

    def __getitem__(self, name: Field) -> int:
        return int(self.fields[name])

    def __setitem__(self, name: Field, value: int) -> None:
        self.fields[name] = value

    def count(self, name: Field, change: int = 1) -> int:
        """Count on, and return the new count."""
        with self._lock:
            self.fields[name] += change
            return int(self.fields[name])

    def begin(self, step: Field) -> int:
        """Count a step that begins; return which of its kind it is, from 1."""
        with self._lock:
            self.fields[step] += 1
            self.fields[_TOTALS + step] += 1
            return int(self.fields[_TOTALS + step])

    def totals(self) -> dict[str, int]:
        """Return how many steps of each kind there were."""
        return {step.name.lower(): int(self.fields[_TOTALS + step]) for step in STEPS}

    def phase(self) -> str:
        """Return what the process was at."""
        step = Step(self[Field.STEP])
        if step in (Step.BEFORE, Step.ENDED):
            return {Step.BEFORE: "start", Step.ENDED: AFTER_THE_END}[step]
        if step is Step.CLEANING:
            return "cleanup"
        for going_on in (Field.COMPLETE, Field.PART, Field.CHUNK, Field.SEAL, Field.OUTPUT):
            if self[going_on] > 0:
                return {Field.OUTPUT: "whole object", Field.CHUNK: "chunk upload"}.get(
                    going_on, going_on.name.lower()
                )
        if self[Field.MANIFEST] > 0:
            return "manifest"
        return "stop" if step is Step.STOPPING else "mid-chunk"


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


class Hook:
    """Counts changes on disk, and dies at one of them. Cannot be taken out again: for children."""

    def __init__(self, watch: Watch, kill: Kill) -> None:
        self._watch = watch
        self._kill = kill
        self._last_seal = False
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not self._watch[Field.GO]:
            return
        path = Path(str(arguments[0])).name
        if event == "open":
            if path == RESERVE and arguments[2] & (os.O_CREAT | os.O_RDWR) == os.O_RDWR:
                self._seal(begins=True)
            if not arguments[2] & (os.O_CREAT | os.O_TRUNC):
                return
        elif event == "os.rename" and path == RESERVE:
            self._seal(begins=False)
        changes = self._watch.count(Field.DISK_CHANGES)
        if self._kill.by == "disk" and changes == self._kill.at:
            die()

    def _seal(self, *, begins: bool) -> None:
        """A chunk's file is written, in the room set aside for it, and then gets its name."""
        kill = self._kill
        if begins:
            number = self._watch.begin(Field.SEAL)
            self._last_seal = kill.by == "seal" and number == kill.at
        if self._last_seal and begins != kill.after:
            die()
        if not begins:
            self._watch.count(Field.SEAL, -1)


class WatchedStore(FaultyStore):
    """Tells what goes on in it, and dies at one of its calls, before or after its effect."""

    def __init__(self, inner: Store, watch: Watch, kill: Kill) -> None:
        super().__init__(inner)
        self._watch = watch
        self._kill = kill

    async def put(
        self,
        key: str,
        body: Body,
        attributes: ObjectAttributes | None = None,
        *,
        checksum: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        info = await super().put(
            key, body, attributes, checksum=checksum, if_absent=if_absent, if_match=if_match
        )
        if key.endswith("manifest.json") and b'"state": "completed' in bytes(body)[:300]:
            self._watch[Field.STEP] = Step.CLEANING
        return info

    async def _do(self, op: str, key: str, number: int, call: Callable[[], Any]) -> Any:
        step = _step(op, key)
        calls = {"store": self._watch.count(Field.STORE_CALLS)}
        if step is not None:
            calls[step.name.lower()] = self._watch.begin(step)
        dies = calls.get(self._kill.by) == self._kill.at
        if dies and not self._kill.after:
            die()
        try:
            result = await super()._do(op, key, number, call)
        finally:
            if step is not None and not dies:
                self._watch.count(step, -1)
        if dies:
            die()
        return result


def _step(op: str, key: str) -> Field | None:
    if op == "put":
        return Field.CHUNK if "/chunks/" in key else Field.OUTPUT
    fields = {
        "upload_part": Field.PART,
        "complete_multipart": Field.COMPLETE,
        "put_manifest": Field.MANIFEST,
        "delete": Field.DELETE,
    }
    return fields.get(op)
