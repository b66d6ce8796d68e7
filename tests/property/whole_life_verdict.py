"""What is in the bucket, compared with the model; and that nothing finished ever changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from whole_life_model import Model, Samples, laid_out

from recorder.containers.wav import parse_header
from recorder.result import RecordingResult
from recorder.waveform import Parsed, extremes

DURABLE = ("completed", "completed_with_gaps")


def decoded(path: Path, rate: int) -> Samples:
    """Return an object's samples, shape (samples, channels)."""
    body = path.read_bytes()
    header = parse_header(body[:4096])
    raw = np.frombuffer(body, dtype="<i2", offset=header.data_offset)
    assert header.sample_rate == rate
    assert len(raw) == header.samples * header.channels, f"{path} is not as long as it says"
    return raw.reshape(-1, header.channels)


def same(found: Samples, wanted: Samples, what: object) -> None:
    """Assert that samples are equal, and tell where they are not."""
    assert found.shape == wanted.shape, f"{what} has shape {found.shape}, not {wanted.shape}"
    wrong = np.flatnonzero((found != wanted).any(axis=1))
    assert not len(wrong), (
        f"{len(wrong)} samples of {what} are wrong, in {wrong[0]}..{wrong[-1]} of {len(wanted)}"
    )


class Witness:
    """Has seen what was said to be completed.

    Args:
        bucket: The local store's folder.
    """

    def __init__(self, bucket: Path) -> None:
        self._bucket = bucket
        self._seen: dict[Path, tuple[int, int, int]] = {}

    def look(self) -> None:
        """Assert that everything said to be completed is there, and the same as ever."""
        # No further down: folders of chunks are being deleted meanwhile.
        below = ("dt=*/*/manifest.json", "dt=*/*/continuation-*/manifest.json")
        for path in sorted(path for one in below for path in self._bucket.glob(one)):
            manifest = json.loads(path.read_bytes())
            if manifest["state"] in DURABLE:
                listed = [*manifest["outputs"], *manifest["turns"]]
                for one in listed:
                    if one.get("key"):
                        assert one["state"] == "completed", f"{path}: {one}"
                        self._seen.setdefault(
                            self._bucket / one["key"], _version(self._bucket, one)
                        )
        for path, version in self._seen.items():
            status = path.stat()
            now = (status.st_ino, status.st_mtime_ns, status.st_size)
            assert now == version, f"{path} was finished, and has been replaced since"


def _version(bucket: Path, listed: dict[str, Any]) -> tuple[int, int, int]:
    path = bucket / listed["key"]
    assert path.exists(), f"{path} is said to be completed and is not there"
    status = path.stat()
    assert status.st_size == listed["bytes"], f"{path} has {status.st_size} bytes: {listed}"
    return status.st_ino, status.st_mtime_ns, status.st_size


def check_result(bucket: Path, model: Model, result: RecordingResult) -> None:
    """Assert that a result claims no more than there is."""
    assert result.state != "recording"
    if not result.durable:
        assert result.reason, "it does not say why it is not durable"
        return
    planes = model.planes(result.samples)
    assert result.outputs
    for output in result.outputs:
        assert output.state == "completed"
        assert output.verified
        path = bucket / output.key
        assert path.exists(), f"{path} is said to be durable and is not there"
        assert path.stat().st_size == output.bytes
        if "/continuation-" not in output.key and not output.name.startswith("turns/"):
            same(decoded(path, model.rate), _wanted(output.name, planes), path)


