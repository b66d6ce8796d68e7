"""What one recording of the crash tests is: settings, and each frame and mark with its moment.

All of it follows from a seed. Frames hold noise that no other frame has, so that a sample that is
lost, moved or there twice shows in a comparison with the model (see `model.py`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recorder import Session, Settings, Track
from recorder.runs import Source
from recorder.timeline import NS

MIB = 1 << 20
JITTER_NS = 40_000_000  # below what counts as a gap
GAP_SECONDS = 0.2  # above what counts as jitter

RESAMPLING_SECONDS = 0.6
"""Input that a resampler may wait for behind a chunk's end: a block, its context, a frame's rest.

More than the hold-back gives it time for where a speaker falls silent just behind the chunk's end.
"""

LOOK_SECONDS = 0.1
"""Time between two looks whether a chunk is sealed that is due, where the recording is paced."""

OPUS_BITRATE = 256_000
"""Of each channel: noise is compared with the model, of which a rate for speech keeps little."""

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Voice:
    """A track, and the format its frames come in."""

    name: str
    source: Source
    rate: int
    channels: int


@dataclass(frozen=True)
class Event:
    """A call on the session.

    Attributes:
        written: Virtual time of the call, ns after the recording's start.
        kind: `audio`, `turn_start`, `turn_end`, `interrupt`, `pause`, `resume` or `stop`.
        voice: Index of the track.
        at: What the call is told, or None.
        first: Of the frame's samples, the index of the first in the track's noise.
        count: Samples of the frame.
        start: Where the frame belongs, ns; None for directly behind the one before.
    """

    written: int
    kind: str
    voice: int = -1
    at: int | None = None
    first: int = 0
    count: int = 0
    start: int | None = None


@dataclass
class Scenario:
    """One recording.

    Attributes:
        seed: What all follows from.
        paced: Whatever is due is waited for, so that audio does not outrun uploads.
        declared: How many of the voices are tracks from the beginning.
        format: Of the outputs.
        events: What is done, in order; the last is the stop.
    """

    seed: int
    paced: bool
    sample_rate: int
    chunk_seconds: float
    hold_back: float
    stall: float
    outputs: tuple[str, ...]
    keep_chunks: bool
    pre_roll: float
    voices: list[Voice]
    declared: int
    format: str = "wav"
    events: list[Event] = field(default_factory=list)

    @property
    def recording_id(self) -> str:
        return f"call-{self.seed}"

    @property
    def resampled(self) -> bool:
        """Whether some voice comes at another rate than the recording's."""
        return any(voice.rate != self.sample_rate for voice in self.voices)

    @property
    def waiting_seconds(self) -> float:
        """How long after it was heard audio is settled, at most; and the time to the next look."""
        resampling = RESAMPLING_SECONDS if self.resampled else 0
        return self.hold_back + self.stall + resampling + LOOK_SECONDS

    def settings(self, folder: Path, where: dict[str, Any]) -> Settings:
        """Return settings for a store and a spool below `folder`; `where` names another store."""
        return Settings(
            **{
                "bucket": (folder / "bucket").as_uri(),
                "spool_dir": folder / "spool",
                "sample_rate": self.sample_rate,
                "chunk_seconds": self.chunk_seconds,
                "hold_back_seconds": self.hold_back,
                "stall_seconds": self.stall,
                "outputs": self.outputs,
                "format": self.format,
                "opus_bitrate": OPUS_BITRATE,
                "keep_chunks": self.keep_chunks,
                "pre_roll_seconds": self.pre_roll,
                "part_bytes": 5 * MIB,
                **where,
            }
        )

    def tracks(self) -> list[Track]:
        """Return the tracks there are from the beginning; the others join with a frame."""
        return [Track(voice.name, voice.source) for voice in self.voices[: self.declared]]

    def noises(self) -> list[Samples]:
        """Return all that each track says: noise without zeros."""
        found = []
        for voice in range(len(self.voices)):
            frames = [event for event in self.events if event.voice == voice]
            total = max([0, *(frame.first + frame.count for frame in frames)])
            draw = np.random.default_rng([self.seed, voice])
            noise = draw.integers(1, 9000, total, dtype=np.int16)
            noise[::3] *= -1
            found.append(noise)
        return found

    def play(self, call: Session, event: Event, noises: list[Samples]) -> None:
        """Do what the event says, but for the stop."""
        at = None if event.at is None else call.zero + event.at / NS
        name = self.voices[event.voice].name
        if event.kind == "audio":
            voice = self.voices[event.voice]
            frame = noises[event.voice][event.first : event.first + event.count]
            pcm = np.repeat(frame, voice.channels).tobytes()
            call.write(name, pcm, voice.rate, voice.channels, at)
        elif event.kind == "turn_start":
            call.start_turn(name, at)
        elif event.kind == "turn_end":
            call.end_turn(name, at)
        elif event.kind == "interrupt":
            call.interrupt(name)
        elif event.kind == "pause":
            call.pause()
        elif event.kind == "resume":
            call.resume()


