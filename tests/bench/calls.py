"""What recording costs: a short and a long call, to a real S3 server on this machine.

Run by `make bench-calls`. Frames of 20 ms, user at 16 kHz and bot at 24 kHz, as fast as they can be
taken, with the recorder's clock moved along; each call in a process of its own, so that peaks are
its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from recorder import Recorder, Settings, VirtualClock
from recorder.embedded import EmbeddedS3

MINUTES = (1, 10, 60)


async def record(minutes: int, settings: Settings) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    user = [rng.integers(-3000, 3000, 320, dtype=np.int16).tobytes() for _ in range(64)]
    bot = [rng.integers(-3000, 3000, 480, dtype=np.int16).tobytes() for _ in range(64)]
    clock = VirtualClock()
    writing = 0.0
    async with Recorder(settings, clock=clock) as recorder:
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        call = await recorder.start()
        frames = minutes * 60 * 50
        for first in range(0, frames, 500):
            before = time.perf_counter()
            for index in range(first, first + 500):
                clock.advance_to(call.zero + (index + 1) / 50)
                call.write("user", user[index % 64], 16000)
                call.write("bot", bot[index % 64], 24000)
            writing += time.perf_counter() - before
            await call.flush()
        before = time.perf_counter()
        result = await call.stop()
        stopping = time.perf_counter() - before
        cpu = time.process_time() - began
    if not result.durable or result.samples != minutes * 60 * settings.sample_rate:
        raise SystemExit(f"not recorded as it should be: {result}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "minutes": minutes,
        "cpu_seconds_per_hour": round(cpu * 60 / minutes, 2),
        "microseconds_per_write": round(writing / frames / 2 * 1e6, 2),
        "stop_to_verified_seconds": round(stopping, 3),
        "peak_over_idle_mib": round((peak - idle) / 1024, 1),
        "requests": sum(n for name, n in result.counts.items() if name != "failed_attempts"),
    }


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedS3(Path(folder) / "s3", bucket="bench") as server:
            for minutes in MINUTES:
                values = {
                    "bucket": f"s3://{server.bucket}",
                    "spool_dir": f"{folder}/spool",
                    "aws_endpoint_url_s3": server.endpoint_url,
                    "aws_access_key_id": server.access_key,
                    "aws_secret_access_key": server.secret_key,
                    "aws_region": server.region,
                }
                arguments = (sys.executable, __file__, str(minutes), json.dumps(values))
                child = await asyncio.create_subprocess_exec(*arguments)
                if await child.wait():
                    raise SystemExit(f"the call of {minutes} minutes failed")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        outcome = asyncio.run(record(int(sys.argv[1]), Settings(**json.loads(sys.argv[2]))))
        sys.stdout.write(json.dumps(outcome) + "\n")
    else:
        asyncio.run(main())
