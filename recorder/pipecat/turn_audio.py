"""Speech as audio for its handlers: by run of speech, and by turn of the conversation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from recorder import layouts
from recorder.pipecat.handlers import RUN_AUDIO, TURN_AUDIO, Handlers
from recorder.pipecat.lanes import Lanes
from recorder.pipecat.turns import Run, Speaker, Turn
from recorder.placement import JITTER_SECONDS

if TYPE_CHECKING:
    from recorder.chunk_reader import Planes
    from recorder.session import Session


_TURNS = "turns"
"""The lane of turns: one after the other, and in each the user before the bot."""


class TurnAudio:
    """Reads what was said and hands it on, in order, as it stands when it ends.

    Args:
        session: Waits for the session; None if there will be none.
        sample_rate: Of the recording, Hz.
        handlers: Who is told.
        lanes: Keep the order.
        failed: Told of what could not be read.
    """

    def __init__(
        self,
        session: Callable[[], Awaitable[Session | None]],
        sample_rate: int,
        handlers: Handlers,
        lanes: Lanes,
        failed: Callable[[Exception], None],
    ) -> None:
        self._session = session
        self._rate = sample_rate
        self._handlers = handlers
        self._lanes = lanes
        self._failed = failed
        self._due: Counter[int] = Counter()
        self._left: Turn | None = None
        self._kept: dict[Speaker, bytes] = {}

    @property
    def wanted(self) -> bool:
        """Whether anybody takes turn audio."""
        return self._handlers.wanted(*TURN_AUDIO.values(), *RUN_AUDIO.values())

    def needed_from(self, otherwise: int) -> int:
        """Return the first sample still to be handed on, or `otherwise`."""
        return min([otherwise, *self._due])

    def run_ended(self, speaker: Speaker, run: Run) -> None:
        """Hand on a run of speech."""
        name = RUN_AUDIO[speaker]
        if self._handlers.wanted(name):
            self._due[run.start] += 1
            self._lanes.add(name, partial(self._tell_run, name, speaker, run))

    def turn_ended(self, turn: Turn) -> None:
        """Hand on what each speaker said in a turn."""
        for speaker, name in TURN_AUDIO.items():
            runs = turn.runs[speaker]
            if runs and self._handlers.wanted(name):
                self._due[runs[0].start] += 1
                self._lanes.add(_TURNS, partial(self._tell_turn, name, speaker, turn))

    def leave(self, turn: Turn) -> None:
        """Recording has ended in this turn."""
        self._left = turn

    def left_ended(self, number: int) -> None:
        """The turn in which recording had ended is over."""
        turn, self._left = self._left, None
        if turn is not None:
            turn.number = number
            self.turn_ended(turn)

    async def finish(self) -> None:
        """Wait for handlers, and keep in memory what the turn that goes on may still need."""
        await self._lanes.drained(_TURNS, *RUN_AUDIO.values())
        left = self._left
        if left is not None:
            for speaker, name in TURN_AUDIO.items():
                if left.runs[speaker] and self._handlers.wanted(name):
                    self._kept[speaker] = await self._read(speaker, left.runs[speaker])

    async def _tell_run(self, name: str, speaker: Speaker, run: Run) -> None:
        try:
            audio = bytearray(await self._read(speaker, [run]))
            if audio:
                await self._handlers.call(name, audio, self._rate, 1)
        finally:
            self._done(run.start)

    async def _tell_turn(self, name: str, speaker: Speaker, turn: Turn) -> None:
        runs = turn.runs[speaker]
        try:
            audio = self._kept.pop(speaker, b"") or await self._read(speaker, runs)
            if audio:
                await self._handlers.call_with_turn(name, turn.number or 0, audio, self._rate)
        finally:
            self._done(runs[0].start)

    def _done(self, start: int) -> None:
        self._due[start] -= 1
        self._due += Counter()  # drops what is zero

    async def _read(self, speaker: Speaker, runs: Sequence[Run]) -> bytes:
        session = await self._session()
        audio = bytearray()
        if session is not None:
            try:
                for run in runs:
                    audio += await self._said(session, speaker, run)
            except Exception as error:
                self._failed(error)
        return bytes(audio)

    async def _said(self, session: Session, speaker: Speaker, run: Run) -> bytes:
        if speaker == "bot":
            planes = await session.read(run.start, run.end)
            return (await asyncio.to_thread(sides, planes))[1]
        jitter = int(JITTER_SECONDS * self._rate)
        start = max(0, run.start - jitter) if run.begins else run.start
        planes = await session.read(start, run.end + jitter)
        user, _ = await asyncio.to_thread(sides, planes)
        return fitted(user, run.start - start, run.end - run.start, jitter)


def fitted(audio: bytes, before: int, length: int, jitter: int) -> bytes:
    """Return the run of speech that is in 16-bit audio where it was expected, or close to it.

    Args:
        audio: With up to `jitter` samples more behind its expected end.
        before: Samples before its expected start, silent to where it starts; 0 if audio goes on.
        length: Of the run, samples.
        jitter: How far, in samples, it may lie from where it was expected.
    """
    samples = np.frombuffer(audio, "<i2")
    sounds = np.flatnonzero(samples[: before + jitter])
    first = int(sounds[0]) if before and len(sounds) else before
    end = first + length
    tail = samples[max(first, end - jitter) : end + jitter]
    sounds = np.flatnonzero(tail)
    if len(sounds) and sounds[-1] + 1 < len(tail):  # then it has ended there
        end = max(first, end - jitter) + int(sounds[-1]) + 1
    return samples[first:end].tobytes()


def sides(planes: Planes) -> tuple[bytes, bytes]:
    """Return what the users said and what the bot said, 16-bit mono."""
    frames = layouts.stereo(planes.samples, planes.tracks)
    return frames[:, 0].astype("<i2").tobytes(), frames[:, 1].astype("<i2").tobytes()
