"""A program: a bot that records, and then ends in one of many ways. Tests start it and watch.

Usage: python bot_child.py FOLDER ENDING [STORE]

ENDING is a function below; STORE is `works`, or `hangs` from when the audio is written. It says
`ready` on standard output when all frames are accepted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from faulty_store import FaultyStore

from recorder import Recorder, Session, Settings, VirtualClock
from recorder.stores import make_store

RATE = 8000
FRAME = RATE // 50
SECONDS = 3
RECORDING_ID = "drained"


def spoken() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Return what the bot's user says: noise without zeros."""
    return np.random.default_rng(5).integers(1, 9000, SECONDS * RATE, dtype=np.int16)


def settings(folder: Path) -> Settings:
    return Settings(
        bucket=(folder / "bucket").as_uri(),
        spool_dir=folder / "spool",
        chunk_seconds=0.5,
        hold_back_seconds=0.5,
        sample_rate=RATE,
        outputs="mono",
    )


async def talk(call: Session, clock: VirtualClock, first: int, last: int) -> None:
    """Write the frames [first, last), 20 ms each."""
    said = spoken()
    for index in range(first, last):
        clock.advance_to(call.zero + (index + 1) / 50)
        call.write("user", said[index * FRAME : (index + 1) * FRAME].tobytes(), RATE)


def ready() -> None:
    print("ready", flush=True)


async def line() -> str:
    """Wait for what the test says."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


# -- endings -----------------------------------------------------------------------------------


async def waits(recorder: Recorder, call: Session) -> None:
    """Go on until killed."""
    ready()
    await asyncio.Event().wait()


async def returns(recorder: Recorder, call: Session) -> None:
    """Fall off the end of main."""
    ready()


async def exits(recorder: Recorder, call: Session) -> None:
    ready()
    sys.exit(3)


async def raises(recorder: Recorder, call: Session) -> None:
    ready()
    raise LookupError("a bot's own mistake")


async def has_own_handler(recorder: Recorder, call: Session) -> None:
    """Close the recorder in the handler's time, and exit with a code of its own."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    ready()
    await told.wait()
    print("told", flush=True)
    await recorder.close()
    sys.exit(7)


def own_handler(number: int, frame: object) -> None:
    print("mine", flush=True)
    os._exit(9)  # a bot that will not wait


async def had_own_handler(recorder: Recorder, call: Session) -> None:
    """See `main`: the handler was there before the recorder."""
    await waits(recorder, call)


async def closes(recorder: Recorder, call: Session) -> None:
    """Close in order; then the process has the signal's default again."""
    await recorder.close()
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
    ready()
    await asyncio.Event().wait()


ENDINGS: dict[str, Callable[[Recorder, Session], Awaitable[None]]] = {
    ending.__name__: ending
    for ending in (waits, returns, exits, raises, has_own_handler, had_own_handler, closes)
}


async def live(folder: Path) -> None:
    """Record one half, wait for a line, record the other half, and stop."""
    clock = VirtualClock()
    async with Recorder(settings(folder), clock=clock) as recorder:
        call = await recorder.start(RECORDING_ID, tracks=["user"])
        await talk(call, clock, 0, SECONDS * 25)
        await call.flush()
        ready()
        await line()
        await talk(call, clock, SECONDS * 25, SECONDS * 50)
        result = await call.stop()
    print(result.state, flush=True)


async def main(folder: Path, ending: str, store: str) -> None:
    if ending == "had_own_handler":
        signal.signal(signal.SIGTERM, own_handler)
    clock = VirtualClock()
    faulty = FaultyStore(make_store(settings(folder)))
    recorder = Recorder(settings(folder), clock=clock, store=faulty)
    await recorder.__aenter__()  # and, as in a bot that does not close it, no exit
    call = await recorder.start(RECORDING_ID, tracks=["user"])
    await talk(call, clock, 0, SECONDS * 50)
    faulty.hangs = store == "hangs"
    await ENDINGS[ending](recorder, call)


if __name__ == "__main__":
    # Whoever runs the tests in the background may have had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    how = sys.argv[2]
    where = Path(sys.argv[1])
    asyncio.run(live(where) if how == "live" else main(where, how, sys.argv[3]))
