"""Real processes, really killed: every frame that was accepted is on disk or in the store."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recording_child import frame

from recorder.journal import JournalReader
from recorder.records import Kind

CHILD = Path(__file__).with_name("recording_child.py")
FRAME = 160


def accepted_until_killed(folder: Path, frames: int, number: int) -> int:
    """Let the child accept so many frames, kill it, and return how many it had accepted."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(folder)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        accepted = 0
        for line in child.stdout:
            accepted = int(line)
            if accepted >= frames:
                child.send_signal(number)
                break
        rest = child.stdout.read().split()
        return int(rest[-1]) if rest else accepted


def numbers_in_spool(spool: Path) -> list[int]:
    reader = JournalReader(spool / "journal", first_segment(spool))
    found = []
    for record in reader.read():
        if record.kind is Kind.AUDIO:
            view = reader.view(record.segment)
            assert view is not None
            payload = bytes(view[record.offset : record.offset + record.length])
            number = int.from_bytes(payload[:2], "little")
            assert payload == frame(number - 1), "a frame is there in part"
            found.append(number)
    reader.close()
    return found


def first_segment(spool: Path) -> int:
    return min(int(path.stem) for path in (spool / "journal").iterdir())


def numbers_in_chunks(folder: Path) -> list[int]:
    """Frame numbers in sealed chunks, wherever they are: both places hold the same bytes."""
    paths: dict[str, Path] = {}
    for path in [*folder.glob("spool/killed/chunks/*.wav"), *folder.glob("bucket/*/*/chunks/*")]:
        if path.name in paths:
            assert path.read_bytes() == paths[path.name].read_bytes()
        paths[path.name] = path
    raw = b"".join(paths[name].read_bytes()[80:] for name in sorted(paths))
    user = np.frombuffer(raw, dtype="<i2").reshape(-1, 2)[:, 0]
    return sorted({int(number) for number in user if number})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("seed", range(4))
def test_every_accepted_frame_survives(tmp_path: Path, seed: int, number: int) -> None:
    frames = random.Random(seed).randint(1, 900)
    accepted = accepted_until_killed(tmp_path, frames, number)
    spool = tmp_path / "spool" / "killed"
    journal = numbers_in_spool(spool)
    kept = sorted({*journal, *numbers_in_chunks(tmp_path)})
    # The frame after the last one told of may have been accepted, and the line not written.
    assert kept[:accepted] == list(range(1, accepted + 1))
    assert len(kept) <= accepted + 1
    assert (spool / "recording.json").exists()
    manifests = list(tmp_path.glob("bucket/dt=*/killed/manifest.json"))
    assert len(manifests) == 1, "audio was accepted before the manifest was written"
