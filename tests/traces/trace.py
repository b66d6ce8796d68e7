"""A call as it happened, and as a recorder gets to see it, in virtual time.

All times are seconds of wall clock from the recording's sample 0 on, unless said otherwise.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from traces.voice import Voice

Encoding = Literal["pcm16", "mulaw", "alaw"]
MarkKind = Literal[
    "interrupt",
    "played",
    "pause",
    "resume",
    "user_started",
    "user_stopped",
    "bot_started",
    "bot_stopped",
]

FRAME_MS = 20.0


@dataclass(frozen=True, slots=True)
class Frame:
    """Audio that a recorder is handed at `at`.

    Attributes:
        at: When it arrives.
        track: Whose.
        pcm: Interleaved samples.
        rate: Hz.
        channels: 1 or more.
        pts: Seconds of its first sample on the source's own clock, if the source tells.
        encoding: Of `pcm`.
        begins: Whether it begins to play at `at`, and who hands it on knows.
    """

    at: float
    track: str
    pcm: bytes
    rate: int
    channels: int = 1
    pts: float | None = None
    encoding: Encoding = "pcm16"
    begins: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        width = self.channels * (2 if self.encoding == "pcm16" else 1)
        return len(self.pcm) // width / self.rate


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that is told and is no audio.

    Attributes:
        at: When.
        kind: What. The `user_` and `bot_` ones are what a pipeline tells of who speaks.
        track: Whose, if it is about one.
        seconds: Of `played`: how much of all that was written so far had been played at `at`.
    """

    at: float
    kind: MarkKind
    track: str = ""
    seconds: float = 0.0


Event = Frame | Mark
Stream = Callable[[], Iterator[Event]]
"""Makes the events of one source, oldest first, as often as it is called."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Speech without a break, where it really was.

    Attributes:
        start: When it began.
        end: When it ended.
        content: Which second of the voice was heard at `start`.
        pace: Seconds of the voice per second of wall clock.
    """

    start: float
    end: float
    content: float
    pace: float = 1.0

    def joins(self, later: Heard) -> bool:
        """Return whether `later` goes on where this ends."""
        goes_on = self.content + (self.end - self.start) * self.pace
        return (
            abs(self.end - later.start) < 1e-6
            and abs(goes_on - later.content) < 1e-6
            and self.pace == later.pace
        )


@dataclass(frozen=True, slots=True)
class TrackTruth:
    """What was said and heard on a track.

    Attributes:
        voice: The speaker's.
        heard: All of it, in order.
    """

    voice: Voice
    heard: tuple[Heard, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a recording may be off by, milliseconds.

    Attributes:
        length: Its length, either way.
        placement: Where any of the speech lies, either way.
        inserted: Silence inside speech.
        lost: Speech that is nowhere in the recording, or chopped so that 0.2 s of it are not found.
        phantom: Sound that was not heard.
        why: The reason, where a bound is wider than a frame.
    """

    length: float = FRAME_MS
    placement: float = FRAME_MS
    inserted: float = 0.0
    lost: float = 0.0
    phantom: float = FRAME_MS
    why: str = ""


@dataclass(frozen=True)
class Trace:
    """A call.

    Attributes:
        name: Short and unique.
        about: What is special about it, in a line.
        seconds: How long it took.
        tracks: What was heard, by track.
        streams: What the recorder is handed.
        bounds: What is asked of a recording of it.
        needs: What a recorder must be able to take: `pts`, `played`, `encoding`.
        every: Seconds between the stretches of speech that are looked for.
        in_pipecat: Whether it can be told in Pipecat's frames.
        long: Whether it is for long runs only.
        block_seconds: Length of the blocks that are handed on while it goes on, if that matters.
    """

    name: str
    about: str
    seconds: float
    tracks: Mapping[str, TrackTruth]
    streams: tuple[Stream, ...]
    bounds: Bounds = field(default_factory=Bounds)
    needs: frozenset[str] = frozenset()
    every: float = 0.1
    in_pipecat: bool = True
    long: bool = False
    block_seconds: float | None = None

    def events(self) -> Iterator[Event]:
        """Return what happens while the call goes on, oldest first."""
        for event in heapq.merge(*(stream() for stream in self.streams), key=_when):
            if event.at <= self.seconds + 1e-9:
                yield event

    def __str__(self) -> str:
        return self.name


def _when(event: Event) -> float:
    return event.at
