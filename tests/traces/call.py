"""Puts a call together: who speaks when, and how it reaches the recorder."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from traces.arrivals import Arrival, on_time
from traces.sources import Format, Sampled, Span, without
from traces.trace import Bounds, Event, Frame, Heard, Mark, Stream, Trace, TrackTruth
from traces.voice import Voice

Handover = Callable[[float, float], float]
"""From a chunk's first and last second of an utterance to when it is handed over."""

Stamp = Callable[[int, float], float | None]
"""From a frame's number and seconds on the source's clock to its pts."""


def own_clock(origin: float = 0.0) -> Stamp:
    """Stamp frames with the source's clock, from some origin on."""
    return lambda _index, seconds: origin + seconds


def whole_ms(_index: int, seconds: float) -> float:
    """Stamp frames with whole milliseconds, as telephony providers do."""
    return round(seconds * 1000) / 1000


def played_out(_first: float, last: float) -> float:
    """Hand a chunk over when it has been played: a transport that paces."""
    return last


def as_it_plays(first: float, _last: float) -> float:
    """Hand a chunk over when it begins to play."""
    return first


def ahead(seconds: float) -> Handover:
    """Hand over up to so much ahead of what plays."""
    return lambda first, _last: max(0.0, first - seconds)


def all_at_once(first: float, _last: float) -> float:
    """Hand everything over as fast as it comes: fifty times real time."""
    return first / 50


