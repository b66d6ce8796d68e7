"""Reads what a manifest says of the objects that were made of a recording: outputs and clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from recorder.catalog import Document
from recorder.containers import codec, wav
from recorder.outputs import (
    OutputSpec,
    extra_output,
    mixed_outputs,
    track_output,
    turn_output,
)
from recorder.verification.claims import Claims, Reading, texts
from recorder.verification.scan import Wanted
from uploader.completion import RECORDING_ID
from uploader.parts import part_count


def read_outputs(reading: Reading) -> None:
    """Enter what is said of outputs, and take note of those that should be complete."""
    claims, listed = reading.claims, reading.manifest.items("outputs")
    asked = _asked(reading)
    specs = asked | _assembled(reading, asked)
    names = [made.text("name") for made in listed]
    reading.once("output", names)
    for name in asked if claims.final else ():
        reading.holds(name in names, "outputs", f"one called {name!r}", "none")
    for made in listed:
        spec = specs.get(made.text("name"))
        if spec is None:
            expected = f"of {', '.join(specs) or 'none'}"
            reading.holds(False, "outputs", expected, repr(made.text("name")))
        else:
            _read_output(reading, made, spec)


def _asked(reading: Reading) -> dict[str, OutputSpec]:
    claims, asked = reading.claims, texts(reading.manifest, "outputs_asked")
    declared = texts(reading.manifest, "tracks_declared")
    specs = mixed_outputs(asked, claims.form, declared=declared)
    if "tracks" in asked:
        specs += [track_output(name, claims.form) for name in claims.tracks]
    return {spec.name: replace(spec, first_sample=claims.first_sample) for spec in specs}


def _assembled(reading: Reading, asked: dict[str, OutputSpec]) -> dict[str, OutputSpec]:
    """Return the outputs that were made later on, and that the recording was not made with."""
    claims, found = reading.claims, dict[str, OutputSpec]()
    declared = texts(reading.manifest, "tracks_declared")
    for made in reading.manifest.items("outputs"):
        name = made.text("name")
        if name in asked or not made.text("assembled_at"):
            continue
        if name in claims.tracks:
            found[name] = track_output(name, claims.form, claims.first_sample)
        elif name in ("mono", "stereo"):
            kind: Literal["mono", "stereo"] = "mono" if name == "mono" else "stereo"
            found[name] = extra_output(kind, claims.form, claims.first_sample, declared)
    return found


def _read_output(reading: Reading, made: Document, spec: OutputSpec) -> None:
    claims, what = reading.claims, f"output {spec.name}, "
    key, state = claims.folder + spec.file, made.text("state")
    claims.named.add(key)
    reading.equal(f"{what}key", key, made.text("key"))
    reading.equal(f"{what}layout", spec.layout, made.text("layout"))
    reading.equal(f"{what}channels", spec.channels, made.count("channels"))
    reading.equal(f"{what}first_sample", spec.first_sample, made.count("first_sample"))
    if claims.final:
        reading.equal(f"{what}state", "completed", state)
    if state != "completed":
        return
    reading.equal(f"{what}samples", claims.samples, made.count("samples"))
    _check_size(reading, spec, what, made)
    size = made.count("bytes")
    found = made.number("duration_seconds")
    reading.seconds(f"{what}duration_seconds", made.count("samples"), found)
    # Fewer are told of by a process that finished an upload it had not begun.
    most, parts = part_count(size, _part_bytes(reading)), made.count("parts")
    reading.holds(0 <= parts <= most, f"{what}parts", f"{most} at most", str(parts))
    checksum = reading.checksum(f"{what}checksum", made.text("checksum"))
    _want(claims, spec, made.count("samples"), made.count("bytes"), checksum)


def read_turns(reading: Reading) -> None:
    """Enter what is said of turns, and take note of the clips that should be complete."""
    claims, listed = reading.claims, reading.manifest.items("turns")
    clipped = "turns" in texts(reading.manifest, "outputs_asked")
    clipped = clipped or any(turn.text("key") for turn in listed)  # made later on
    latest: dict[str, int] = {}
    known, number = ", ".join(claims.tracks) or "none", 0
    for turn in listed:
        # Turns outside of what was recovered are left out, but the others keep their numbers.
        found, before = turn.count("number"), number
        what, track = f"turn {found}, ", turn.text("track")
        reading.holds(found > number, f"{what}number", f"more than {before}", str(found))
        number = max(number, found)
        start, end = turn.count("start"), turn.count("end")
        if turn.values.get("end") is None:
            end = max(start, claims.end)  # nobody knows when it ended
        reading.holds(track in claims.tracks, f"{what}track", f"of {known}", track)
        inside = f"inside samples 0 to {claims.end}"
        good = 0 <= start <= end and (end <= claims.end or not claims.final)
        reading.holds(good, f"{what}range", inside, f"{start} to {end}")
        last = latest.get(track, 0)
        said = f"not before the {track}'s last, {last}"
        reading.holds(start >= last, f"{what}start", said, str(start))
        latest[track] = max(last, start)
        if clipped:
            _read_clip(reading, turn, found, end)


def _read_clip(reading: Reading, turn: Document, number: int, end: int) -> None:
    """Take note of a turn's clip, where there is one."""
    claims, what, key = reading.claims, f"turn {number}, ", turn.text("key")
    first = turn.count("first_sample") if "first_sample" in turn.values else None
    spec = turn_output(number, turn.text("track"), first or 0, claims.form)
    claims.named.add(claims.folder + spec.file)
    if not key:
        needed = claims.final and turn.values.get("end") is not None
        reading.holds(not needed, f"{what}key", claims.folder + spec.file, "none")
        return
    if not reading.equal(f"{what}key", claims.folder + spec.file, key):
        return
    state = turn.text("state") or "completed"
    if claims.final:
        reading.equal(f"{what}state", "completed", state)
    if first is None:
        _want(claims, spec, None, None, None)
    elif state == "completed":
        samples = turn.count("samples")
        inside = f"{claims.first_sample} to {turn.count('start')}"
        good = claims.first_sample <= first <= max(claims.first_sample, turn.count("start"))
        reading.holds(good, f"{what}first_sample", inside, str(first))
        reading.equal(f"{what}samples", max(0, end - first), samples)
        _check_size(reading, spec, what, turn)
        checksum = reading.checksum(f"{what}checksum", turn.text("checksum"))
        _want(claims, spec, samples, turn.count("bytes"), checksum)


