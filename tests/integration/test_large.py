"""An output beyond 4 GiB, recorded as any: RF64, read back by a player that is not ours."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from recorder import Recorder, Settings, State, VirtualClock
from recorder.containers.wav import parse_header

RATE = 192_000
SECONDS = 5_600
NEEDED = 14 * 1024**3
"""Bytes of disk: the audio is there as chunks, as parts and as the object, for a moment."""


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_more_than_4_gib_are_one_file(tmp_path: Path) -> None:
    """Of one track, so that chunks are half of it: a user on the left, nobody on the right."""
    if shutil.disk_usage(tmp_path).free < NEEDED:
        pytest.skip("there is no room for it")
    settings = Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        sample_rate=RATE,
        chunk_seconds=100,
        stall_seconds=0,
        part_bytes=64 * 1024**2,
        inflight_bytes=256 * 1024**2,
    )
    noise = np.random.default_rng(1).integers(-9000, 9000, RATE, dtype=np.int16)
    clock, md5 = VirtualClock(), hashlib.md5(usedforsecurity=False)
    async with Recorder(settings, clock=clock) as recorder:
        call = await recorder.start(tracks=["user"])
        for second in range(SECONDS):
            clock.advance_to(call.zero + second + 1)
            said = np.roll(noise, second * 7)
            call.write("user", said.tobytes(), RATE)
            md5.update(np.stack([said, np.zeros_like(said)], axis=1).tobytes())
            if second % 50 == 49:
                await call.flush()
        result = await call.stop()
    assert result.state is State.COMPLETED
    [path] = (tmp_path / "bucket").glob("dt=*/*/audio.wav")
    assert path.stat().st_size == 80 + SECONDS * RATE * 4 > 4 * 1024**3
    with path.open("rb") as file:
        head = file.read(4096)
    assert head[:4] == b"RF64"
    assert parse_header(head).samples == SECONDS * RATE
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "md5", "-"]
    found = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert found.stderr == b""
    assert found.stdout.decode().strip() == f"MD5={md5.hexdigest()}"
    shutil.rmtree(tmp_path / "bucket")  # pytest would keep it
