"""Real processes, killed at random instants and recovered: nothing lost, nothing twice, no orphans.

The trials are a program of their own, `crash_trials.py`: it forks, which needs a process with one
thread. A trial that fails names the command that repeats it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from figures import Figures

from recorder.embedded import EmbeddedS3

PROGRAM = Path(__file__).with_name("crash_trials.py")

# Scenarios, and kills of each.
DEFAULT = {"folder": (50, 4), "seaweed": (4, 3)}
SOAK = {"folder": (250, 8), "seaweed": (20, 6)}

# The same of compressed outputs, in a folder.
DEFAULT_ENCODED, SOAK_ENCODED = (2, 2), (120, 6)


async def trials(
    folder: Path, mode: str, first: int, size: tuple[int, int], where: Any, form: str = "wav"
) -> Figures:
    """Run the program and return what it found."""
    scenarios, kills = size
    arguments = [str(PROGRAM), str(folder), "--mode", mode, "--format", form]
    if where:
        arguments += ["--where", json.dumps(where)]
    seeds = ["--scenarios", f"{first}-{first + scenarios - 1}", "--kills", str(kills)]
    # One thread is what makes forks harmless, and numpy's own would be some.
    more = {"PYTHONPATH": os.pathsep.join([*sys.path, str(PROGRAM.parents[1])])}
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        *seeds,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **more, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert program.stdout is not None
    title = f"{mode}, {form}, {'S3' if where else 'folder'}"
    figures = Figures(title, f"{shlex.join(arguments)}")
    async for line in program.stdout:
        figures.add(json.loads(line))
    assert await program.wait() == 0
    return figures


@pytest.fixture(params=["folder", "seaweed"])
def store(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The kind of store, and the settings that name it; none for a folder of the trial's own."""
    if request.param == "folder":
        return request.param, {}
    server: EmbeddedS3 = request.getfixturevalue("seaweed")
    return request.param, {
        "bucket": f"s3://{server.bucket}",
        "aws_endpoint_url_s3": server.endpoint_url,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "aws_region": server.region,
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["spool", "bucket"])
async def test_killed_at_random_instants_recordings_are_recovered(
    tmp_path: Path, store: tuple[str, Any], mode: str, all_figures: list[Figures]
) -> None:
    kind, where = store
    figures = await trials(tmp_path / "trials", mode, 1, DEFAULT[kind], where)
    all_figures.append(figures)
    figures.check(DEFAULT[kind])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("mode", "form"), [("spool", "flac"), ("bucket", "opus")])
async def test_killed_at_random_instants_compressed_outputs_are_recovered(
    tmp_path: Path, mode: str, form: str, all_figures: list[Figures]
) -> None:
    figures = await trials(tmp_path / "trials", mode, 13, DEFAULT_ENCODED, {}, form)
    all_figures.append(figures)
    figures.check(DEFAULT_ENCODED)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("form", ["flac", "opus"])
@pytest.mark.parametrize("mode", ["spool", "bucket"])
async def test_killed_hundreds_of_times_compressed_outputs_are_recovered(
    tmp_path: Path, mode: str, form: str, all_figures: list[Figures]
) -> None:
    figures = await trials(tmp_path / "trials", mode, 1001, SOAK_ENCODED, {}, form)
    all_figures.append(figures)
    figures.check(SOAK_ENCODED)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", ["spool", "bucket"])
async def test_killed_thousands_of_times_recordings_are_recovered(
    tmp_path: Path, store: tuple[str, Any], mode: str, all_figures: list[Figures]
) -> None:
    kind, where = store
    figures = await trials(tmp_path / "trials", mode, 1001, SOAK[kind], where)
    all_figures.append(figures)
    figures.check(SOAK[kind])
