"""A trace through a `Session`, in virtual time, to files in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from recorder import Recorder, Session, Settings, VirtualClock
from traces.measure import Errors, measure
from traces.trace import Event, Frame, Mark, Trace

Samples = NDArray[np.int16]

RATE = 24_000
LONG_SECONDS = 100.0
FLUSH_SECONDS = 7.0
"""Chunks are sealed while the call goes on, as in life; not as often as the clock's moves."""


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Return settings that make one file a track, in a folder."""
    values: dict[str, Any] = {
        "bucket": (folder / "bucket").as_uri(),
        "spool_dir": folder / "spool",
        "outputs": ("tracks",),
        "sample_rate": RATE,
        "chunk_seconds": 5.0,
        "drain_seconds": 300,
        **changes,
    }
    return Settings(**values)


def chunk_seconds(trace: Trace) -> float:
    """Return how long the chunks of a recording should be."""
    return trace.block_seconds or (30.0 if trace.seconds > LONG_SECONDS else 5.0)


async def record(trace: Trace, recorder: Recorder, clock: VirtualClock) -> dict[str, Samples]:
    """Play a trace to a session; return the recorded tracks."""
    call = await recorder.start(trace.name, tracks=("user", "bot"), outputs=("tracks",))
    flushed = 0.0
    for event in trace.events():
        clock.advance_to(call.zero + event.at)
        if event.at - flushed >= FLUSH_SECONDS:
            await call.flush()
            flushed = event.at
        tell(call, event)
    clock.advance_to(call.zero + trace.seconds)
    result = await call.stop(discard_unheard=True)
    if not result.durable:
        raise RuntimeError(f"{trace.name} was not recorded: {result}")
    return read_tracks(recorder.settings, trace.name)


def tell(call: Session, event: Event) -> None:
    """Hand an event to a session, with all that the session can take of it."""
    at = call.zero + event.at
    if isinstance(event, Frame):
        more: dict[str, Any] = {}
        if event.pts is not None:
            more["pts"] = event.pts
        if event.encoding != "pcm16":
            more["encoding"] = event.encoding
        at += event.seconds if event.begins else 0.0
        call.write(event.track, event.pcm, event.rate, event.channels, at, **more)
        return
    mark(call, event, at)


def mark(call: Session, event: Mark, at: float) -> None:
    """Tell a session what is no audio; what pipelines tell of speakers is none of its business."""
    if event.kind == "interrupt":
        call.interrupt(event.track, at)
    elif event.kind == "pause":
        call.pause()
    elif event.kind == "resume":
        call.resume()
    elif event.kind == "played":
        call.played(event.track, event.seconds, at)


def read_tracks(settings: Settings, recording_id: str) -> dict[str, Samples]:
    """Return what the finished recording's files hold, by track."""
    bucket = Path(settings.location.path)
    tracks: dict[str, Samples] = {}
    for path in bucket.glob(f"dt=*/{recording_id}/*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        if rate != settings.sample_rate or samples.ndim != 1:
            raise RuntimeError(f"{path} is no track at {settings.sample_rate} Hz")
        tracks[path.stem] = samples
    return tracks


def judge(
    trace: Trace,
    recorded: Mapping[str, Samples],
    rate: int = RATE,
    shared: Mapping[str, str] | None = None,
) -> Errors:
    """Compare recorded tracks with what was heard.

    Args:
        trace: The call.
        recorded: What was recorded.
        rate: Hz.
        shared: The recorded track that a speaker's goes to, where it is not its own.
    """
    goes_to = {name: (shared or {}).get(name, name) for name in trace.tracks}
    worst = Errors()
    for track in sorted({*recorded, *goes_to.values()}):
        samples = recorded.get(track, np.zeros(0, np.int16))
        truths = [trace.tracks[name] for name in trace.tracks if goes_to[name] == track]
        errors = measure(samples, rate, truths, trace.every)
        length = (len(samples) / rate - trace.seconds) * 1e3
        worst = worst.beside(replace(errors, length=length))
    return worst


def shortfalls(trace: Trace, errors: Errors) -> list[str]:
    """Return what a recording is off by more than the trace allows."""
    bounds = trace.bounds
    rounding = 1e3 / RATE
    checks: Iterable[tuple[str, float, float]] = (
        ("length", abs(errors.length), bounds.length),
        ("placement", abs(errors.placement), bounds.placement),
        ("inserted", errors.inserted, bounds.inserted),
        ("lost", errors.lost, bounds.lost),
        ("phantom", errors.phantom, bounds.phantom),
    )
    return [
        f"{name}: {value:.1f} ms, at most {most:g}"
        for name, value, most in checks
        if value > most + rounding
    ]
