"""What an S3 server says of itself and of the bucket: credentials, region, time, rules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from recorder.doctor import iam, lifecycle
from recorder.doctor.check import Check, Status
from recorder.doctor.refusals import PERMISSION_CODES, check_of_refusal
from recorder.settings import Settings
from uploader.errors import AccessDenied, NoSuchBucket, StoreError, Unsupported
from uploader.retry import Retrier

if TYPE_CHECKING:
    from uploader.s3 import S3Store
    from uploader.s3_survey import BucketLook, Heard

AREA = "bucket"

CLOSE = timedelta(seconds=2)
"""Clocks that differ by less serve every purpose there is for a recording's start."""
REFUSED = timedelta(minutes=15)
"""What S3 refuses requests for (Amazon S3 API Reference, `RequestTimeTooSkewed`)."""


def check_look(look: BucketLook, store: S3Store) -> Iterator[Check]:
    """Yield what the first answer tells; nothing else need be tried if one of it fails."""
    error = look.error
    if isinstance(error, NoSuchBucket):
        found = Exception.__str__(error)
        yield Check(AREA, "exists", Status.FAIL, found, error.hint)
    if look.region and look.region != store.region:
        yield Check(
            AREA,
            "region",
            Status.FAIL,
            f"the bucket is in {look.region}; requests go to {store.region}",
            f"set AWS_REGION={look.region}",
        )
    elif look.region:
        found = f"{look.region}, {1000 * look.round_trip_seconds:.0f} ms away"
        yield Check(AREA, "region", Status.OK, found)
    yield check_clock(look.skew)


def check_clock(skew: timedelta | None) -> Check:
    """Return what it means that this machine's clock is so far ahead of the server's."""
    name = "clock"
    if skew is None:
        return Check(AREA, name, Status.WARN, "the server does not say what time it is")
    if abs(skew) < CLOSE:
        return Check(AREA, name, Status.OK, "agrees with the server's")
    seconds = abs(skew).total_seconds()
    direction = "ahead of" if skew > timedelta() else "behind"
    found = f"{seconds:.0f} s {direction} the server's: recordings' start times are wrong by that"
    if abs(skew) >= REFUSED:
        found += ", and requests have to be signed with the server's time"
    return Check(AREA, name, Status.WARN, found, "set this machine's clock by NTP")


def check_credentials(store: S3Store, refusal: StoreError | None) -> Check:
    """Return whether there are credentials that the server takes.

    Args:
        store: After a write was tried.
        refusal: Why that write failed, if it did.
    """
    where = {"": "none", "arguments": "AWS_ACCESS_KEY_ID"}
    origin = where.get(store.credentials_from, store.credentials_from)
    if isinstance(refusal, AccessDenied) and refusal.code not in PERMISSION_CODES:
        said = f"{origin}: {Exception.__str__(refusal)}"
        return Check(AREA, "credentials", Status.FAIL, said, refusal.hint)
    return Check(AREA, "credentials", Status.OK, f"from {origin}, taken by the server")


def check_storage_class(storage_class: str | None) -> Iterator[Check]:
    """Yield what the storage class of outputs means, if that is worth a word."""
    if storage_class in lifecycle.ARCHIVES:
        yield Check(
            AREA,
            "storage class",
            Status.WARN,
            f"{storage_class}: outputs cannot be read, played or verified before they are restored",
            "use GLACIER_IR, or the bucket's own class and a rule that moves what is older",
        )


async def check_lifecycle(
    store: S3Store, settings: Settings, retrier: Retrier, heard: Heard
) -> list[Check]:
    """Return what the bucket's rules will do to recordings.

    Args:
        store: Open.
        settings: Whose tags objects have.
        retrier: Of all requests.
        heard: What the answers to the trials said.
    """
    from uploader.s3_survey import lifecycle_rules  # with the S3 client

    now = datetime.now(UTC)
    version = heard.last("PutObject", "x-amz-version-id")
    try:
        rules = await retrier.call("doctor", lambda: lifecycle_rules(store))
    except StoreError as error:
        if abort := heard.last("CreateMultipartUpload", "x-amz-abort-date"):
            return [lifecycle.check_abort_days(_days_until(abort, now))]
        if isinstance(error, Unsupported):
            return [Check(lifecycle.AREA, "rules", Status.OK, "this server has none")]
        without = "whether rules delete recordings, or end uploads, is not known"
        warn = Status.WARN
        return [check_of_refusal(lifecycle.AREA, "rules", warn, error, iam.LIFECYCLE, without)]
    versioned = version not in ("", "null")
    return lifecycle.check_rules(rules, store.prefix, settings.tags, now, versioned=versioned)


def _days_until(date: str, now: datetime) -> float | None:
    from uploader.s3_clock import date_of

    until = date_of({"date": date})
    return None if until is None else max(0.0, round((until - now).total_seconds() / 86_400, 1))
