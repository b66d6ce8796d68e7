"""A disk that is really full: a small tmpfs that somebody else fills at random moments.

The trials are a program of their own, `full_disk_trial.py`, in namespaces where it may mount; where
neither root nor an ordinary user may make such namespaces, these tests fail, they are not skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk_trial import FRAME, RATE, TRACKS, Trial, voices

PROGRAM = Path(__file__).with_name("full_disk_trial.py")


def run(folder: Path, trial: Trial) -> dict[str, Any]:
    """Run a trial; return how its processes ended and what they told."""
    more = {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(PROGRAM.parent), str(PROGRAM.parents[1])])
    }
    command = ["unshare", "-rm", sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(
        [*command, json.dumps(asdict(trial))],
        capture_output=True,
        text=True,
        env={**os.environ, **more},
        check=False,
    )
    assert done.returncode == 0, f"no disk to fill could be made here: {done.stderr}"
    ended = json.loads(done.stdout)
    wanted = 0 if trial.kill is None else -signal.SIGKILL
    assert ended["bot"] == wanted, (folder / "bot.log").read_text()[-3000:]
    assert ended.get("recovery", 0) == 0, (folder / "recover.log").read_text()[-3000:]
    return ended | json.loads((folder / "told.json").read_text())


def check(folder: Path, trial: Trial, told: dict[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """Compare the object with what was said; return the gaps by track."""
    [path] = folder.glob("bucket/dt=*/call/manifest.json")
    document = json.loads(path.read_text())
    length = document["samples"]
    audio = np.frombuffer((path.parent / "audio.wav").read_bytes()[80:], "<i2").reshape(-1, 2)
    assert len(audio) == length
    gaps: dict[str, list[tuple[int, int]]] = {track: [] for track in TRACKS}
    for gap in document["gaps"]:
        gaps[gap["track"]].append((gap["start"], length if gap["end"] is None else gap["end"]))
    for channel, track in enumerate(TRACKS):
        assert len(set(gaps[track])) == len(gaps[track]), "a gap is listed twice"
        expected = voices(trial.seconds)[track][:length].copy()
        for start, end in gaps[track]:
            expected[start:end] = 0
        np.testing.assert_array_equal(audio[:, channel], expected, err_msg=track)
    for track, start in told["refused"]:
        inside = [gap for gap in gaps[track] if gap[0] <= start and start + FRAME <= gap[1]]
        assert inside or start >= length, f"frame at {start} of {track} was refused: {gaps[track]}"
    assert document["state"] == ("completed_with_gaps" if document["gaps"] else "completed")
    return gaps


@pytest.mark.timeout(300)
@pytest.mark.parametrize("away", [(0, 0), (8, 45)], ids=["store-up", "store-away"])
@pytest.mark.parametrize("policy", ["stop", "drop_oldest"])
@pytest.mark.parametrize("seed", range(3))
def test_on_a_disk_that_fills_up_at_any_moment_what_is_missing_is_listed(
    tmp_path: Path, seed: int, policy: str, away: tuple[int, int]
) -> None:
    trial = Trial(seed=seed, policy=policy, away=away)
    told = run(tmp_path, trial)
    gaps = check(tmp_path, trial, told)
    assert told["state"].startswith("completed"), told["reason"]
    assert told["left"] == []
    dropped = {((number - 1) * RATE, number * RATE) for number in told["dropped"]}
    for track in TRACKS:
        assert dropped <= set(gaps[track])
        assert bool(set(gaps[track]) - dropped) == any(name == track for name, _ in told["refused"])
    assert policy == "drop_oldest" or not dropped
    # What a bot's thread opens itself are segments that come faster than they can be prepared.
    assert told["opened"] <= 20, "a full disk is asked with every frame"
    print(
        {key: told[key] for key in ("accepted", "opened", "slowest", "failed", "dropped")},
        len(told["refused"]),
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("away", [(0, 0), (8, 60)], ids=["store-up", "store-away"])
@pytest.mark.parametrize("policy", ["stop", "drop_oldest"])
@pytest.mark.parametrize("seed", range(2))
def test_a_bot_killed_on_a_full_disk_is_recovered_with_its_gaps(
    tmp_path: Path, seed: int, policy: str, away: tuple[int, int]
) -> None:
    trial = Trial(seed=10 + seed, policy=policy, away=away, kill=43)
    told = run(tmp_path, trial)
    assert told["recovered"][-1][0] in ("recovered", "cleaned"), told["recovered"]
    check(tmp_path, trial, told)
    assert told["left"] == []


@pytest.mark.timeout(300)
def test_with_the_store_up_a_full_disk_does_not_stop_the_recording(tmp_path: Path) -> None:
    """Chunks go on being sealed, sent and freed: all that was accepted is in the object."""
    trial = Trial(fill_at=5, seconds=30)
    told = run(tmp_path, trial)
    assert told["state"].startswith("completed"), told["reason"]
    check(tmp_path, trial, told)


@pytest.mark.timeout(300)
def test_a_spool_on_a_full_disk_is_recovered_without_any_room(tmp_path: Path) -> None:
    trial = Trial(fill_at=4, seconds=30, kill=29, away=(3, 30))
    told = run(tmp_path, trial)
    assert told["refused"]
    assert told["refusing"]
    assert [outcome for outcome, _ in told["recovered"]] == ["recovered"], told["recovered"]
    check(tmp_path, trial, told)
    assert told["left"] == []
