"""What is left of a recording in bucket and spool, compared with the model.

Each problem begins with its kind: `unrecovered`, `lost`, `moved` (there twice or elsewhere),
`orphan` or `wrong`.
"""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from model import Model, differences, model_of
from scenario import Samples, Scenario

from recorder.containers.flac import parse_streaminfo
from recorder.stores import make_store
from recorder.waveform import Parsed, extremes
from uploader.store import Store

EPSILON = 1e-6  # seconds, less than a sample


async def stored(store: Store) -> tuple[dict[str, bytes], list[str]]:
    """Return all objects but the probes', and the keys of uploads in progress."""
    async with store:
        objects = {
            info.key: await store.get(info.key)
            async for info in store.list_objects()
            if not info.key.startswith(".bot-recorder/")
        }
        return objects, [upload.key async for upload in store.list_uploads()]


def check(
    scenario: Scenario, folder: Path, where: dict[str, Any], accepted: int, *, whole: bool
) -> dict[str, Any]:
    """Compare what there is now with the model.

    Args:
        scenario: Of the recording.
        folder: Of the trial.
        where: Settings of the store, if it is not in the folder.
        accepted: Events that were accepted; one more may have been.
        whole: Whether nothing may be lost; otherwise as much as a chunk.

    Returns:
        `problems`, `samples` of the recording, and what was lost: `lost_seconds`, and the same in
        chunks.
    """
    store = make_store(scenario.settings(folder, where))
    objects, uploads = asyncio.run(stored(store))
    problems = [f"orphan: upload of {key}" for key in uploads]
    problems += [f"orphan: spool folder {path.name}" for path in (folder / "spool").glob("*")]
    keys = [key for key in objects if key.endswith("/manifest.json")]
    if len(keys) != 1:
        problems += [f"orphan: {key}" for key in objects]
        if accepted or keys:
            problems.append(f"unrecovered: manifests {keys}, accepted were {accepted} events")
        return {"problems": problems, "samples": 0, "lost_seconds": 0.0, "lost_chunks": 0.0}
    manifest = json.loads(objects.pop(keys[0]))
    files = {
        key.removeprefix(keys[0].removesuffix("manifest.json")): objects[key] for key in objects
    }
    problems += _states(manifest, whole=whole)
    problems += _chunks(scenario, manifest, files)
    peaks = files.pop("peaks.json", None)
    decoded = {name: _decoded(scenario, body) for name, body in files.items()}
    problems += _peaks(manifest, peaks, decoded)
    noises = scenario.noises()
    tries: list[tuple[list[str], float]] = []
    for count in (accepted, accepted + 1):  # one may have been accepted, and not told of
        model = model_of(scenario, noises, count)
        found = differences(scenario, model, manifest, decoded)
        found += _told(model, manifest, whole=whole)
        heard = min(model.end, model.clock)
        lost = max(0, heard - manifest["samples"]) / scenario.sample_rate
        if lost > (0 if whole else scenario.chunk_seconds + EPSILON):
            found.append(f"lost: {lost:.3f} s of {heard / scenario.sample_rate:.3f} s")
        tries.append((found, lost))
    better = min(tries, key=lambda one: len(one[0]))
    return {
        "problems": problems + better[0],
        "samples": manifest["samples"],
        "lost_seconds": round(better[1], 4),
        "lost_chunks": round(better[1] / scenario.chunk_seconds, 3),
    }


def _states(manifest: dict[str, Any], *, whole: bool) -> list[str]:
    problems = []
    # What a lost host had not sent yet is a gap behind the end, whose length nobody knows.
    behind = [(manifest["samples"], None)]
    gaps = [(gap["start"], gap["end"]) for gap in manifest["gaps"]]
    wanted = "completed_with_gaps" if gaps else "completed"
    if manifest["state"] != wanted or (gaps and (whole or {*gaps} != {*behind})):
        problems.append(f"unrecovered: {manifest['state']}, gaps {manifest['gaps']}")
    for output in manifest["outputs"]:
        if output["state"] != "completed" or not output["verified"]:
            problems.append(f"unrecovered: output {output}")
    return problems


def _chunks(scenario: Scenario, manifest: dict[str, Any], files: dict[str, bytes]) -> list[str]:
    """Take chunk objects out of `files`; return what is not right about them."""
    chunks = {name: files.pop(name) for name in sorted(files) if name.startswith("chunks/")}
    if not scenario.keep_chunks:
        return [f"orphan: {name}" for name in chunks]
    problems = []
    listed = [chunk.get("file") or f"{chunk['number']:06d}.wav" for chunk in manifest["chunks"]]
    if list(chunks) != [f"chunks/{name}" for name in listed]:
        problems.append(f"wrong: chunk objects {list(chunks)}, of {len(manifest['chunks'])}")
    samples = sum(len(_decoded(scenario, body)) for body in chunks.values())
    if samples != manifest["samples"]:
        problems.append(f"wrong: chunks hold {samples} samples, not {manifest['samples']}")
    return problems


def _peaks(manifest: dict[str, Any], peaks: bytes | None, decoded: dict[str, Samples]) -> list[str]:
    """Return what is not right about the waveform, compared with the mixed output's samples."""
    if peaks is None or manifest["peaks"]["state"] != "completed":
        return [f"unrecovered: waveform {manifest['peaks']}"]
    audio, found = decoded.get("audio.wav"), Parsed.from_json(peaks)
    if audio is None or not len(audio):
        return []
    wanted = extremes(audio, found.samples_per_pixel)
    return [] if np.array_equal(found.values, wanted) else ["wrong: the waveform is of other audio"]


def _decoded(scenario: Scenario, body: bytes) -> Samples:
    if body.startswith(b"fLaC") and (empty := parse_streaminfo(body)).samples == 0:
        return np.zeros((0, empty.channels), np.int16)  # libsndfile opens none without samples
    audio, rate = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    if rate != scenario.sample_rate and scenario.format == "opus":  # counted at 48 kHz, say
        found = soxr.resample(audio, rate, scenario.sample_rate)
        length = round(len(audio) * scenario.sample_rate / rate)
        audio = np.pad(found, ((0, max(0, length - len(found))), (0, 0)))[:length]
        rate = scenario.sample_rate
    if rate != scenario.sample_rate:
        raise ValueError(f"an object has {rate} Hz")
    return np.asarray(audio, np.int16)


def _told(model: Model, manifest: dict[str, Any], *, whole: bool) -> list[str]:
    """Return what the manifest tells otherwise than the model: length and turns."""
    problems = []
    length = manifest["samples"]
    longest = max(model.end, model.clock)
    shortest = longest if model.stopped else model.end
    if length > max(longest, model.moved):
        problems.append(f"wrong: {length} samples, at most {longest} were recorded")
    if whole and length < shortest:
        problems.append(f"lost: {length} samples, at least {shortest} were recorded")
    turns = [(turn["track"], turn["start"], turn["end"]) for turn in manifest["turns"]]
    wanted = [
        (name, start, length if end is None else max(end, start))
        for name, start, end in model.turns
    ]
    if not whole:  # a mark behind the last chunk is lost with the audio
        turns = [(name, start, length) for name, start, _ in turns]
        wanted = [(name, start, length) for name, start, _ in wanted][: len(turns)]
    if turns != wanted:
        problems.append(f"wrong: turns {turns}, not {wanted}")
    return problems
