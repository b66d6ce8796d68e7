"""The IAM policy in `deploy/` is enough, and no permission of it is too many; enforced by moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from iam_moto import BATCH_DELETES_QUIRK, QUIRKS, Account, iam_account

from recorder import Recorder, Settings, State
from recorder.doctor import Diagnosis, Status, examine
from recorder.doctor.cost import Usage, load_of
from recorder.doctor.iam import EVERYTHING
from recorder.stores import make_store
from recorder.verification import verify

POLICY = json.loads((Path(__file__).parents[2] / "deploy" / "aws" / "iam-policy.json").read_text())
BUCKET, PREFIX = "recordings", "production"
BUCKET_ARN = f"arn:aws:s3:::{BUCKET}"
ACTIONS = [action for one in POLICY["Statement"] for action in one["Action"]]
STOPS = {"s3:PutObject"}
"""Without which calls cannot be recorded."""


@pytest.fixture(scope="module")
def account(clean_environment: None) -> Iterator[Account]:
    with iam_account(BUCKET) as account:
        yield account


def policy(without: str = "") -> dict[str, Any]:
    """The policy in `deploy/`, filled in, less one action."""
    text = json.dumps(POLICY).replace("BUCKET", BUCKET).replace("PREFIX", PREFIX)
    document: dict[str, Any] = json.loads(text)
    quirk = {"Effect": "Allow", "Action": [BATCH_DELETES_QUIRK], "Resource": BUCKET_ARN}
    document["Statement"].append(quirk)
    for one in document["Statement"]:
        one["Action"] = [action for action in one["Action"] if action != without]
    document["Statement"] = [one for one in document["Statement"] if one["Action"]]
    return document


def settings(account: Account, folder: Path, **changes: Any) -> Settings:
    return Settings(
        bucket=f"s3://{BUCKET}/{PREFIX}",
        spool_dir=folder / "spool",
        aws_region="us-east-1",
        aws_endpoint_url_s3=account.endpoint_url,
        aws_access_key_id=account.access_key,
        aws_secret_access_key=account.secret_key,
        **changes,
    )


async def diagnosis(chosen: Settings) -> Diagnosis:
    return await examine(chosen, load_of(chosen, Usage()), 1, ("bucket", "lifecycle"))


async def test_the_policy_is_enough(account: Account, tmp_path: Path) -> None:
    chosen = settings(account, tmp_path, tags={"team": "voice"}, outputs=("stereo", "turns"))
    with account.allowed(policy()):
        found = await diagnosis(chosen)
        assert found.fit
        assert found.policy is None
        async with Recorder(chosen) as recorder:
            assert recorder.capabilities.deletes
            assert recorder.capabilities.head
            async with recorder.start() as call:
                call.write("user", b"\1\2" * 48_000, 24_000)
            assert call.result is not None
            assert call.result.state is State.COMPLETED
            async with make_store(chosen) as store:
                report = await verify(store, call.result.recording_id)
            assert report.ok
    assert not account.uploads()
    assert not [key for key in account.objects() if "/dt=" not in key]


@pytest.mark.parametrize("action", ACTIONS)
async def test_each_permission_is_needed_and_missed_by_name(
    account: Account, tmp_path: Path, action: str
) -> None:
    chosen = settings(account, tmp_path, tags={"team": "voice"})
    with account.allowed(policy(without=action)):
        found = await diagnosis(chosen)
    missing = {grant.action for one in found.checks for grant in one.grants}
    if action in QUIRKS:
        assert not missing  # if this fails, moto has learnt it: take it from the list
        return
    assert missing == {action}
    assert found.policy is not None
    (statement,) = found.policy["Statement"]
    whole = next(one for one in policy()["Statement"] if action in one["Action"])
    assert statement == {**whole, "Action": [action]}
    assert found.fit is (action not in STOPS)
    # What is said to be missing, added, is enough.
    mended = policy(without=action)
    mended["Statement"] += [{**statement, "Sid": "Mended"}, policy()["Statement"][-1]]
    with account.allowed(mended):
        again = await diagnosis(chosen)
    assert again.policy is None


async def test_another_prefix_is_not_allowed(account: Account, tmp_path: Path) -> None:
    chosen = settings(account, tmp_path)
    with account.allowed(policy()):
        found = await diagnosis(chosen.replace(bucket=BUCKET, prefix="elsewhere"))
    assert not found.fit
    assert {grant.action for one in found.of(Status.FAIL) for grant in one.grants} == {
        "s3:PutObject"
    }


async def test_keys_that_are_not_known_are_told_from_permissions(
    account: Account, tmp_path: Path
) -> None:
    chosen = settings(account, tmp_path).replace(aws_secret_access_key="x")  # noqa: S106 - none
    with account.allowed(policy()):
        found = await diagnosis(chosen)
    (failed,) = found.of(Status.FAIL)
    assert failed.name == "credentials"
    assert "check the access key" in failed.fix
    assert found.policy is None


def test_the_policy_lists_what_the_doctor_knows() -> None:
    assert [grant.action for grant in EVERYTHING] == ACTIONS
