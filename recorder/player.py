"""Plays sound files into a session as a live call would come: frame by frame, each on its time.

With a `VirtualClock`, the clock moves along with the audio, so that a file can be played at any
speed and comes out with the same samples. Without one, playing takes as long as the files do.
"""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from recorder.containers.wav import InvalidWav, WavInfo, parse_header
from recorder.frame_limits import MAX_CHANNELS, MAX_RATE, MIN_RATE
from recorder.names import shown
from recorder.session import Session
from recorder.speakers import Track
from uploader.clock import VirtualClock
from uploader.errors import BotRecorderError

FRAMES_PER_SECOND = 50
FRAME_SECONDS = 1 / FRAMES_PER_SECOND

LOUD_RMS = 330.0
"""Root mean square of a 16-bit frame that counts as speech: 1 % of full scale, -40 dBFS."""
LOUD_FRAMES = 3
"""Loud frames in a row that make a turn begin: a click is none."""
MIN_PAUSE_SECONDS = 0.6
"""A turn has ended when its speaker was quiet for so long."""

_HEADER_BYTES = 4096
_MAX_HEADER_BYTES = 16 * 1024 * 1024
"""Further than this into a file, nobody puts the beginning of its samples."""
_BUFFER_BYTES = 256 * 1024
_EARLY_SECONDS = 0.002
"""Shorter waits are not worth a timer."""
_LONGEST_SLEEP_SECONDS = 0.1
_IMPATIENT_SECONDS = 1.0


class InputError(BotRecorderError, ValueError):
    """A file cannot be played."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file that is one track of the call."""

    track: Track
    path: Path