def check_whole(bucket: Path, recording_id: str, model: Model) -> str:
    """Assert that a finished recording, with its continuations, is what the model says.

    Returns:
        How it was finished: `absent`, `whole`, or `joined` of several.
    """
    folders = list(bucket.glob(f"dt=*/{recording_id}"))
    if not folders:
        assert not model.began or model.floor == 0, "it is not in the bucket"
        return "absent"
    [folder] = folders
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if not model.began:
        assert manifest["samples"] == 0
        return "absent"
    there = {path for path in folder.rglob("*") if path.is_file()}
    end = 0
    parts = sorted(folder.glob("continuation-*/manifest.json"))
    documents = [(folder, manifest)]
    documents += [(path.parent, json.loads(path.read_bytes())) for path in parts]
    documents.sort(key=lambda one: one[1]["first_sample"])
    for below, document in documents:
        assert document["state"] in DURABLE, f"{below}: {document['state']}"
        first, samples = document["first_sample"], document["samples"]
        assert first == end, f"{below} begins at {first}, not {end}"
        end = first + samples
        there -= _check_part(bucket, below, model, document)
    assert not there, f"objects nobody lists: {sorted(there)}"
    listed = {(one["folder"], one["first_sample"]) for one in manifest["continuations"]}
    found = {
        (f"{below.relative_to(bucket)}/", document["first_sample"])
        for below, document in documents[1:]
    }
    assert listed == found, f"continuations {found}, listed are {listed}"
    assert model.length is not None
    least = model.length if model.floor is None else model.floor
    assert least <= end <= model.longest, f"{end} samples, not {least} to {model.longest}"
    if not model.rescued:
        assert len(documents) == 1, "nobody took it over, and it is in pieces"
        assert manifest["state"] == "completed"
        assert not manifest["gaps"]
        assert len(manifest["turns"]) == len(model.turns)
    return "joined" if len(documents) > 1 else "whole"


def _check_peaks(bucket: Path, document: dict[str, Any], planes: dict[str, Samples]) -> Path:
    """Check the waveform against the model; return its object."""
    told = document["peaks"]
    assert told["state"] == "completed", f"no waveform: {told}"
    path: Path = bucket / told["key"]
    found = Parsed.from_json(path.read_bytes())
    mixed = [name for name in ("stereo", "mono") if name in document["outputs_asked"]]
    if planes and document["samples"]:
        wanted = extremes(_wanted((mixed or ["stereo"])[0], planes), found.samples_per_pixel)
        np.testing.assert_array_equal(found.values, wanted, err_msg=str(path))
    return path


def _check_part(bucket: Path, folder: Path, model: Model, document: dict[str, Any]) -> set[Path]:
    """Check one manifest's objects; return them, itself included."""
    first = document["first_sample"]
    end = first + document["samples"]
    everything = model.planes(end)
    names = [track["name"] for track in document["tracks"]]
    for name, plane in everything.items():
        assert name in names or not plane.any(), f"track {name} is missing in {folder}"
    planes = {name: everything[name][first:] for name in names if name in everything}
    assert list(planes) == names, f"{names} are not the model's {list(everything)}"
    objects = {folder / "manifest.json"}
    wanted = [name for name in document["outputs_asked"] if name in ("stereo", "mono")]
    wanted += names if "tracks" in document["outputs_asked"] else []
    assert sorted(one["name"] for one in document["outputs"]) == sorted(wanted)
    for one in document["outputs"]:
        path = bucket / one["key"]
        assert one["samples"] == document["samples"], f"{path} has {one['samples']} samples"
        if planes:
            same(decoded(path, model.rate), _wanted(one["name"], planes), path)
        objects.add(path)
    if not (model.puts_refused and document["peaks"]["state"] == "failed"):
        objects.add(_check_peaks(bucket, document, planes))
    for told in document["turns"]:
        turn = model.turns[told["number"] - 1]
        assert (told["track"], told["start"]) == (turn.track, turn.start)
        stop = end if turn.end is None else min(turn.end, end)
        assert told["end"] == max(told["start"], stop) or model.rescued, f"{told}, not {turn}"
        assert told["start"] <= told["end"] <= end, f"{told} is not in {folder}, up to {end}"
        if told["key"] is None:
            assert "turns" not in document["outputs_asked"], f"{told} has no clip"
            continue
        path = bucket / told["key"]
        plane = everything[turn.track][told["first_sample"] : told["end"]]
        same(decoded(path, model.rate), plane.reshape(-1, 1), path)
        objects.add(path)
    return objects


def _wanted(name: str, planes: dict[str, Samples]) -> Samples:
    return laid_out(name, planes)


def durable_samples(bucket: Path, recording_id: str) -> int:
    """Return what the loss of the host cannot cost any more: chunk objects without a break."""
    for path in bucket.glob(f"dt=*/{recording_id}/manifest.json"):
        manifest = json.loads(path.read_bytes())
        if manifest["sealed"] is True:
            return int(manifest["samples"])
        samples = 0
        while True:
            chunk = path.parent / "chunks" / f"{samples // manifest['chunk_samples'] + 1:06d}.wav"
            if samples % manifest["chunk_samples"] or not chunk.exists():
                return samples
            samples += parse_header(chunk.read_bytes()[:4096]).samples
    return 0
