"""Whole recordings on real servers through a line that fails: every fault at every operation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from fault_proxy import (
    Fault,
    FaultProxy,
    cut_answer,
    lose_answer,
    refused,
    reset_before,
    reset_in_body,
    slow,
    twice,
)
from proxied_calls import Calls, Server

from recorder.embedded import EmbeddedS3


@dataclass(frozen=True)
class Where:
    """Requests of a recording: see `FaultProxy.fault`."""

    op: str
    key: str = ""
    number: int | None = None
    skip: int = 0
    after: str = ""


WHERE = {
    "probe": Where("put", ".bot-recorder/"),
    "first manifest": Where("put", "manifest.json"),
    "manifest": Where("put", "manifest.json", skip=2),
    "last manifest": Where("put", "manifest.json", after="complete_multipart"),
    "chunk": Where("put", "/chunks/", skip=1),
    "create": Where("create_multipart"),
    "part in mid-call": Where("upload_part", number=2),
    "part 1": Where("upload_part", number=1),
    "complete": Where("complete_multipart"),
    "head": Where("head", "audio.wav"),
    "delete": Where("delete_many"),
}
PHASES = {
    "start": ["probe", "first manifest", "create", "chunk"],
    "middle": ["manifest", "part in mid-call", "part 1"],
    "end": ["complete", "head", "last manifest", "delete"],
}
WITH_BODY = [where for where, one in WHERE.items() if one.op in ("put", "upload_part")]
NOT_HEAD = [where for where in WHERE if where != "head"]  # whose answer has no body, so no code
# A line that makes two creations of one leaves an upload that nobody has heard of.
NOT_CREATED = [where for where in WHERE if where != "create"]

# A connection that breaks is tried again once by the HTTP library itself, unless it is a POST:
# twice in a row, it is also the retry layer's.
FAULTS: dict[str, tuple[Fault, int, list[str]]] = {
    "an internal error": (refused(500, "InternalError"), 1, list(WHERE)),
    "a burst of SlowDown": (refused(503, "SlowDown", retry_after="0"), 4, list(WHERE)),
    "a page of a proxy's": (refused(502, "<html>"), 1, list(WHERE)),
    "an error in a 200": (refused(200, "InternalError"), 1, list(WHERE)),
    "a conflict": (refused(409, "ConditionalRequestConflict"), 1, NOT_HEAD),
    "a reset": (reset_before(), 2, list(WHERE)),
    "a reset in the body": (reset_in_body(1000), 2, [*WITH_BODY, "complete"]),
    "an error of what is done": (refused(500, "InternalError", done=True), 1, list(WHERE)),
    "a lost answer": (lose_answer(), 1, list(WHERE)),
    "two lost answers": (lose_answer(), 2, list(WHERE)),
    "half an answer": (cut_answer(20), 2, list(WHERE)),
    "half an answer, and a reset": (cut_answer(20, reset=True), 2, list(WHERE)),
    "a request that comes twice": (twice(), 1, NOT_CREATED),
    "twice, and the first answer": (twice(answered=1), 1, NOT_CREATED),
    "a slow line": (slow(50e6), 1, list(WHERE)),
}
SELDOM = [  # of two that are much alike, the other is in every run
    "a page of a proxy's",
    "a lost answer",
    "half an answer, and a reset",
    "twice, and the first answer",
]
CASES = [(fault, where) for fault, (_, _, places) in FAULTS.items() for where in places]


def real(seaweed: EmbeddedS3) -> Server:
    return Server(seaweed.endpoint_url, seaweed.bucket, seaweed.access_key, seaweed.secret_key)


@pytest_asyncio.fixture
async def calls(seaweed: EmbeddedS3, tmp_path: Path) -> AsyncIterator[Calls]:
    """Recordings on SeaweedFS."""
    server = real(seaweed)
    async with FaultProxy(server.url) as proxy:
        yield Calls(server, proxy, tmp_path / "spool")


def hurt(proxy: FaultProxy, fault: str, where: str) -> None:
    suffered, times, _ = FAULTS[fault]
    one = WHERE[where]
    choice = {"key": one.key, "number": one.number, "skip": one.skip, "after": one.after}
    proxy.fault(one.op, suffered, times=times, **choice)


async def recorded(calls: Calls, **changes: object) -> None:
    """Record a call, and check that all faults came to pass and did no harm."""
    result = await calls.record(**changes)
    assert not calls.proxy.pending, "not all that was to fail has failed"
    await calls.check(result)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in SELDOM])
async def test_a_fault_at_every_operation_costs_nothing(
    calls: Calls, fault: str, phase: str
) -> None:
    for where in PHASES[phase]:
        if where in FAULTS[fault][2]:
            hurt(calls.proxy, fault, where)
    await recorded(calls)


@pytest.mark.soak
@pytest.mark.parametrize(("fault", "where"), CASES)
async def test_a_fault_at_one_operation_costs_nothing(calls: Calls, fault: str, where: str) -> None:
    hurt(calls.proxy, fault, where)
    await recorded(calls)
