"""What a recording must hold, told from the events that were accepted; and the comparison with it.

Independent of the recorder's own timeline and resampler: a frame's place is the one its scenario
gave it, and what arrives at another rate is resampled as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray
from scenario import Samples, Scenario

from recorder.timeline import NS

TOLERANCE = 2
"""How far a resampled sample may be from the model's, which resamples without blocks."""


LOW_RATE = 4_000
"""Hz at which what was decoded is compared, where the codec is lossy."""

CODED_RATE = 48_000
"""Hz at which Opus counts samples."""

LEAST_SOUND, LEAST_ALIKE = 0.5, 0.8
"""Seconds of sound from which on noise is compared with its decoded self; and how alike."""


@dataclass
class _Run:
    voice: int
    start: int
    first: int
    count: int
    limit: int | None = None


@dataclass
class _Turn:
    voice: int
    start: int
    end: int | None = None


@dataclass
class Model:
    """A recording as it must be after some events.

    Attributes:
        planes: Samples by track name, as long as the recording's audio.
        end: Where its audio ends, samples.
        clock: Where its clock stood, samples.
        moved: Where it may have stood, moved on to what was to happen next.
        stopped: Whether the stop is among the events.
        turns: (track, start, end or None) in order.
    """

    planes: dict[str, Samples]
    end: int
    clock: int
    moved: int
    stopped: bool
    turns: list[tuple[str, int, int | None]] = field(default_factory=list)

    def plane(self, name: str, length: int) -> Samples:
        """Return a track's samples, cut or made longer by silence."""
        plane = self.planes.get(name, np.zeros(0, np.int16))[:length]
        return np.concatenate([plane, np.zeros(length - len(plane), np.int16)])