def make_scenario(seed: int, *, paced: bool, form: str = "wav") -> Scenario:
    """Return the scenario of a seed."""
    draw = random.Random(seed)
    long = draw.random() < 0.15  # several parts of 5 MiB
    rate = 192_000 if long else draw.choice([8_000, 16_000, 24_000, 48_000])
    choices = [("stereo",), ("mono",), ("tracks",)] if long else []
    choices += [] if long else [("stereo", "turns"), ("mono", "tracks"), ("stereo", "mono")]
    choices += [] if long else [("stereo", "mono", "tracks", "turns"), ("turns",), ("mono",)]
    resampled = not long and draw.random() < 0.5
    names = draw.choice([["user"], ["user", "bot"], ["user", "bot"], ["user", "bot", "guest"]])
    voices = [
        Voice(
            name,
            "playout" if name == "bot" else "capture",
            draw.choice([8_000, 16_000, 24_000, 44_100]) if resampled else rate,
            draw.choice([1, 1, 2]),
        )
        for name in names[: 2 if long else 3]
    ]
    hold_back = draw.choice([0.8, 1.0, 2.0] if resampled else [0.5, 1.0, 2.0])
    lengths = [2.0, 5.0] if long else [0.25, 0.5, 1.0, 1.0]
    if paced:  # what is settled by half a chunk's end is in the bucket before the chunk's
        hold_back = draw.choice([0.4, 0.5])
        lengths = [2.0, 5.0] if long else [2.0, 3.0, 4.0]
        lengths = [one for one in lengths if not resampled or one > 2.9]
    scenario = Scenario(
        seed=seed,
        paced=paced or draw.random() < 0.3,
        sample_rate=rate,
        chunk_seconds=draw.choice(lengths),
        hold_back=hold_back,
        stall=draw.choice([0.0, hold_back / 2]),
        outputs=draw.choice(choices),
        keep_chunks=draw.random() < 0.2,
        pre_roll=draw.choice([0.0, 0.3, 1.0]),
        voices=voices,
        declared=draw.randint(1, len(voices)),
        format=form,
    )
    # Or else the loss of a host could cost more than a chunk.
    assert not paced or 2 * scenario.waiting_seconds <= scenario.chunk_seconds
    frame_ms = 100 if long else draw.choice([10, 20, 20, 60])
    seconds = draw.uniform(8, 16) if long else draw.uniform(1.0, 12.0 if paced else 7.0)
    pause = draw.random() < 0.2
    events: list[tuple[int, int, Event]] = []
    for index in range(len(voices)):
        events += _speech(draw, scenario, index, frame_ms, seconds, jitter=not pause)
    if pause:
        step = frame_ms * 1_000_000
        first, last = sorted(draw.sample(range(round(seconds * 1000) // frame_ms), 2))
        last += round(GAP_SECONDS * 1000) // frame_ms + 1
        events = _with_pause(events, first * step, last * step, step)
    # At one moment frames come before marks that change what follows.
    scenario.events = [event for _, _, event in sorted(events, key=lambda item: item[:2])]
    last_ns = scenario.events[-1].written + draw.choice([0, 130_000_000])
    scenario.events.append(Event(last_ns, "stop"))
    return scenario


def _speech(
    draw: random.Random, scenario: Scenario, index: int, frame_ms: int, seconds: float, jitter: bool
) -> list[tuple[int, int, Event]]:
    """Return spans of speech of one track, each with a turn, as (moment, rank, event)."""
    voice = scenario.voices[index]
    step = frame_ms * 1_000_000
    count = voice.rate * frame_ms // 1000
    found: list[tuple[int, int, Event]] = []
    position, first = 0 if draw.random() < 0.5 else draw.randrange(1, 40) * step, 0
    silent_since = 0
    while position < seconds * NS or not found:
        frames = draw.randint(3, max(4, round(seconds * 1000) // frame_ms))
        start, ahead = position, voice.source == "playout" and draw.random() < 0.5
        # A sentence that comes at once and is as long as the silence before it could be what a
        # stall of a bot that paces has left to make up for.
        if ahead and abs(frames * step - (start - silent_since)) < GAP_SECONDS * NS:
            frames += round(2 * GAP_SECONDS * NS / step)
        said = draw.random() < 0.7
        if said:
            begun = Event(start + step, "turn_start", index, start)
            found.append((start + step, 0, begun))
        latest = 0
        for number in range(frames):
            arrival = start if ahead else start + (number + 1) * step
            at = arrival if number == 0 else None
            if ahead:  # of a burst that is cut off nobody could tell; so it says when it is played
                at = start + (number + 1) * step
            if jitter and number and not ahead:
                arrival = max(latest, arrival + draw.randrange(JITTER_NS // 1000) * 1000)
                at = draw.choice([None, arrival])
            begins = start if number == 0 else None
            event = Event(arrival, "audio", index, at, first, count, begins)
            found.append((arrival, 1, event))
            latest, first = arrival, first + count
        silent_since = end = start + frames * step
        if ahead and draw.random() < 0.5:
            silent_since = end = start + draw.randint(1, frames) * step
            found.append((end, 2, Event(end, "interrupt", index)))
        if said:
            late = end + JITTER_NS  # behind the last frame, which may be late
            found.append((late, 3, Event(late, "turn_end", index, end)))
        gap = round(GAP_SECONDS * NS) + draw.choice([0, 0.5, 1.5]) * NS
        position = end + round(gap / step + 1) * step
    return found


def _with_pause(
    events: list[tuple[int, int, Event]], first: int, last: int, frame_ns: int
) -> list[tuple[int, int, Event]]:
    """Return the events but for the frames of a pause, and with its marks.

    The first frame behind a gap tells where it belongs, as a new span's first does.
    """
    kept: list[tuple[int, int, Event]] = []
    broken: set[int] = set()
    for moment, rank, event in sorted(events, key=lambda item: item[:2]):
        if event.kind == "audio" and first < moment <= last:
            broken.add(event.voice)
            continue
        begun = event
        if event.kind == "audio" and event.voice in broken:
            broken.discard(event.voice)
            if event.start is None:
                begun = replace(event, start=moment - frame_ns)
        kept.append((moment, rank, begun))
    kept += [(first, 4, Event(first, "pause")), (last, 5, Event(last, "resume"))]
    return kept
