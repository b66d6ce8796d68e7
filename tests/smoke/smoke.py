"""Uses the installed wheel as a user would: the library and the command, with a local folder.

Run by `make smoke` with the wheel's own interpreter, outside of the source tree; not by pytest.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import recorder
from recorder import Recorder, Settings

RATE = 24000
VOICE = b"".join(
    (index * 37 % 20011 - 10000).to_bytes(2, "little", signed=True) for index in range(RATE)
)


async def by_library(folder: Path) -> None:
    settings = Settings(bucket=(folder / "bucket").as_uri(), spool_dir=folder / "spool")
    async with Recorder(settings) as opened, opened.start("smoke") as call:
        call.write("user", VOICE, RATE)
    assert call.result is not None
    assert call.result.state == "completed", call.result
    [path] = folder.glob("bucket/dt=*/smoke/audio.wav")
    with wave.open(str(path)) as audio:
        assert (audio.getnchannels(), audio.getframerate()) == (2, RATE)
        assert audio.readframes(RATE)[0::4] == VOICE[0::2]


def by_command(folder: Path) -> None:
    source = folder / "user.wav"
    with wave.open(str(source), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(RATE)
        audio.writeframes(VOICE)
    environment = {
        **os.environ,
        "RECORDER_BUCKET": (folder / "bucket").as_uri(),
        "RECORDER_SPOOL_DIR": str(folder / "spool"),
    }
    command = [str(Path(sys.executable).with_name("recorder"))]
    arguments = ["record", "--user", str(source), "--speed", "0", "--json"]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    assert result["state"] == "completed", result
    assert result["duration_seconds"] == 1.0, result
    listed = subprocess.run(
        [*command, "ls", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    assert result["recording_id"] in listed.stdout


def without_pipecat() -> None:
    """The wheel by itself does not bring Pipecat, and says what does."""
    said = ""
    try:
        importlib.import_module("recorder.pipecat")
    except ImportError as error:
        said = str(error)
    assert "pip install 'bot-recorder[pipecat]'" in said, said


def main() -> None:
    """Run all of it."""
    assert "site-packages" in str(Path(recorder.__file__)), "this is not the installed wheel"
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(by_library(Path(folder)))
        by_command(Path(folder))
    without_pipecat()
    sys.stdout.write(f"smoke test passed with {recorder.__file__}\n")


if __name__ == "__main__":
    main()
