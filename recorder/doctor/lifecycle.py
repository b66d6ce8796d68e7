"""What a bucket's lifecycle rules will do to recordings: pure.

Rules are as `GetBucketLifecycleConfiguration` returns them (Amazon S3 API Reference,
"LifecycleRule"). Days count from an object's creation, or an upload's initiation, and are rounded
to the next midnight UTC (Amazon S3 User Guide, "Lifecycle rules: Based on an object's age").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from recorder.doctor.check import Check, Status

AREA = "lifecycle"

ABORT_DAYS = 2
"""A call and the rescue of a lost host end within a day; rules count from a call's beginning."""

ADVISED_ABORT_DAYS = 7

KEPT_DAYS = 2
"""How old an object may have to be while its recording is still being made or rescued."""

ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that are not read at once (Amazon S3 User Guide, "Storage class")."""

_ABORT_RULE = (
    '{"ID": "end-abandoned-uploads", "Status": "Enabled", "Filter": {"Prefix": ""}, '
    f'"AbortIncompleteMultipartUpload": {{"DaysAfterInitiation": {ADVISED_ABORT_DAYS}}}}}'
)


def check_rules(
    rules: Sequence[Mapping[str, Any]],
    prefix: str,
    tags: Mapping[str, str],
    now: datetime,
    *,
    versioned: bool,
) -> list[Check]:
    """Return what the rules that apply to recordings mean for them.

    Args:
        rules: All of the bucket's.
        prefix: What all keys begin with, ending in `/` if not empty.
        tags: What all objects are tagged with.
        now: UTC.
        versioned: Whether the bucket keeps old versions of objects.
    """
    ours = [rule for rule in rules if _applies(rule, prefix, tags)]
    checks = [check_abort_days(min(_abort_days(ours), default=None))]
    for rule in ours:
        checks.extend(_of_age(rule, now))
    if versioned:
        checks.append(_of_versions(ours))
    if len(checks) == 1:
        found = "no rule deletes or moves recordings"
        checks.append(Check(AREA, "objects", Status.OK, found))
    return checks


def check_abort_days(days: float | None) -> Check:
    """Return what it means that uploads in progress are aborted after so many days, or never."""
    name = "uploads in progress"
    if days is None:
        return Check(
            AREA,
            name,
            Status.WARN,
            "no rule ends uploads that nobody finishes: their parts are billed, and not seen",
            f"add this rule to the bucket: {_ABORT_RULE}",
        )
    found = f"aborted {_told(days)} after their call began"
    if days < ABORT_DAYS:
        return Check(
            AREA,
            name,
            Status.WARN,
            f"{found}: a call that long, or one that waits out an outage, is sent twice",
            f"set DaysAfterInitiation to {ADVISED_ABORT_DAYS}",
        )
    return Check(AREA, name, Status.OK, found)


def _told(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"


def _abort_days(rules: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    for rule in rules:
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        if days is not None:
            yield int(days)


def _applies(rule: Mapping[str, Any], prefix: str, tags: Mapping[str, str]) -> bool:
    """Return whether a rule is enabled and may apply to an object of a recording."""
    if rule.get("Status") != "Enabled":
        return False
    chosen: Mapping[str, Any] = rule.get("Filter") or {}
    both: Mapping[str, Any] = chosen.get("And") or {}
    where = str(rule.get("Prefix") or chosen.get("Prefix") or both.get("Prefix") or "")
    key = f"{prefix}dt="
    if not (where.startswith(key) or key.startswith(where)):
        return False
    wanted = [*both.get("Tags", ()), *([chosen["Tag"]] if "Tag" in chosen else [])]
    return all(tags.get(tag["Key"]) == tag["Value"] for tag in wanted)


def _of_age(rule: Mapping[str, Any], now: datetime) -> Iterator[Check]:
    """Yield what a rule does to objects of some age."""
    name = f"rule {rule.get('ID') or '(unnamed)'}"
    expiration = rule.get("Expiration", {})
    if (days := _days(expiration, now)) is not None:
        yield _expires(name, days)
    for move in rule.get("Transitions", ()):
        days, to = _days(move, now), str(move.get("StorageClass", ""))
        if days is None:
            continue
        found = f"moves objects to {to} after {_told(days)}"
        if to in ARCHIVES and days < KEPT_DAYS:
            yield Check(
                AREA,
                name,
                Status.FAIL,
                f"{found}: manifests and chunks can then be neither read nor recovered from",
                f"set Days to {ADVISED_ABORT_DAYS} or more",
            )
        else:
            yield Check(AREA, name, Status.OK, found)


def _days(action: Mapping[str, Any], now: datetime) -> float | None:
    """Return after how many days an action happens; None if it does not go by age."""
    if action.get("Days") is not None:
        return float(action["Days"])
    date = action.get("Date")
    if isinstance(date, datetime):
        # From that day on it happens to every object, however young (S3 User Guide).
        left = (date.astimezone(UTC) - now).total_seconds() / 86_400
        return max(0.0, round(left, 1))
    return None


def _expires(name: str, days: float) -> Check:
    found = f"deletes objects after {_told(days)}"
    if days < KEPT_DAYS:
        return Check(
            AREA,
            name,
            Status.FAIL,
            f"{found}: also chunks and manifests of recordings that are not finished yet",
            f"set Days to {ADVISED_ABORT_DAYS} or more, or have its Filter leave the prefix out",
        )
    return Check(AREA, name, Status.OK, f"{found}, recordings too")


def _of_versions(rules: Sequence[Mapping[str, Any]]) -> Check:
    name = "old versions"
    ages = [
        int(days)
        for rule in rules
        if (days := rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")) is not None
    ]
    if ages:
        return Check(AREA, name, Status.OK, f"of what was deleted go after {min(ages)} days")
    return Check(
        AREA,
        name,
        Status.WARN,
        "the bucket is versioned, and no rule removes old versions: chunks that were deleted, and "
        "every version of each manifest, are kept and billed for good",
        "add a rule with NoncurrentVersionExpiration, NoncurrentDays 7",
    )