def _want(
    claims: Claims, spec: OutputSpec, samples: int | None, size: int | None, checksum: int | None
) -> None:
    first, length = spec.first_sample, samples or 0
    if any(one.key == claims.folder + spec.file for one in claims.objects):
        return  # listed twice
    metadata = {
        RECORDING_ID: claims.recording_id,
        "recorder-sample-rate": str(claims.sample_rate),
        "recorder-layout": spec.track or spec.layout,
        "recorder-channels": str(spec.channels),
    }
    if samples is not None:
        metadata["recorder-first-sample"] = str(first)
    lost = (
        (max(0, one.first_sample - first), one.end - first) for one in claims.chunks if one.lost
    )
    claims.objects.append(
        Wanted(
            kind="turn" if spec.name.startswith("turns/") else "output",
            key=claims.folder + spec.file,
            bytes=size,
            checksum=checksum,
            samples=samples,
            channels=spec.channels,
            sample_rate=claims.sample_rate,
            metadata=metadata,
            spec=spec,
            first_sample=first,
            codec=codec(claims.form.name),
            silent=tuple(
                (start, min(end, length)) for start, end in lost if start < min(end, length)
            ),
        )
    )


def _check_size(reading: Reading, spec: OutputSpec, what: str, made: Document) -> None:
    """Enter whether an object's bytes go with its samples, where they do: not if compressed."""
    form = reading.claims.form
    if isinstance(form, wav.Wav):
        size = form.header_bytes + 2 * spec.channels * made.count("samples")
        reading.equal(f"{what}bytes", size, made.count("bytes"))
    else:
        found = made.count("bytes")
        reading.holds(found > 0, f"{what}bytes", "1 or more", str(found))


def _part_bytes(reading: Reading) -> int:
    return max(1, reading.manifest.count("part_bytes"))
