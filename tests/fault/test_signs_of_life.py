"""An owner that is busy with something long shows that it lives, and never takes back its word."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from calls import manifest, settings_in, speak
from faulty_store import FaultyStore

from recorder import Recorder, State, VirtualClock
from uploader.local import LocalStore


class Slow(FaultyStore):
    """A store whose Complete takes as long as the test wants."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder / "bucket"))
        self.go_on = threading.Event()
        self.written = threading.Semaphore(0)

    async def complete_multipart(self, *args: Any, **options: Any) -> Any:
        await asyncio.to_thread(self.go_on.wait)
        return await super().complete_multipart(*args, **options)

    async def put(self, key: str, *args: Any, **options: Any) -> Any:
        info = await super().put(key, *args, **options)
        if key.endswith("manifest.json"):
            self.written.release()
        return info


async def test_the_manifest_changes_while_complete_takes_its_time(tmp_path: Path) -> None:
    clock, store = VirtualClock(), Slow(tmp_path)
    settings = settings_in(tmp_path, chunk_seconds=0.1)
    async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 1)
        await call.flush()
        stopping = asyncio.ensure_future(call.stop())
        while not manifest(tmp_path)["sealed"]:
            await asyncio.to_thread(store.written.acquire)
        before = manifest(tmp_path)["revision"]
        while manifest(tmp_path)["revision"] < before + 3:
            await asyncio.to_thread(store.written.acquire)
        assert manifest(tmp_path)["state"] == "recording"
        store.go_on.set()
        result = await stopping
    assert result.state is State.COMPLETED
    assert manifest(tmp_path)["state"] == "completed"


async def test_a_sign_of_life_that_waits_does_not_undo_the_end(tmp_path: Path) -> None:
    clock, store = VirtualClock(), FaultyStore(LocalStore(tmp_path / "bucket"))
    async with Recorder(settings_in(tmp_path), clock=clock, store=store, recover=False) as recorder:
        call = await recorder.start("call")
        speak(call, clock, 0, 1)
        [backstage] = recorder._sessions
        manifest_writer = backstage.delivery.manifest
        late: list[asyncio.Task[None]] = []
        write = manifest_writer.file.write

        async def slow(document: dict[str, Any], **options: Any) -> bool:
            if document["state"] == "completed":  # it holds the lock that a beat waits for
                late.append(asyncio.ensure_future(manifest_writer.write(State.RECORDING)))
                await asyncio.sleep(0)
            return await write(document, **options)

        manifest_writer.file.write = slow  # type: ignore[method-assign,assignment]
        result = await call.stop()
        assert result.state is State.COMPLETED

        async def beaten() -> None:
            assert len(late) == 1
            await late[0]

        await recorder.engine.run(beaten())
    assert manifest(tmp_path)["state"] == "completed"
