"""What all requests of a recording share: store, retries, time, and what is counted of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from uploader.budget import ByteBudget
from uploader.errors import StoreError
from uploader.probe import Capabilities
from uploader.retry import AttemptFailed, Deadline, OutOfTime, Retrier
from uploader.store import Store

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """What all requests of a recording share.

    `capabilities` may be replaced when more is known of the store; `counts` has the recording's
    requests by operation, and `last_failure` the latest attempt's that failed, and not for want
    of time.
    """

    store: Store
    retrier: Retrier
    budget: ByteBudget
    capabilities: Capabilities
    deadline: Deadline
    recording_id: str
    log: Logger
    on_failure: Callable[[AttemptFailed], None]
    counts: Counter[str] = field(default_factory=Counter)
    last_failure: StoreError | None = None

    async def call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        """Make one request through the retry layer, and count it; see `Retrier.call`."""
        self.counts[op] += 1
        try:
            return await self.retrier.call(
                op,
                request,
                deadline=self.deadline,
                log=self.log,
                on_attempt_failed=self._failed,
            )
        except OutOfTime as error:
            took = self.last_failure
            if took is None:
                raise
            said = f"{Exception.__str__(error)}; what failed last is {Exception.__str__(took)}"
            raise OutOfTime(said, op=op, code=error.code, hint=took.hint) from took

    def _failed(self, failed: AttemptFailed) -> None:
        self.counts["failed_attempts"] += 1
        if not isinstance(failed.error, OutOfTime):
            self.last_failure = failed.error
        self.on_failure(failed)
