"""Blocks of recorded audio: each sample is handed on once, whatever a look at it comes to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import headless  # noqa: F401 - imports Pipecat without its warning
import numpy as np
import pytest

from recorder.chunk_reader import Planes
from recorder.engine import RecorderClosed
from recorder.pipecat import blocks
from recorder.pipecat.blocks import AudioBlocks


class Told:
    """A session that answers as it is told; with no more answers, it has ended."""

    recording_id = "told"
    sample_rate = 100
    frames = 1

    def __init__(self, total: int, answers: list[int | Exception]) -> None:
        self.total = total
        self.answers = answers
        self.ended = asyncio.Event()
        self.held: int | None = None

    def position(self) -> int:
        return self.total

    async def settled(self) -> int:
        answer = self.answers.pop(0)
        if not self.answers:
            self.ended.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sealed(self) -> int:
        return self.total

    async def read(self, start: int, end: int) -> Planes:
        return Planes(np.arange(start, end, dtype=np.int16)[None], ("user",))

    def hold(self, _holder: object, position: int) -> None:
        self.held = position

    def release(self, _holder: object) -> None:
        self.held = None


async def handed_on(session: Told, failed: list[Exception]) -> list[list[int]]:
    """Run blocks of ten samples to the end."""
    taken: list[list[int]] = []

    async def take(planes: Planes) -> None:
        taken.append(planes.samples[0].tolist())

    handing = AudioBlocks(10, 0.0, take, lambda: True, failed.append)
    await handing.run(cast(Any, session), session.ended)
    assert session.held is None
    return taken


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MIN_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(blocks, "RESAMPLE_SECONDS", 0.0)


async def test_what_is_held_up_comes_later_and_once() -> None:
    session = Told(47, [0, 0, 12, 12, 9, 12, 38, 38])
    taken = await handed_on(session, [])
    assert [len(block) for block in taken] == [10, 10, 10, 10, 7]
    assert [sample for block in taken for sample in block] == list(range(47))


async def test_a_look_that_fails_is_said_once_and_is_not_the_last() -> None:
    failed: list[Exception] = []
    errors: list[int | Exception] = [OSError("too many open files"), OSError("again")]
    taken = await handed_on(Told(35, [12, *errors, 30, 30]), failed)
    assert [sample for block in taken for sample in block] == list(range(35))
    assert [str(error) for error in failed] == ["too many open files"]


async def test_a_recorder_that_is_closed_is_not_asked_again() -> None:
    with pytest.raises(RecorderClosed):
        await handed_on(Told(35, [12, RecorderClosed("closed"), 30]), [])