def model_of(scenario: Scenario, noises: Sequence[Samples], accepted: int) -> Model:
    """Return what the first `accepted` events make."""
    runs: list[_Run] = []
    turns: list[_Turn] = []
    pauses: list[list[int | None]] = []
    open_runs: dict[int, _Run] = {}
    rate = scenario.sample_rate

    def place(ns: int) -> int:
        return round(ns * rate / NS)

    def end_of(run: _Run) -> int:
        came = scenario.voices[run.voice].rate
        end = run.start + (2 * run.count * rate + came) // (2 * came)  # halves up
        return end if run.limit is None else min(end, run.limit)

    events = scenario.events[:accepted]
    for event in events:
        if event.kind == "audio":
            if event.start is not None:
                run = _Run(event.voice, place(event.start), event.first, 0)
                open_runs[event.voice] = run
                runs.append(run)
            open_runs[event.voice].count += event.count
        elif event.kind == "interrupt":
            for run in runs:
                if run.voice == event.voice and end_of(run) > place(event.written):
                    run.limit = max(run.start, place(event.written))
        elif event.kind == "pause":
            pauses.append([place(event.written), None])
        elif event.kind == "resume":
            pauses[-1][1] = place(event.written)
        elif event.kind == "turn_start":
            turns.append(_Turn(event.voice, place(event.at or 0)))
        elif event.kind == "turn_end":
            [turn] = [one for one in turns if one.voice == event.voice and one.end is None]
            turn.end = place(event.at or 0)
    end = max([0, *(end_of(run) for run in runs)])
    planes = {voice.name: np.zeros(end, np.int16) for voice in scenario.voices}
    for run in runs:
        voice = scenario.voices[run.voice]
        said = noises[run.voice][run.first : run.first + run.count]
        said = _resampled(said, voice.rate, rate)[: end_of(run) - run.start]
        planes[voice.name][run.start : run.start + len(said)] = said
    for plane in planes.values():
        for begin, until in pauses:
            plane[begin:until] = 0
    return Model(
        planes,
        end,
        max([0, *(place(event.written) for event in events)]),
        max([0, *(place(event.written) for event in scenario.events[: accepted + 1])]),
        any(event.kind == "stop" for event in events),
        [(scenario.voices[turn.voice].name, turn.start, turn.end) for turn in turns],
    )


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    if rate == wanted:
        return samples
    silence = np.zeros((rate // 10, *samples.shape[1:]), np.int16)  # on both sides, for the filter
    padded = np.concatenate([silence, samples, silence]).astype(np.float32)
    found: NDArray[np.float32] = soxr.resample(padded, rate, wanted, quality="HQ")
    return np.clip(np.rint(found[wanted // 10 :]), -32768, 32767).astype(np.int16)


def differences(
    scenario: Scenario, model: Model, manifest: dict[str, Any], objects: dict[str, Samples]
) -> list[str]:
    """Return what of a finished recording is not as the model says; the length is the manifest's.

    Args:
        scenario: Of the recording.
        model: What must be there.
        manifest: The recording's.
        objects: The decoded outputs by file name, shape (samples, channels).
    """
    length = manifest["samples"]
    names = [track["name"] for track in manifest["tracks"]]
    planes = {name: model.plane(name, length) for name in names}
    missing = [name for name, plane in model.planes.items() if plane[:length].any()]
    problems = [f"lost: track {name} is missing" for name in missing if name not in names]
    wanted = _layouts(scenario, planes)
    turns = manifest["turns"] if "turns" in scenario.outputs else []
    for turn in turns:
        clip = planes[turn["track"]][_clip_start(scenario, turns, turn) : turn["end"]]
        wanted[f"turns/{turn['number']:04d}-{turn['track']}.{scenario.format}"] = clip.reshape(
            -1, 1
        )
    if set(wanted) != set(objects):
        problems.append(f"wrong: outputs are {sorted(objects)}, not {sorted(wanted)}")
    tolerance = TOLERANCE * len(names) if scenario.resampled else 0
    for name in sorted(set(wanted) & set(objects)):
        if scenario.format == "opus":
            rate = scenario.sample_rate
            problems += _compare_lossy(name, objects[name], wanted[name], rate)
        else:
            problems += _compare(name, objects[name], wanted[name], tolerance)
    return problems


def _layouts(scenario: Scenario, planes: dict[str, Samples]) -> dict[str, Samples]:
    """Return the outputs but for clips, by file name."""
    length = len(next(iter(planes.values()), np.zeros(0)))
    silence = np.zeros(length, np.int16)

    def total(names: Sequence[str]) -> Samples:
        summed = sum((planes[name].astype(int) for name in names), silence.astype(int))
        return np.clip(summed, -32768, 32767).astype(np.int16)

    names, end = list(planes), scenario.format
    declared = [voice.name for voice in scenario.voices[: scenario.declared]]
    # A bot that joins late and third is one of the rest: nobody moves from one side to the other.
    alone = "bot" in declared or "bot" in names[:2]
    right = ["bot"] if "bot" in names and alone else names[1:]
    left = [name for name in names if name not in right]
    layouts = {
        "stereo": np.stack([total(left), total(right)], axis=1),
        "mono": total(list(planes)).reshape(-1, 1),
    }
    asked = [name for name in ("stereo", "mono") if name in scenario.outputs]
    found = {
        ("audio" if n == 0 else name) + f".{end}": layouts[name] for n, name in enumerate(asked)
    }
    if "tracks" in scenario.outputs:
        found |= {f"{name}.{end}": plane.reshape(-1, 1) for name, plane in planes.items()}
    return found


def _clip_start(scenario: Scenario, turns: list[dict[str, Any]], turn: dict[str, Any]) -> int:
    [source] = [voice.source for voice in scenario.voices if voice.name == turn["track"]]
    before = [
        one["end"]
        for one in turns
        if one["track"] == turn["track"] and one["number"] < turn["number"]
    ]
    pre_roll = int(scenario.pre_roll * scenario.sample_rate) if source == "capture" else 0
    return int(min(turn["start"], max([0, turn["start"] - pre_roll, *before])))


def _compare_lossy(name: str, found: Samples, wanted: Samples, rate: int) -> list[str]:
    """Compare with what was decoded: as long, as loud everywhere, and of the same shape.

    At low frequencies, where a codec keeps of noise what it keeps of speech; and as differences,
    since the noise has an offset, which codecs take away.
    """
    nearest = max(1, rate // CODED_RATE)  # the file counts samples at this rate, and at least one
    if len(found) != len(wanted) and abs(len(found) - len(wanted)) <= nearest:
        found = np.resize(found, wanted.shape)
    if len(wanted) < LOW_RATE:
        return [] if len(found) == len(wanted) else [f"wrong: {name} has {len(found)} samples"]
    if found.shape != wanted.shape:
        return [f"wrong: {name} has shape {found.shape}, not {wanted.shape}"]
    problems = []
    heard, said = (
        np.diff(_resampled(part, rate, LOW_RATE).astype(float), axis=0) for part in (found, wanted)
    )
    for at in range(0, len(said), LOW_RATE // 2):
        levels = [
            np.sqrt((part[at : at + LOW_RATE // 2] ** 2).mean(axis=0)) for part in (heard, said)
        ]
        if (np.abs(levels[0] - levels[1]) > 0.3 * levels[1].max() + 600).any():
            problems.append(f"lost: {name} is as loud as {levels[0]}, not {levels[1]}, from {at}")
    for channel in range(wanted.shape[1]):
        one, other = heard[:, channel], said[:, channel]
        if np.count_nonzero(wanted[:, channel]) > LEAST_SOUND * rate:
            alike = float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other) + 1e-9)
            if alike < LEAST_ALIKE:
                problems.append(f"moved: {name}, channel {channel} correlates by {alike:.3f}")
    return problems


def _compare(name: str, found: Samples, wanted: Samples, tolerance: int) -> list[str]:
    if found.shape != wanted.shape:
        return [f"wrong: {name} has shape {found.shape}, not {wanted.shape}"]
    wrong = np.abs(found.astype(int) - wanted) > tolerance
    if not wrong.any():
        return []
    places = np.flatnonzero(wrong.any(axis=1))
    silent = int((wrong & (found == 0)).sum())
    return [
        f"{'lost' if silent else 'moved'}: {len(places)} samples of {name} are wrong, "
        f"{silent} of them silent, in {places[0]}..{places[-1]} of {len(wanted)}"
    ]
