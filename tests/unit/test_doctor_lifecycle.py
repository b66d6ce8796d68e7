"""What lifecycle rules mean for recordings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from recorder.doctor import Check, Status
from recorder.doctor.lifecycle import ABORT_DAYS, KEPT_DAYS, check_rules

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}


def rule(prefix: str = "", **actions: Any) -> dict[str, Any]:
    return {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": prefix}, **actions}


def found(
    *rules: dict[str, Any], prefix: str = "calls/", versioned: bool = False, **tags: str
) -> dict[str, Check]:
    checks = check_rules(rules, prefix, tags, NOW, versioned=versioned)
    return {one.name: one for one in checks}


def test_without_rules_uploads_stay_for_good() -> None:
    checks = found()
    assert checks["uploads in progress"].status is Status.WARN
    assert "DaysAfterInitiation" in checks["uploads in progress"].fix
    assert checks["objects"].status is Status.OK


@pytest.mark.parametrize(
    ("days", "status"), [(ABORT_DAYS - 1, Status.WARN), (ABORT_DAYS, Status.OK), (7, Status.OK)]
)
def test_uploads_may_be_aborted_when_no_call_can_be_that_long(days: int, status: Status) -> None:
    made = rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": days})
    assert found(made)["uploads in progress"].status is status


def test_the_shortest_of_several_rules_counts() -> None:
    hasty = rule("calls/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})
    assert found(rule(**ABORT), hasty)["uploads in progress"].status is Status.WARN


@pytest.mark.parametrize(
    ("days", "status"), [(KEPT_DAYS - 1, Status.FAIL), (KEPT_DAYS, Status.OK), (90, Status.OK)]
)
def test_objects_must_outlive_the_making_of_a_recording(days: int, status: Status) -> None:
    check = found(rule(**ABORT, Expiration={"Days": days}))["rule r"]
    assert check.status is status
    assert f"after {days} day" in check.found


@pytest.mark.parametrize(("day", "status"), [(1, Status.FAIL), (27, Status.FAIL), (29, Status.OK)])
def test_a_date_counts_from_now(day: int, status: Status) -> None:
    date = datetime(2026, 11, day, tzinfo=UTC)
    assert found(rule(Expiration={"Date": date}))["rule r"].status is status


@pytest.mark.parametrize(
    ("kind", "days", "status"),
    [
        ("GLACIER", 0, Status.FAIL),
        ("DEEP_ARCHIVE", 1, Status.FAIL),
        ("DEEP_ARCHIVE", 30, Status.OK),
        ("GLACIER_IR", 0, Status.OK),
    ],
)
def test_what_is_archived_at_once_cannot_be_recovered(kind: str, days: int, status: Status) -> None:
    moved = rule(Transitions=[{"Days": days, "StorageClass": kind}])
    assert found(moved)["rule r"].status is status


@pytest.mark.parametrize("where", ["other/", "calls-2/", "calls/exports/"])
def test_rules_for_others_do_not_matter(where: str) -> None:
    checks = found(rule(where, Expiration={"Days": 1}))
    assert "rule r" not in checks


@pytest.mark.parametrize("where", ["", "calls", "calls/", "calls/dt=2026-"])
def test_rules_for_more_or_less_of_the_prefix_do(where: str) -> None:
    assert found(rule(where, Expiration={"Days": 1}))["rule r"].status is Status.FAIL


def test_rules_that_are_off_and_of_other_tags_do_not_matter() -> None:
    off = {**rule(Expiration={"Days": 1}), "Status": "Disabled"}
    tagged = rule(Expiration={"Days": 1})
    tagged["Filter"] = {"And": {"Prefix": "", "Tags": [{"Key": "keep", "Value": "no"}]}}
    assert "rule r" not in found(off, tagged, keep="yes")
    assert "rule r" in found(off, tagged, keep="no")


def test_a_rule_of_the_older_form_has_its_prefix_outside() -> None:
    old = {"ID": "r", "Status": "Enabled", "Prefix": "other/", "Expiration": {"Days": 1}}
    assert "rule r" not in found(old)
    assert "rule r" in found({**old, "Prefix": ""})


def test_old_versions_are_billed_unless_a_rule_removes_them() -> None:
    assert "old versions" not in found(rule(**ABORT))
    assert found(rule(**ABORT), versioned=True)["old versions"].status is Status.WARN
    removed = rule(NoncurrentVersionExpiration={"NoncurrentDays": 3})
    check = found(rule(**ABORT), removed, versioned=True)["old versions"]
    assert check.status is Status.OK
    assert "3 days" in check.found
