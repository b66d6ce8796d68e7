"""When what was captured at a time arrives. Order is kept: the microphone sees to that."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

Arrival = Callable[[float], float]
"""From when a frame was complete to when it arrives, both seconds."""

_JITTERS = 4096


def on_time(captured: float) -> float:
    """Arrive as soon as complete."""
    return captured


def stall(at: float, seconds: float, drain: float = math.inf) -> Arrival:
    """Hold everything back from `at` for some seconds; then it comes at `drain` times real time."""

    def arrival(captured: float) -> float:
        if captured <= at + 1e-9:
            return captured
        return max(captured, at + seconds + (captured - at) / drain)

    return arrival


def jitter(worst: float, shape: Literal["uniform", "heavy"] = "uniform", seed: int = 1) -> Arrival:
    """Come late by chance, up to `worst` seconds; `heavy`: mostly little, now and then much."""
    drawn = np.random.default_rng(seed).random(_JITTERS)
    delays = worst * (drawn if shape == "uniform" else drawn**6)

    def arrival(captured: float) -> float:
        return captured + float(delays[round(captured * 1000) % _JITTERS])

    return arrival


def later(seconds: float, start: float = 0.0, end: float = math.inf) -> Arrival:
    """Come late by so much, for what was captured in between."""
    return lambda captured: captured + (seconds if start <= captured < end else 0.0)


def all_of(*arrivals: Arrival) -> Arrival:
    """Come as late as the latest of these says."""
    return lambda captured: max(arrival(captured) for arrival in arrivals)
