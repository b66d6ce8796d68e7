"""Processes that end without closing the recorder: it drains a while, and they end all the same.

Real processes of `bot_child.py`. What is not in the bucket when the grace is over is in the spool.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bot_child
import numpy as np
import pytest
import soundfile

from recorder import Recorder
from recorder.recovered import Outcome
from recorder.stores import make_store

PROGRAM = Path(bot_child.__file__)


@asynccontextmanager
async def bot(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Any]:
    """Start a bot, and wait until it is ready."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        str(folder),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.communicate()


async def ended(child: Any, number: int | None = None) -> tuple[int, str, str]:
    """Wait until a bot is ready, send it a signal, and return its exit code and its words."""
    said = ""
    while "ready\n" not in said:
        line = (await child.stdout.readline()).decode()
        assert line, (await child.stderr.read()).decode()
        said += line
    if number is not None:
        child.send_signal(number)
    out, err = await child.communicate()
    return child.returncode, said + out.decode(), err.decode()


async def stored(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return all objects by name, and the uploads in progress."""
    async with make_store(bot_child.settings(folder)) as store:
        objects = {
            info.key.partition(f"/{bot_child.RECORDING_ID}/")[2]: await store.get(info.key)
            async for info in store.list_objects("dt=")
            if f"/{bot_child.RECORDING_ID}/" in info.key
        }
        return objects, [upload.key async for upload in store.list_uploads()]


async def assert_complete(folder: Path) -> None:
    """All that was said is in the bucket, and nothing else is anywhere."""
    objects, uploads = await stored(folder)
    assert set(objects) == {"manifest.json", "audio.wav", "peaks.json"}
    assert not uploads
    assert not list((folder / "spool").iterdir())
    assert json.loads(objects["manifest.json"])["state"] == "completed"
    audio, rate = soundfile.read(io.BytesIO(objects["audio.wav"]), dtype="int16")
    assert rate == bot_child.RATE
    np.testing.assert_array_equal(audio, bot_child.spoken())


ENDINGS = [
    ("waits", signal.SIGTERM, -signal.SIGTERM),
    ("waits", signal.SIGINT, -signal.SIGINT),
    ("returns", None, 0),
    ("exits", None, 3),
    ("raises", None, 1),
    ("has_own_handler", signal.SIGTERM, 7),
]


@pytest.mark.parametrize(("ending", "number", "code"), ENDINGS)
async def test_a_process_that_ends_without_closing_finishes_its_recordings_first(
    tmp_path: Path, ending: str, number: int | None, code: int
) -> None:
    async with bot(tmp_path, ending, "works") as child:
        found, out, err = await ended(child, number)
    assert found == code, err
    assert ("told\n" in out) == (ending == "has_own_handler")
    assert ("LookupError: a bot's own mistake" in err) == (ending == "raises")
    await assert_complete(tmp_path)


@pytest.mark.parametrize(("ending", "number", "code"), [ENDINGS[0], ENDINGS[3]])
async def test_what_a_hanging_store_does_not_take_is_kept_said_and_recovered(
    tmp_path: Path, ending: str, number: int | None, code: int
) -> None:
    async with bot(tmp_path, ending, "hangs", RECORDER_DRAIN_SECONDS="0.5") as child:
        found, _, err = await ended(child, number)
    assert found == code, err
    spool = tmp_path / "spool" / bot_child.RECORDING_ID
    assert spool.is_dir()
    assert str(spool) in err
    async with Recorder(bot_child.settings(tmp_path), recover=False) as recorder:
        [recovered] = await recorder.recover()
    assert recovered.outcome is Outcome.RECOVERED
    await assert_complete(tmp_path)


async def test_a_handler_the_bot_had_is_kept(tmp_path: Path) -> None:
    async with bot(tmp_path, "had_own_handler", "works") as child:
        code, out, err = await ended(child, signal.SIGTERM)
    assert (code, "mine\n" in out) == (9, True), err
    async with Recorder(bot_child.settings(tmp_path), recover=False) as recorder:
        await recorder.recover()
    await assert_complete(tmp_path)


async def test_a_closed_recorder_leaves_the_signal_as_it_was(tmp_path: Path) -> None:
    async with bot(tmp_path, "closes", "works") as child:
        code, out, err = await ended(child, signal.SIGTERM)
    assert (code, out) == (-signal.SIGTERM, "True\nready\n"), err
    await assert_complete(tmp_path)
