"""What a stop waits for, in requests that wait for one another: latency's multiplier."""

from __future__ import annotations

from pathlib import Path

from bench import ours
from bench.feed import session_feed, steps
from bench.plan import Plan
from bench.report import Row
from bench.trial import Figures, run
from rounds import RoundsStore

from recorder import Recorder, VirtualClock
from uploader.local import LocalStore

MINUTE, HOUR = 60, 3600
USER_RATE = 24_000


async def session(seconds: int) -> Figures:
    """A call, and its requests from `stop` to the verified object, in rounds."""
    clock = VirtualClock()
    with ours.folder() as root:
        folder = Path(root)
        store = RoundsStore(LocalStore(folder / "bucket"))
        settings = ours.settings(folder, None)
        async with Recorder(settings, clock=clock, store=store, recover=False) as recorder:
            call = await recorder.start()
            feed = session_feed(call, clock, USER_RATE)
            for first, end in steps(seconds):
                await feed(first, end)
                await call.flush()
            store.count(recorder.engine)
            result = await call.stop()
    if not result.durable:
        raise RuntimeError(f"not recorded as it should be: {result}")
    # Deletes come when all is said, and nobody waits for them.
    made = [" and ".join(ops) for ops in store.ops() if ops != ["delete"]]
    requests = sum(len(one) for one in store.rounds)
    return {"trips": len(made), "requests": requests, "sequence": made}


async def rows(plan: Plan) -> list[Row]:
    """One row."""
    short = await run(__name__, "session", seconds=MINUTE)
    long = await run(__name__, "session", seconds=HOUR)
    return [
        Row(
            "requests in sequence from stop to verified, 1 h call",
            "requests",
            None,
            long["trips"],
            "as after 1 min",
            long["trips"] <= short["trips"],
            note=f"after 1 h {', '.join(long['sequence'])} ({long['requests']} in all); after "
            f"1 min {short['trips']} ({short['requests']} in all); beside them nothing waits",
            details={"minute": short, "hour": long},
        )
    ]
