"""What an S3 server says of a bucket beside what was asked: its region, its time, its rules.

None of it is needed to record; `recorder doctor` asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from uploader.errors import InvalidRequest, NoSuchBucket, NoSuchObject, StoreError
from uploader.s3 import S3Store
from uploader.s3_clock import date_of

_NO_RULES = "NoSuchLifecycleConfiguration"
_TICK = timedelta(seconds=1)
"""`Date` has whole seconds (RFC 9110, section 5.6.7)."""


@dataclass(frozen=True, slots=True)
class BucketLook:
    """What the answer to a HEAD of a bucket says.

    Attributes:
        error: Why it was refused; None if it was not.
        region: Where the bucket is; empty if the server does not say.
        skew: How far this machine's clock is ahead of the server's, at least: zero if they agree
            as far as can be told; None if the server does not say what time it is.
        round_trip_seconds: Until the answer.
    """

    error: StoreError | None
    region: str
    skew: timedelta | None
    round_trip_seconds: float


@dataclass(slots=True)
class Heard:
    """Headers of answers, by operation of the S3 API, names in lower case."""

    answers: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def last(self, operation: str, header: str) -> str:
        """Return a header of the last answer to an operation that had it; empty if none had."""
        told = (
            headers[header]
            for name, headers in reversed(self.answers)
            if name == operation and header in headers
        )
        return next(told, "")


@contextmanager
def listening(store: S3Store) -> Iterator[Heard]:
    """Note the headers of all answers, refusals too, inside the block."""
    heard = Heard()

    def note(model: Any, parsed: Mapping[str, Any], **_: object) -> None:
        headers = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        lower = {str(name).lower(): str(value) for name, value in headers.items()}
        heard.answers.append((model.name, lower))

    with store.on_answer(note):
        yield heard


async def look_at_bucket(store: S3Store) -> BucketLook:
    """Return what one HEAD of the bucket tells, be it refused.

    Raises:
        TransientError: There was no answer.
    """
    error: StoreError | None = None
    with listening(store) as heard:
        began, sent = time.monotonic(), datetime.now(UTC)
        try:
            async with store.asking("head_bucket") as client:
                await client.head_bucket(Bucket=store.bucket)
        except NoSuchObject as absent:
            error = NoSuchBucket(
                f"there is no bucket {store.bucket!r}",
                op="head_bucket",
                code=absent.code,
                hint="create the bucket, or correct its name or the endpoint",
            )
        except StoreError as refused:
            if not heard.answers:
                raise
            error = refused
        received = datetime.now(UTC)
    headers = heard.answers[-1][1] if heard.answers else {}
    return BucketLook(
        error=error,
        region=headers.get("x-amz-bucket-region", ""),
        skew=_skew(date_of(headers), sent, received),
        round_trip_seconds=time.monotonic() - began,
    )


def _skew(server: datetime | None, sent: datetime, received: datetime) -> timedelta | None:
    """Return the least difference that explains what the server said between two moments."""
    if server is None:
        return None
    # The server's clock read [server, server + 1 s) at some moment of [sent, received].
    if sent - (server + _TICK) > timedelta():
        return sent - (server + _TICK)
    if received - server < timedelta():
        return received - server
    return timedelta()


async def lifecycle_rules(store: S3Store) -> Sequence[Mapping[str, Any]]:
    """Return the bucket's lifecycle rules, as the S3 API has them.

    Raises:
        AccessDenied: They may not be read.
        Unsupported: The server has none.
    """
    try:
        async with store.asking("get_lifecycle") as client:
            answer = await client.get_bucket_lifecycle_configuration(Bucket=store.bucket)
    except (InvalidRequest, NoSuchObject) as error:
        if error.code == _NO_RULES:
            return []
        raise
    rules: Sequence[Mapping[str, Any]] = answer.get("Rules", [])
    return rules
