"""Hosts with spools, processes on them that can die at any request, and one bucket."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from faulty_store import FaultyStore
from loguru import logger
from whole_life_model import Model
from whole_life_verdict import Witness

from recorder import Recorder, Session, Settings, VirtualClock, shutdown, spool, ticker
from uploader.local import LocalStore

T = TypeVar("T")

FOREVER = 3600.0


@dataclass(eq=False)
class Host:
    """A machine: what it has on its disk outlives its processes, but not itself."""

    root: Path
    lives: int = 0
    process: Process | None = None

    @property
    def spool(self) -> Path:
        """Folder of the spool."""
        return self.root / f"spool-{self.lives}"

    def recordings(self) -> list[str]:
        """What is in the spool, half-made and half-removed folders too."""
        return sorted(path.name for path in self.spool.glob("*"))

    def crash(self) -> None:
        """Keep the spool just as it is: what processes do from now on does not reach it."""
        old = self.spool
        self.lives += 1
        if old.exists():
            old.rename(self.spool)


@dataclass(eq=False)
class Call:
    """A recording."""

    recording_id: str
    model: Model
    host: Host
    session: Session | None = None
    zero: float = 0.0


class Process:
    """A recorder on a host.

    Args:
        world: Where it is.
        host: Whose spool it has.
    """

    def __init__(self, world: World, host: Host) -> None:
        assert host.process is None
        host.process = self
        self.host = host
        self.store = FaultyStore(LocalStore(world.bucket))
        self.store.hook = self._count
        self.recorder = Recorder(
            world.settings(host), clock=world.clock, store=self.store, recover=False
        )
        self.died = asyncio.Event()
        self.refused: set[str] = set()
        self._spool = host.spool
        self._world = world
        self._countdown = 0
        self._after = False
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Open the recorder."""
        await self.recorder.__aenter__()

    def doom(self, requests: int, *, after: bool) -> None:
        """Let it die at a coming request, before or after its effect; at none, if 0."""
        self._countdown, self._after = requests, after

    async def _count(self, op: str, key: str, done: bool) -> None:
        if done and "probe" not in key:
            self._world.history.append(f"{self._spool.parent.name}: {op} {key}")
        if done == self._after and self._countdown:
            self._countdown -= 1
            if not self._countdown:
                self._die()
                await asyncio.Event().wait()

    def _die(self) -> None:
        """As SIGKILL does it: at once, in mid-request, and nothing is tidied."""
        self.store.dead = True
        self._world.history.append(f"{self._spool.parent.name} dies")
        self.host.crash()
        self._loop.call_soon_threadsafe(self.died.set)

    async def kill(self) -> None:
        """Die now."""
        if not self.store.dead:
            self._die()
        await self.bury()

    async def bury(self) -> None:
        """End the threads of the dead, and let go of its locks: whatever they do comes too late."""
        engine = self.recorder._engine
        self.recorder._engine = None
        shutdown.forget(self.recorder)
        if engine is not None:
            await asyncio.to_thread(engine.close)
        for one in list(spool._LOCKED):
            if one.path.parent == self._spool:
                one.release()
        self._gone()

    async def close(self, wait_seconds: float) -> None:
        """End as a process does that is asked to."""
        await self.recorder.close(wait_seconds=wait_seconds)
        assert not [one for one in spool._LOCKED if one.path.parent == self._spool]
        self._gone()

    def _gone(self) -> None:
        self.host.process = None
        for call in self._world.calls:
            if call.host is self.host:
                call.session = None
                call.model.cut_off()

    async def survive(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what work comes to; None if the process dies of it."""
        task = asyncio.ensure_future(work)
        death = asyncio.ensure_future(self.died.wait())
        await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        await asyncio.gather(death, return_exceptions=True)
        if not self.died.is_set():
            self.doom(0, after=False)
            return task.result()
        await self.bury()
        await asyncio.gather(task, return_exceptions=True)
        return None


@dataclass
class World:
    """Everything there is in one example.

    Attributes:
        options: Of the settings.
        history: What recovery said and what requests had an effect, for who reads of a failure.
    """

    options: dict[str, Any]
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="whole-life-")))
    hosts: list[Host] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    stores: list[FaultyStore] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket = self.folder / "bucket"
        self.clock = VirtualClock(100.0, datetime(2026, 1, 1, tzinfo=UTC))
        self.witness = Witness(self.bucket)
        self._runner = asyncio.Runner()
        self._stack = ExitStack()
        # Sealing happens when the test flushes, and at no time of its own.
        self._stack.enter_context(mock.patch.object(ticker, "TICK_SECONDS", FOREVER))
        # Nothing here loses power: only processes and whole hosts die.
        self._stack.enter_context(mock.patch.object(os, "fsync"))
        for name in ("recorder", "uploader"):
            logger.disable(name)
            self._stack.callback(logger.enable, name)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.callback(self._runner.close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something, to its end."""
        return self._runner.run(work)

    def close(self) -> None:
        """Remove everything."""
        self._stack.close()

    def new_host(self) -> Host:
        """Add a machine."""
        host = Host(self.folder / f"host-{len(self.hosts)}")
        host.root.mkdir()
        self.hosts.append(host)
        return host

    async def boot(self, host: Host) -> Process:
        """Return the host's process, which is there from now on."""
        if host.process is None:
            process = Process(self, host)
            self.stores.append(process.store)
            await process.open()
        assert host.process is not None
        return host.process

    def settings(self, host: Host) -> Settings:
        """Return a process's settings."""
        values: dict[str, Any] = {
            "bucket": self.bucket.as_uri(),
            "spool_dir": host.spool,
            "part_bytes": "5MiB",
            "hold_back_seconds": 0.4,
            "stall_seconds": 0.2,
            "pre_roll_seconds": 0.3,
            "retry_base_seconds": 0.01,
            "retry_max_wait_seconds": 0.1,
            "retry_deadline_seconds": 60,
            "start_timeout_seconds": 0.3,
            "drain_seconds": 30,
            **self.options,
        }
        return Settings(**values)

    def uploads(self) -> list[str]:
        """Uploads in progress."""
        return sorted(path.name for path in self.bucket.glob(".store/uploads/*"))

    async def deliver_late(self) -> None:
        """What was under way arrives, whoever sent it."""
        for store in self.stores:
            await store.deliver_late()