class WavFile:
    """A 16-bit PCM WAV or RF64 file, read from its beginning to its end in frames.

    Attributes:
        path: Of the file.
        sample_rate: Hertz.
        channels: Interleaved samples of each frame.
        samples: Of each channel, that are really there.
        claimed_samples: What the header says; more than `samples` if the file was cut off.
    """

    def __init__(self, path: Path, file: BinaryIO, info: WavInfo, samples: int) -> None:
        self.path = path
        self.sample_rate = info.sample_rate
        self.channels = info.channels
        self.samples = samples
        self.claimed_samples = info.samples
        self._file = file

    @property
    def seconds(self) -> float:
        """Length of the file."""
        return self.samples / self.sample_rate

    @property
    def cut_off(self) -> bool:
        """Whether samples are missing; a size of nearly 4 GiB says only "not known"."""
        unknown = self.claimed_samples * 2 * self.channels >= 0x7FFFFF00
        return self.samples < self.claimed_samples and not unknown

    def frames(self) -> Iterator[tuple[bytes, int]]:
        """Yield the next frame and the number of the sample behind its last.

        Frame i ends at sample `(i + 1) * rate // 50`, so that rates that 20 ms do not divide
        drift no further than a sample; the last frame is shorter.
        """
        position, index = 0, 0
        width = 2 * self.channels
        while position < self.samples:
            index += 1
            end = min(index * self.sample_rate // FRAMES_PER_SECOND, self.samples)
            data = self._file.read((end - position) * width)
            whole = len(data) // width
            if not whole:
                return
            position += whole
            yield data[: whole * width], position


@contextmanager
def open_wav(path: Path) -> Iterator[WavFile]:
    """Open a file for playing.

    Raises:
        InputError: It is not there, may not be read, or is no file that can be played.
    """
    with ExitStack() as stack:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(f"{_named(path)} is not a regular file")
            file = stack.enter_context(path.open("rb", buffering=_BUFFER_BYTES))
            size = path.stat().st_size
            info = _read_header(file, size)
            file.seek(info.data_offset)
        except OSError as error:
            raise InputError(f"cannot read {_named(path)}: {error.strerror}") from error
        except InvalidWav as error:
            raise InputError(
                f"cannot play {_named(path)}: {error}",
                hint="allowed are WAV and RF64 files of 16-bit PCM; "
                "convert it with: ffmpeg -i FILE -c:a pcm_s16le NEW.wav",
            ) from error
        if not MIN_RATE <= info.sample_rate <= MAX_RATE or info.channels > MAX_CHANNELS:
            raise InputError(
                f"cannot play {_named(path)}: {info.channels} channels at {info.sample_rate} Hz",
                hint=f"allowed are 1 to {MAX_CHANNELS} channels at {MIN_RATE} to {MAX_RATE} Hz",
            )
        there = max(0, size - info.data_offset) // (2 * info.channels)
        if there and not info.samples:
            raise InputError(
                f"cannot play {_named(path)}: its header says that it is empty, but "
                f"{size - info.data_offset} bytes follow",
                hint="mend it with: ffmpeg -i FILE -c copy NEW.wav",
            )
        yield WavFile(path, file, info, min(info.samples, there))


def _named(path: Path) -> str:
    return shown(str(path), limit=4096)  # where a path ends is what tells it from others


def _read_header(file: BinaryIO, size: int) -> WavInfo:
    """Return what the header says; it may have large chunks before the samples."""
    amount = _HEADER_BYTES
    while True:
        file.seek(0)
        data = file.read(amount)
        try:
            return parse_header(data)
        except InvalidWav:
            is_wav = data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"
            if not is_wav or amount >= min(size, _MAX_HEADER_BYTES):
                raise
        amount *= 16


class TurnGate:
    """Finds one speaker's turns by the level of the frames alone.

    A turn begins with `LOUD_FRAMES` loud frames in a row and ends when `MIN_PAUSE_SECONDS` have
    passed without one. That tells speech from silence in a clean recording; it does not tell
    speech from noise. The marks lie where the sound began and ended, so that the end is marked a
    pause late: a session whose `hold_back_seconds` is less than two pauses moves it.
    """

    def __init__(self) -> None:
        self.speaking = False
        self._loud = 0
        self._start = 0.0
        self._quiet_since = 0.0

    def feed(self, level: float, start: float, end: float) -> tuple[str, float] | None:
        """Take a frame's level and its times; return a mark, `start` or `end`, and its time."""
        if level >= LOUD_RMS:
            if self._loud == 0:
                self._start = start
            self._loud += 1
            self._quiet_since = end
            if not self.speaking and self._loud >= LOUD_FRAMES:
                self.speaking = True
                return "start", self._start
            return None
        self._loud = 0
        if self.speaking and end - self._quiet_since >= MIN_PAUSE_SECONDS:
            return self.finish()
        return None

    def finish(self) -> tuple[str, float] | None:
        """End the turn that goes on, if there is one; return its mark."""
        if not self.speaking:
            return None
        self.speaking = False
        return "end", self._quiet_since


def level(frame: bytes) -> float:
    """Return the root mean square of 16-bit samples."""
    samples = np.frombuffer(frame, "<i2").astype(np.float64)
    return float(np.sqrt(np.mean(samples * samples))) if len(samples) else 0.0


@dataclass(slots=True)
class _Voice:
    """One file under way."""

    track: str
    file: WavFile
    frames: Iterator[tuple[bytes, int]]
    gate: TurnGate | None
    next: tuple[bytes, int] | None = field(default=None)

    def due(self) -> float:
        """When the next frame's last sample arrives, seconds after the call's start."""
        return float("inf") if self.next is None else self.next[1] / self.file.sample_rate


class Player:
    """Plays files into a session.

    Args:
        files: Opened files and their tracks' names.
        clock: The recorder's clock, which playing moves; None if that is the system's.
        speed: Times real time; 0 is as fast as possible. Only a virtual clock has another than 1.
        flush_seconds: How often, in seconds of the call, to wait until what is due is in the
            store, where the clock is virtual: audio that comes faster than it is spoken must not
            fill the spool.
        patience_seconds: Longest such wait. A store that takes longer is not waited for again,
            as a live call would not.
        mark_turns: Whether to mark speaking turns; see `TurnGate`.
        on_progress: Told the seconds played, about ten times a second of the call.

    Raises:
        ValueError: Another speed than 1 without a virtual clock, or a negative one.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, WavFile]],
        *,
        clock: VirtualClock | None = None,
        speed: float = 1.0,
        flush_seconds: float = 30.0,
        patience_seconds: float = 30.0,
        mark_turns: bool = False,
        on_progress: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        if not 0 <= speed < float("inf") or (clock is None and speed != 1):
            raise ValueError(f"speed={speed}: not to be had")
        self.seconds = max((file.seconds for _, file in files), default=0.0)
        self._files = files
        self._clock = clock
        self._speed = speed
        self._flush_seconds = flush_seconds
        self._patience = patience_seconds
        self._mark_turns = mark_turns
        self._on_progress = on_progress
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End playing after the frame that is under way; a store is not waited for any more."""
        self._stopped.set()

    async def play(self, call: Session) -> None:
        """Play all files, from the session's beginning on; return when the longest has ended."""
        voices = [
            _Voice(name, file, file.frames(), TurnGate() if self._mark_turns else None)
            for name, file in self._files
        ]
        for voice in voices:
            voice.next = next(voice.frames, None)
        began = call.zero if self._clock is None else time.monotonic()
        index = 0
        flush_at = self._flush_seconds
        while not self._stopped.is_set() and any(voice.next is not None for voice in voices):
            index += 1
            now = min(index * FRAME_SECONDS, self.seconds)
            await self._wait(began, now, index)
            if self._clock is not None:
                self._clock.advance_to(call.zero + now)
            for voice in voices:
                self._play_due(call, voice, index * FRAME_SECONDS)
                if voice.next is None and voice.gate is not None:  # its file has ended: silence
                    self._mark(call, voice.track, voice.gate.feed(0, now, now))
            if index % 5 == 0:
                self._on_progress(now)
            if self._clock is not None and now >= flush_at:
                flush_at += self._flush_seconds
                await self._flush(call)
        for voice in voices:
            if voice.gate is not None:
                self._mark(call, voice.track, voice.gate.finish())
        self._on_progress(min(index * FRAME_SECONDS, self.seconds))

    async def _wait(self, began: float, now: float, index: int) -> None:
        """Wait until `now` seconds of the call have passed at the player's speed."""
        if self._speed == 0:
            if index % FRAMES_PER_SECOND == 0:
                await asyncio.sleep(0)
            return
        while not self._stopped.is_set():
            left = began + now / self._speed - time.monotonic()
            if left <= (0 if self._clock is None else _EARLY_SECONDS):
                if index % FRAMES_PER_SECOND == 0:
                    await asyncio.sleep(0)
                return
            await asyncio.sleep(min(left, _LONGEST_SLEEP_SECONDS))

    def _play_due(self, call: Session, voice: _Voice, until: float) -> None:
        rate = voice.file.sample_rate
        while voice.next is not None and voice.due() <= until + 1e-9:
            frame, end = voice.next
            start = end - len(frame) // (2 * voice.file.channels)
            call.write(voice.track, frame, rate, voice.file.channels, at=call.zero + end / rate)
            if voice.gate is not None:
                mark = voice.gate.feed(level(frame), start / rate, end / rate)
                self._mark(call, voice.track, mark)
            voice.next = next(voice.frames, None)

    @staticmethod
    def _mark(call: Session, track: str, mark: tuple[str, float] | None) -> None:
        if mark is None:
            return
        kind, seconds = mark
        if kind == "start":
            call.start_turn(track, at=call.zero + seconds)
        else:
            call.end_turn(track, at=call.zero + seconds)

    async def _flush(self, call: Session) -> None:
        flush = asyncio.ensure_future(call.flush())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait(
                (flush, stopped), timeout=self._patience, return_when=asyncio.FIRST_COMPLETED
            )
            if flush.done():
                flush.result()
            else:
                self._patience = min(self._patience, _IMPATIENT_SECONDS)
        finally:
            flush.cancel()
            stopped.cancel()
            await asyncio.gather(flush, stopped, return_exceptions=True)
