"""A program: one call recorded into a small disk that somebody else fills, and what came of it.

    unshare -rm python full_disk_trial.py FOLDER TRIAL-AS-JSON

runs in namespaces of its own, where it may mount: FOLDER/spool becomes a tmpfs. Bot and recovery
are processes of their own, so that a signal would be seen. Says on standard output how they ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faulty_store import FaultyStore

from recorder import Recorder, Session, Settings, VirtualClock
from recorder.events import CaptureFailed, ChunkDropped, Event
from recorder.stores import make_store

RATE = 24_000
FRAME = RATE // 50
TRACKS = ("user", "bot")


@dataclass(frozen=True)
class Trial:
    """What happens.

    Attributes:
        seed: Of the moments at which the disk is filled and freed.
        policy: RECORDER_SPOOL_FULL.
        seconds: Length of the call.
        disk: Size of the disk, bytes.
        away: From when to when the store is away, seconds.
        kill: When the bot is killed, seconds; after that, the disk stays as it is.
        fill_at: When the disk is filled for good; at random moments, if None.
    """

    seed: int = 0
    policy: str = "stop"
    seconds: int = 60
    disk: int = 6 << 20
    away: tuple[int, int] = (0, 0)
    kill: int | None = None
    fill_at: int | None = None


def voices(seconds: int) -> dict[str, np.ndarray[Any, np.dtype[np.int16]]]:
    """Noise without zeros: a zero is silence."""
    shape = (len(TRACKS), seconds * RATE)
    noise = np.random.default_rng(7).integers(1, 9000, shape, dtype=np.int16)
    return dict(zip(TRACKS, noise, strict=True))


def settings(folder: Path, trial: Trial) -> Settings:
    return Settings(
        bucket=(folder / "bucket").as_uri(),
        spool_dir=folder / "spool",
        spool_full=trial.policy,  # type: ignore[arg-type]  # from JSON
        chunk_seconds=1.0,
        retry_base_seconds=0.01,
        retry_max_wait_seconds=0.1,
        retry_deadline_seconds=20,
        keep_chunks=True,
    )


class Disk:
    """The other user of the disk."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "spool" / ".somebody-else"

    def fill(self, left: int = 0) -> None:
        """Take all there is but `left` bytes."""
        state = os.statvfs(self._file.parent)
        size = self._file.stat().st_size if self._file.exists() else 0
        more = state.f_bavail * state.f_frsize - left
        with self._file.open("ab") as file:
            try:
                if more > 0:
                    os.posix_fallocate(file.fileno(), 0, size + more)
            except OSError:
                pass  # somebody was quicker: nearly full will do

    def free(self) -> None:
        self._file.unlink(missing_ok=True)


class Watch:
    """What the bot's own thread does inside of `write`."""

    def __init__(self) -> None:
        self.inside = False
        self.opened = 0
        self.slowest = 0.0
        self._thread = threading.get_ident()
        sys.addaudithook(self._heard)

    def _heard(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open" and self.inside and threading.get_ident() == self._thread:
            self.opened += 1

    def write(self, call: Session, track: str, pcm: bytes) -> None:
        before = time.perf_counter()
        self.inside = True
        call.write(track, pcm, RATE)
        self.inside = False
        self.slowest = max(self.slowest, time.perf_counter() - before)


async def bot(folder: Path, trial: Trial) -> None:
    clock, disk, watch = VirtualClock(), Disk(folder), Watch()
    rng = random.Random(trial.seed)
    store = FaultyStore(make_store(settings(folder, trial)))
    said = voices(trial.seconds)
    told: dict[str, Any] = {"refused": [], "accepted": 0, "dropped": [], "failed": 0}

    def on_event(event: Event) -> None:
        if isinstance(event, ChunkDropped):
            told["dropped"].append(event.chunk.number)
        told["failed"] += isinstance(event, CaptureFailed)

    async def look() -> None:
        """Do what the engine's timer does, in this call's time."""
        for backstage in recorder._sessions:
            session = backstage._session
            if session is not None:
                await recorder.engine.in_thread(session.prepare)
                await backstage._seal_due()

    async with Recorder(settings(folder, trial), clock=clock, store=store) as recorder:
        call = await recorder.start("call", tracks=TRACKS, on_event=on_event)
        for second in range(trial.seconds):
            if second == trial.kill:
                told["refusing"] = bool(call._losses)
                (folder / "told.json").write_text(json.dumps(told))
                os.kill(os.getpid(), signal.SIGKILL)
            store.down = trial.away[0] <= second < trial.away[1]
            for frame in range(second * 50, second * 50 + 50):
                if trial.fill_at is None and rng.random() < 0.005:
                    disk.free() if rng.random() < 0.4 else disk.fill(rng.randrange(600_000))
                elif trial.fill_at is not None and second >= trial.fill_at:
                    disk.fill()
                clock.advance_to(call.zero + (frame + 1) / 50)
                for track in TRACKS:
                    before = call.refused
                    pcm = said[track][frame * FRAME : (frame + 1) * FRAME].tobytes()
                    watch.write(call, track, pcm)
                    if call.refused > before:
                        told["refused"].append([track, frame * FRAME])
                    else:
                        told["accepted"] += 1
            await recorder.engine.run(look())
            if not store.down:
                await recorder.engine.run(_settled(recorder))
        store.down = False
        result = await call.stop()
        told |= {"state": str(result.state), "reason": result.reason}
        told |= {"opened": watch.opened, "slowest": watch.slowest}
    (folder / "told.json").write_text(json.dumps(told))


async def _settled(recorder: Recorder) -> None:
    for backstage in recorder._sessions:
        await backstage.delivery.settled()


async def recover(folder: Path, trial: Trial) -> None:
    """Recover on the disk as it is; and, if that cannot be, once it has room."""
    outcomes = []
    async with Recorder(settings(folder, trial), recover=False) as recorder:
        for one in await recorder.recover():
            outcomes.append([str(one.outcome), one.reason])
        Disk(folder).free()
        for one in await recorder.recover():
            outcomes.append([str(one.outcome), one.reason])
    (folder / "recovered.json").write_text(json.dumps(outcomes))


def supervise(folder: Path, trial: Trial) -> dict[str, Any]:
    """Mount the disk, run the bot and, if it was killed, the recovery."""
    (folder / "spool").mkdir()
    size = ["-o", f"size={trial.disk}", "tmpfs", str(folder / "spool")]
    subprocess.run(["mount", "-t", "tmpfs", *size], check=True)  # noqa: S607 - found by the path
    ended: dict[str, Any] = {"bot": _run("bot", folder, trial)}
    if trial.kill is not None:
        ended["recovery"] = _run("recover", folder, trial)
        ended["recovered"] = json.loads((folder / "recovered.json").read_text())
    left = sorted(
        str(path.relative_to(folder / "spool"))
        for path in (folder / "spool").rglob("*")
        if path.name != ".somebody-else"
    )
    return {**ended, "left": left}


def _run(what: str, folder: Path, trial: Trial) -> int:
    command = [sys.executable, __file__, str(folder), json.dumps(asdict(trial)), what]
    with (folder / f"{what}.log").open("w") as log:
        return subprocess.run(command, stderr=log, check=False).returncode


if __name__ == "__main__":
    where, what = Path(sys.argv[1]), Trial(**json.loads(sys.argv[2]))
    if len(sys.argv) < 4:
        print(json.dumps(supervise(where, what)))
    else:
        asyncio.run({"bot": bot, "recover": recover}[sys.argv[3]](where, what))
