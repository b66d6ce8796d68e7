"""Records for long, and says after each frame how many were accepted; tests kill it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from recorder import Recorder, Settings


def frame(index: int) -> bytes:
    """A frame that tells its number: 20 ms at 8 kHz."""
    return (index + 1).to_bytes(2, "little") * 160


async def main(folder: Path) -> None:
    settings = Settings(
        bucket=(folder / "bucket").as_uri(),
        spool_dir=folder / "spool",
        chunk_seconds=0.5,
        hold_back_seconds=0.2,
        sample_rate=8000,
    )
    async with Recorder(settings) as recorder:
        call = await recorder.start("killed")
        for index in range(30_000):
            call.write("user", frame(index), 8000)
            sys.stdout.write(f"{index + 1}\n")
            sys.stdout.flush()
            await asyncio.sleep(0.002)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