class Call:
    """A call in the making.

    Args:
        name: Of the trace.
        seconds: Its length.
        about: What is special.
        **options: Of `Trace`.
    """

    def __init__(self, name: str, seconds: float, about: str, **options: Any) -> None:
        self._name, self._seconds, self._about, self._options = name, seconds, about, options
        self._voices: dict[str, Voice] = {}
        self._heard: dict[str, list[Heard]] = {}
        self._streams: list[Stream] = []
        self._deaf: list[Span] = []
        self._content: dict[str, float] = {}
        self._needs: set[str] = set()

    def voice(self, track: str) -> Voice:
        """Return who speaks on a track."""
        if track not in self._voices:
            # By the call's name, too: recordings of two calls cannot be taken for each other.
            self._voices[track] = Voice(zlib.crc32(f"{self._name}/{track}".encode()))
            self._heard[track] = []
        return self._voices[track]

    # -- microphones -----------------------------------------------------------------------------

    def mic(
        self,
        track: str = "user",
        speech: Sequence[Span] | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
        form: Format | None = None,
        arrival: Arrival = on_time,
        ppm: float = 0.0,
        muted: Sequence[Span] = (),
        lost: Sequence[Span] = (),
        stamp: Stamp | None = None,
        sizes: Sequence[int] = (),
    ) -> Call:
        """Add a microphone, or more of one: frames without a break from `start` to `end`.

        Args:
            track: Whose.
            speech: When there is speech; always, if None. In between it sends silence.
            start: When it begins.
            end: When it ends; with the call, if None.
            form: Of its frames.
            arrival: When what was captured arrives.
            ppm: By how much its clock is fast.
            muted: When it sends nothing at all.
            lost: What never arrives: frames that begin in these spans.
            stamp: Its frames' pts.
            sizes: Samples of its frames, round and round; the format's, if none.
        """
        form = form or Format()
        end = self._seconds if end is None else end
        voice = self.voice(track)
        said = (
            [(start, end)] if speech is None else [(max(start, a), min(end, b)) for a, b in speech]
        )
        counts = tuple(sizes) or (form.count,)
        if stamp is not None:
            self._needs.add("pts")
        if form.encoding != "pcm16":
            self._needs.add("encoding")

        def captured() -> Iterator[tuple[int, int, int, float, float, float]]:
            """Frames: number, first sample, samples, when they begin, end, and arrive."""
            rate = form.rate * (1 + ppm * 1e-6)
            index = first = 0
            at = 0.0
            while True:
                count = counts[index % len(counts)]
                begins, ends = start + first / rate, start + (first + count) / rate
                if ends > end + 1e-9:
                    return
                if not any(a - 1e-9 <= begins < b - 1e-9 for a, b in (*muted, *lost)):
                    at = max(at, arrival(ends))
                    yield index, first, count, begins, ends, at
                index, first = index + 1, first + count

        def stream() -> Iterator[Event]:
            source = Sampled(voice, start, form, ppm, said)
            for index, first, count, _, _, at in captured():
                pts = None if stamp is None else stamp(index, first / form.rate)
                pcm = source.pcm(first, count)
                yield Frame(at, track, pcm, form.rate, form.channels, pts, form.encoding)

        # What reaches anybody is whole frames, and none that is on its way at the hang-up.
        if lost or muted or sizes or arrival is not on_time:
            sent = [
                (begins, ends)
                for _, _, _, begins, ends, at in captured()
                if at <= self._seconds + 1e-9
            ]
        else:  # the same, faster
            frame = form.count / (form.rate * (1 + ppm * 1e-6))
            sent = [(start, start + frame * int((end - start + 1e-9) / frame))]
        holes = without([(start, end)], _joined(sent))
        self._heard[track] += [Heard(a, b, a) for a, b in without(said, holes)]
        self._streams.append(stream)
        for a, b in without(said, muted):
            self._speaking("user", a, b)
        return self

    # -- the bot ---------------------------------------------------------------------------------

    def say(
        self,
        at: float,
        seconds: float,
        track: str = "bot",
        *,
        form: Format | None = None,
        chunk: float = 0.04,
        handover: Handover = played_out,
        interrupted: float | None = None,
        told: bool = True,
        ppm: float = 0.0,
        plays_at: float | None = None,
        played_every: float | None = None,
    ) -> Call:
        """Add an utterance of the bot's.

        Args:
            at: When it begins to be sent; it is heard from then on.
            seconds: Its length, were it not interrupted.
            track: Whose.
            form: Of its frames; their length is `chunk`.
            chunk: Seconds of a frame.
            handover: When chunks are handed over.
            interrupted: When it is cut off.
            told: Whether the recorder is told of the interruption.
            ppm: By how much the player's clock is fast.
            plays_at: When it begins to be heard, if later than `at`.
            played_every: Seconds between the transport's telling how much was played.
        """
        form = form or Format(rate=24_000)
        voice = self.voice(track)
        written = self._content.get(track, 0.0)
        self._content[track] = written + seconds
        pace = 1 + ppm * 1e-6
        heard_from = at if plays_at is None else plays_at
        heard_until = heard_from + seconds / pace
        if interrupted is not None:
            heard_until = min(heard_until, interrupted)
        count, whole = round(form.rate * chunk), round(seconds * form.rate)

        def handed(first: int) -> float:
            last = min(first + count, whole)
            return at + handover(first / form.rate, last / form.rate) / pace

        firsts = range(0, whole, count)
        if interrupted is not None:
            firsts = range(
                0, count * sum(handed(first) <= interrupted + 1e-9 for first in firsts), count
            )

        def stream() -> Iterator[Event]:
            source = Sampled(voice, written, form, 0.0, None)
            for first in firsts:
                pcm = source.pcm(first, min(count, whole - first))
                yield Frame(
                    handed(first),
                    track,
                    pcm,
                    form.rate,
                    form.channels,
                    encoding=form.encoding,
                    begins=handover is as_it_plays,
                )

        # Of a chunk that is handed over only after it was played, a cut leaves nothing.
        written_samples = min(firsts.stop, whole)
        heard_until = min(heard_until, heard_from + written_samples / form.rate / pace)
        last = handed(firsts[-1])
        self.marks(Mark(min(at, heard_from), "bot_started", track))
        self._streams.append(stream)
        if interrupted is not None and told:
            self.marks(Mark(interrupted, "interrupt", track), Mark(interrupted, "bot_stopped"))
        else:
            self.marks(Mark(last, "bot_stopped", track))
        if heard_until > heard_from:
            self._heard[track].append(Heard(heard_from, heard_until, written, pace))
        if played_every is not None:
            self._needs.add("played")
            ticks = int((heard_until - at) / played_every)
            times = [at + (tick + 1) * played_every for tick in range(ticks)] + [heard_until]
            self.marks(
                *(
                    Mark(time, "played", track, written + max(0.0, time - heard_from) * pace)
                    for time in times
                )
            )
        return self

    # -- what is told ----------------------------------------------------------------------------

    def pause(self, start: float, end: float) -> Call:
        """Have nothing recorded in between."""
        self._deaf.append((start, end))
        return self.marks(Mark(start, "pause"), Mark(end, "resume"))

    def marks(self, *marks: Mark) -> Call:
        """Add marks, oldest first."""
        self._streams.append(lambda: iter(marks))
        return self

    def _speaking(self, who: str, start: float, end: float) -> None:
        if who == "user":
            self.marks(Mark(start, "user_started"), Mark(end, "user_stopped"))

    def trace(self, bounds: Bounds | None = None) -> Trace:
        """Return the call."""
        if bounds is not None:
            self._options["bounds"] = bounds
        tracks = {
            name: TrackTruth(voice, tuple(self._truth(name)))
            for name, voice in self._voices.items()
        }
        return Trace(
            self._name,
            self._about,
            self._seconds,
            tracks,
            tuple(self._streams),
            needs=frozenset(self._needs),
            **self._options,
        )

    def _truth(self, track: str) -> list[Heard]:
        """What was heard, without what nobody was to record, in pieces as long as they can be."""
        pieces: list[Heard] = []
        for one in sorted(self._heard[track], key=lambda heard: heard.start):
            end = min(one.end, self._seconds)
            for start, until in without([(one.start, end)], self._deaf):
                content = one.content + (start - one.start) * one.pace
                piece = Heard(start, until, content, one.pace)
                if pieces and pieces[-1].joins(piece):
                    before = pieces.pop()
                    piece = Heard(before.start, until, before.content, before.pace)
                pieces.append(piece)
        return pieces


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Return spans with those that touch made one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and start - joined[-1][1] < 1e-6:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
