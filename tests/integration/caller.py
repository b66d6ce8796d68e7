"""A program: somebody who is recorded, until the process is killed or told to stop.

Usage: python caller.py ID SECONDS

Where to and how is the environment's to say. It says `ready` when SECONDS of `spoken` are accepted
and all that is sealed of it is in the bucket. A line on standard input then makes it go on in real
time, another one makes it stop, and it says the recording's state. Killed by its parent's death.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from recorder import Recorder, Session, VirtualClock

RATE = 8000
FRAME = RATE // 50
PERIOD = 60 * RATE


def spoken(samples: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Return what is said: noise without zeros, which repeats after a minute."""
    minute = np.random.default_rng(3).integers(1, 9000, PERIOD, dtype=np.int16)
    return np.resize(minute, samples)


def talk(call: Session, clock: VirtualClock, first: int, last: int) -> None:
    """Write the frames [first, last), 20 ms each."""
    said = spoken(last * FRAME)
    for index in range(first, last):
        clock.advance_to(call.zero + (index + 1) / 50)
        call.write("user", said[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)


async def main(recording_id: str, seconds: int) -> None:
    clock = VirtualClock()
    async with Recorder(clock=clock) as recorder:
        call = await recorder.start(recording_id, tracks=["user"])
        talk(call, clock, 0, seconds * 50)
        await call.flush()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        stopping = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        frame = seconds * 50
        while not stopping.done():
            talk(call, clock, frame, frame + 1)
            frame += 1
            await asyncio.sleep(0.02)
        result = await call.stop()
    print(result.state, frame * FRAME, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
