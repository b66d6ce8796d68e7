"""Plays decoded files into a session, as fast as they can be taken, each sample in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from recorder.imports.arrange import Voice
from recorder.imports.audio import Audio, broken, open_audio
from recorder.layouts import Samples
from recorder.player import FRAMES_PER_SECOND as TURN_FRAMES_PER_SECOND
from recorder.player import TurnGate, level
from recorder.quota import SpoolFull
from recorder.session import Session
from uploader.clock import VirtualClock

FRAMES_PER_SECOND = 10
"""Frames of 0.2 s and more are taken for all that a bot has to say so far; see `Session.write`."""


class _Reader:
    """One file: what comes next of it, on the recording's clock, at the file's own rate."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self.rate = voice.measured.sample_rate
        self.start = round(voice.offset * self.rate)
        self.end = self.start + voice.measured.samples
        self.position = self.start
        self._audio: Audio | None = None
        self._blocks: Iterator[tuple[int, Samples]] = iter(())
        self._next: tuple[int, Samples] | None = None
        self._kept: list[Samples] = []
        self._loaded = self.start

    def load(self, until: int) -> None:
        """Decode up to sample `until`, or the end. Blocking.

        Raises:
            UnreadableSource: The file is not what it was when it was measured.
        """
        until = min(until, self.end)
        name = self.voice.file.source.url
        if self._audio is None:
            self._audio = open_audio(self.voice.file.path, name)
            self._blocks = self._audio.blocks()
        while self._loaded < until:
            if self._next is None:
                self._next = next(self._blocks, None)
            if self._next is None:
                raise broken(name, "it has become shorter")
            offset, block = self._next
            hole = min(until, self.start + offset) - self._loaded
            if hole > 0:  # nobody sent anything: a microphone that was muted
                self._kept.append(np.zeros((hole, block.shape[1]), np.int16))
                self._loaded += hole
                continue
            self._kept.append(block)
            self._loaded += len(block)
            self._next = None
        if until == self.end:
            self.close()

    def take(self, until: int) -> Samples:
        """Return the samples up to `until`, which are loaded; and go on behind them."""
        wanted = max(0, min(until, self.end) - self.position)
        taken: list[Samples] = []
        while wanted:
            block = self._kept[0]
            taken.append(block[:wanted])
            if len(block) > wanted:
                self._kept[0] = block[wanted:]
            else:
                self._kept.pop(0)
            self.position += len(taken[-1])
            wanted -= len(taken[-1])
        return np.concatenate(taken) if taken else np.zeros((0, 1), np.int16)

    @property
    def done(self) -> bool:
        """Whether all of it was taken."""
        return self.position >= self.end

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._audio is not None:
            self._audio.close()


async def feed(
    call: Session,
    clock: VirtualClock,
    voices: Sequence[Voice],
    *,
    flush_seconds: float,
    mark_turns: bool = False,
    on_progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write all files into a session, and move its clock along, to the end of the last.

    What is due is sent every `flush_seconds`, while what follows is decoded; then it is awaited, so
    that the spool holds no more than twice that.

    Args:
        call: The session.
        clock: Its clock.
        voices: The files, and their places.
        flush_seconds: See above.
        mark_turns: Whether to mark speaking turns, by level alone; see `recorder.player.TurnGate`.
        on_progress: Told the seconds that are written, once for each.

    Raises:
        UnreadableSource: A file is not what it was when it was measured.
        SpoolFull: Audio could not be accepted.
    """
    readers = [_Reader(voice) for voice in voices]
    turns = _Turns(call) if mark_turns else None
    flush_at = flush_seconds
    flush: asyncio.Task[None] | None = None
    second = 0
    try:
        while any(not reader.done for reader in readers):
            for reader in readers:
                if not reader.done and reader.start < (second + 1) * reader.rate:
                    await asyncio.to_thread(reader.load, (second + 1) * reader.rate)
            for frame in range(1, FRAMES_PER_SECOND + 1):
                until = Fraction(second * FRAMES_PER_SECOND + frame, FRAMES_PER_SECOND)
                _write(call, clock, readers, until, turns)
            second += 1
            if call.refused:
                raise SpoolFull(
                    "the spool cannot take what is imported",
                    hint="see RECORDER_SPOOL_MAX_BYTES, and the disk it is on",
                )
            on_progress(clock.monotonic() - call.zero)
            if clock.monotonic() - call.zero >= flush_at:
                flush_at += flush_seconds
                if flush is not None:
                    await flush
                flush = asyncio.create_task(call.flush())
        if turns is not None:
            turns.finish()
        if flush is not None:
            await flush
    finally:
        if flush is not None and not flush.done():
            flush.cancel()
            await asyncio.gather(flush, return_exceptions=True)
        for reader in readers:
            reader.close()


def _write(
    call: Session,
    clock: VirtualClock,
    readers: Sequence[_Reader],
    until: Fraction,
    turns: _Turns | None,
) -> None:
    """Write what comes before a time."""
    ready: list[tuple[_Reader, Samples]] = []
    now = Fraction(0)
    for reader in [one for one in readers if not one.done]:
        pcm = reader.take(int(until * reader.rate))
        if len(pcm):
            ready.append((reader, pcm))
        now = max(now, Fraction(reader.end, reader.rate) if reader.done else until)
    if not now:
        return
    clock.advance_to(max(clock.monotonic(), call.zero + float(now)))
    for reader, pcm in ready:
        end = reader.position / reader.rate
        tracks = reader.voice.tracks
        planes = [pcm] if len(tracks) == 1 else [pcm[:, index] for index in range(len(tracks))]
        for name, plane in zip(tracks, planes, strict=True):
            channels = plane.shape[1] if plane.ndim == 2 else 1
            call.write(name, plane.tobytes(), reader.rate, channels, at=call.zero + end)
            if turns is not None:
                turns.listen(name, plane, end, reader.rate)


class _Turns:
    """Marks the turns of all tracks, as `recorder record` does."""

    def __init__(self, call: Session) -> None:
        self._call = call
        self._gates: dict[str, TurnGate] = {}

    def listen(self, track: str, pcm: Samples, end: float, rate: int) -> None:
        """Take samples of a track that end at a time, seconds; in frames of 20 ms."""
        gate = self._gates.setdefault(track, TurnGate())
        step = max(1, rate // TURN_FRAMES_PER_SECOND)
        for first in range(0, len(pcm), step):
            frame = pcm[first : first + step]
            start = end - (len(pcm) - first) / rate
            mark = gate.feed(level(frame.tobytes()), start, start + len(frame) / rate)
            self._mark(track, mark)

    def finish(self) -> None:
        """End the turns that go on."""
        for track, gate in self._gates.items():
            self._mark(track, gate.finish())

    def _mark(self, track: str, mark: tuple[str, float] | None) -> None:
        if mark is not None:
            told = self._call.start_turn if mark[0] == "start" else self._call.end_turn
            told(track, at=self._call.zero + mark[1])
