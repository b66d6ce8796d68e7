"""Timelines for tests, fed by seconds."""

from __future__ import annotations

from recorder.records import NO_TRACK, Kind, Record
from recorder.timeline import NS, Timeline

RATE = 8000
FRAME = 160  # 20 ms
HOLD_BACK = 2.0


def ns(seconds: float) -> int:
    return round(seconds * NS)


class Trace:
    """A timeline, fed by seconds."""

    def __init__(self, *sources: str, stall: float = 0.0) -> None:
        self.timeline = Timeline(RATE, HOLD_BACK, stall)
        for index, source in enumerate(sources or ("capture",)):
            payload = {"name": f"t{index}", "source": source}
            self.mark(Kind.TRACK, 0.0, index, payload)

    def mark(
        self,
        kind: Kind,
        at: float,
        track: int = NO_TRACK,
        payload: object = None,
        seconds: float | None = None,
    ) -> None:
        time = None if seconds is None else ns(seconds)
        self.timeline.feed(Record(kind, track, ns(at), ns(at), 0, 0, 1, 0, 0, time), payload)

    def frame(
        self,
        at: float,
        count: int = FRAME,
        track: int = 0,
        rate: int = RATE,
        written: float | None = None,
        pts: float | None = None,
    ) -> None:
        done = ns(at if written is None else written)
        time = None if pts is None else ns(pts)
        record = Record(Kind.AUDIO, track, ns(at), done, rate, 1, 1, 0, 2 * count, time)
        self.timeline.feed(record)

    def stop(self, at: float, *, discard_unheard: bool = False) -> None:
        self.mark(Kind.STOP, at, payload={"discard_unheard": discard_unheard})
        self.timeline.advance(ns(at), final=True)

    def spans(self, track: int = 0) -> list[tuple[float, float]]:
        """Where there is audio, seconds."""
        timeline = self.timeline
        return [(run.start / RATE, run.end / RATE) for run in timeline.runs if run.track == track]


def speak(trace: Trace, start: float, seconds: float, track: int = 0) -> None:
    """20 ms frames in real time; the first one's audio began at `start`."""
    for index in range(round(seconds * 50)):
        trace.frame(start + (index + 1) * 0.02, track=track)
