"""`recorder doctor` on real servers, and as it is typed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from commands import typed

from recorder import Settings
from recorder.catalog import POLICY
from recorder.doctor import Check, Diagnosis, Status, examine
from recorder.doctor.cost import Usage, load_of
from recorder.doctor.server import (
    CLOSE,
    REFUSED,
    check_clock,
    check_credentials,
    check_lifecycle,
    check_look,
    check_storage_class,
)
from recorder.embedded import EmbeddedS3
from uploader import s3_survey
from uploader.errors import AccessDenied
from uploader.retry import Retrier
from uploader.s3_survey import BucketLook, _skew


async def diagnosis(settings: Settings, *areas: str) -> Diagnosis:
    return await examine(settings, load_of(settings, Usage()), 1, areas or ("bucket", "lifecycle"))


def named(found: Diagnosis) -> dict[str, Check]:
    return {one.name: one for one in found.checks}


def on_seaweed(seaweed: EmbeddedS3, folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "bucket": seaweed.bucket,
        "prefix": "doctor",
        "spool_dir": folder / "spool",
        "aws_region": "us-east-1",
        "aws_endpoint_url_s3": seaweed.endpoint_url,
        "aws_access_key_id": seaweed.access_key,
        "aws_secret_access_key": seaweed.secret_key,
    }
    return Settings(**{**values, **changes})


async def test_a_server_that_can_do_everything(seaweed: EmbeddedS3, tmp_path: Path) -> None:
    settings = on_seaweed(seaweed, tmp_path, tags={"team": "voice"})
    found = await diagnosis(settings)
    assert found.fit
    assert found.policy is None
    # Nobody ends abandoned uploads there.
    assert [one.name for one in found.of(Status.WARN)] == ["uploads in progress"]
    again = await diagnosis(settings)  # what was there the first time is not in its way
    assert again.fit


async def test_a_bucket_that_is_not_there(seaweed: EmbeddedS3, tmp_path: Path) -> None:
    found = await diagnosis(on_seaweed(seaweed, tmp_path, bucket="nobodys"))
    (failed,) = found.of(Status.FAIL)
    assert failed.name == "exists"
    assert "create the bucket" in failed.fix


async def test_an_endpoint_that_is_not_there(seaweed: EmbeddedS3, tmp_path: Path) -> None:
    settings = on_seaweed(seaweed, tmp_path, aws_endpoint_url_s3="http://127.0.0.1:9")
    (failed,) = (await diagnosis(settings)).of(Status.FAIL)
    assert failed.name == "reachable"


async def test_a_secret_that_is_wrong(seaweed: EmbeddedS3, tmp_path: Path) -> None:
    settings = on_seaweed(seaweed, tmp_path, aws_secret_access_key="x")  # noqa: S106 - none
    (failed,) = (await diagnosis(settings)).of(Status.FAIL)
    assert failed.name == "credentials"
    assert "check the access key" in failed.fix


async def test_no_credentials_at_all(
    seaweed: EmbeddedS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    settings = on_seaweed(seaweed, tmp_path, aws_access_key_id=None, aws_secret_access_key=None)
    (failed,) = (await diagnosis(settings)).of(Status.FAIL)
    assert failed.name == "credentials"
    assert "AWS_ACCESS_KEY_ID" in failed.fix


@pytest.fixture
def moto_bucket(moto_url: str) -> Any:
    client = boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1")
    client.create_bucket(Bucket="ruled")
    return client


async def test_rules_and_versions_are_read(moto_bucket: Any, moto_url: str, tmp_path: Path) -> None:
    settings = Settings(
        bucket="s3://ruled/calls",
        spool_dir=tmp_path,
        aws_endpoint_url_s3=moto_url,
        aws_region="us-east-1",
    )
    no_rules = named(await diagnosis(settings))
    assert no_rules["uploads in progress"].status is Status.WARN
    rules = [
        {
            "ID": "uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {
            "ID": "tidy",
            "Status": "Enabled",
            "Filter": {"Prefix": "calls/"},
            "Expiration": {"Days": 1},
        },
    ]
    moto_bucket.put_bucket_lifecycle_configuration(
        Bucket="ruled", LifecycleConfiguration={"Rules": rules}
    )
    moto_bucket.put_bucket_versioning(Bucket="ruled", VersioningConfiguration={"Status": "Enabled"})
    found = await diagnosis(settings)
    checks = named(found)
    assert checks["uploads in progress"].status is Status.OK
    assert checks["rule tidy"].status is Status.FAIL
    assert checks["old versions"].status is Status.WARN
    assert checks["checksums"].status is Status.WARN  # moto keeps none
    assert not found.fit


NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
TAKEN = timedelta(milliseconds=300)


@pytest.mark.parametrize(
    ("server", "skew"),
    [
        (0, 0),
        (-1, 0),  # it may have been up to a second later
        (-2, 1),  # this machine is ahead by at least one
        (1, -0.7),
        (-3600, 3599),
        (3600, -3599.7),
    ],
)
def test_a_clocks_error_is_the_least_that_explains_what_is_told(server: float, skew: float) -> None:
    told = NOW + timedelta(seconds=server)
    assert _skew(told, NOW, NOW + TAKEN) == timedelta(seconds=skew)
    assert _skew(None, NOW, NOW) is None


@pytest.mark.parametrize(
    ("storage_class", "told"),
    [("GLACIER", True), ("DEEP_ARCHIVE", True), ("GLACIER_IR", False), (None, False)],
)
def test_a_class_that_is_not_read_at_once_is_told(storage_class: str | None, told: bool) -> None:
    assert bool(list(check_storage_class(storage_class))) is told


def test_a_wrong_clock_is_told() -> None:
    assert check_clock(timedelta()).status is Status.OK
    assert check_clock(CLOSE - timedelta(milliseconds=1)).status is Status.OK
    ahead = check_clock(CLOSE)
    assert ahead.status is Status.WARN
    assert "2 s ahead of" in ahead.found
    assert "signed with the server's time" in check_clock(-REFUSED).found
    assert "900 s behind" in check_clock(-REFUSED).found
    assert check_clock(None).status is Status.WARN


class There:
    """As much of a store as a look at its bucket needs."""

    region = "us-east-1"
    prefix = "calls/"
    credentials_from = "iam-role"


def look(region: str) -> list[Check]:
    store: Any = There()
    return list(check_look(BucketLook(None, region, timedelta(), 0.02), store))


def test_a_bucket_in_another_region_is_told() -> None:
    (wrong, _) = look("eu-west-1")
    assert wrong.status is Status.FAIL
    assert wrong.fix == "set AWS_REGION=eu-west-1"
    assert [one.status for one in look("us-east-1")] == [Status.OK, Status.OK]
    assert [one.name for one in look("")] == ["clock"]  # servers that do not say


@pytest.mark.parametrize(
    ("code", "status"), [("ExpiredToken", Status.FAIL), ("AccessDenied", Status.OK)]
)
def test_credentials_that_expired_are_told_from_permissions(code: str, status: Status) -> None:
    store: Any = There()
    check = check_credentials(store, AccessDenied("no", op="put", code=code, hint="renew"))
    assert check.status is status
    assert "iam-role" in check.found
    assert check.fix == ("renew" if status is Status.FAIL else "")


@pytest.mark.parametrize(
    ("days", "status"), [(7, Status.OK), (1, Status.WARN), (None, Status.WARN)]
)
async def test_rules_that_may_not_be_read_are_told_by_when_an_upload_will_be_aborted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int | None, status: Status
) -> None:
    async def refuse(store: object) -> None:
        raise AccessDenied("no", op="get_lifecycle", code="AccessDenied")

    monkeypatch.setattr(s3_survey, "lifecycle_rules", refuse)
    heard = s3_survey.Heard()
    if days is not None:
        until = datetime.now(UTC) + timedelta(days=days)
        date = until.strftime("%a, %d %b %Y %H:%M:%S GMT")
        heard.answers.append(("CreateMultipartUpload", {"x-amz-abort-date": date}))
    store: Any = There()
    settings = Settings(bucket="calls", spool_dir=tmp_path)
    (check,) = await check_lifecycle(store, settings, Retrier(POLICY), heard)
    assert check.status is status
    assert bool(check.grants) is (days is None)
    if days is not None:
        assert f"aborted {days} day" in check.found


# -- as it is typed --------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECORDER_BUCKET", (tmp_path / "bucket").as_uri())
    monkeypatch.setenv("RECORDER_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("RECORDER_SPOOL_MAX_BYTES", "1GiB")
    return tmp_path


def run(*words: str) -> Any:
    return typed("doctor", *words)


def test_everything_is_printed_and_the_exit_code_is_0(environment: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    for text in ("bucket, file://", "spool, ", "machine", "an hour of recordings", "PUT", "$0.0"):
        assert text in result.stdout


def test_as_json(environment: Path) -> None:
    document = json.loads(run("--json", "--calls", "3").stdout)
    assert document["ok"] is True
    assert {one["status"] for one in document["checks"]} <= {"ok", "warn"}
    assert document["iam_policy"] is None
    assert document["per_recorded_hour"]["chunks"] == 120
    assert document["spool"]["calls"] == 3


def test_a_failure_is_exit_code_1_and_says_what_to_do(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "file").write_text("")
    monkeypatch.setenv("RECORDER_SPOOL_DIR", str(environment / "file"))
    result = run("--only", "spool")
    assert result.exit_code == 1
    assert "fail  folder" in result.stdout
    assert "-> " in result.stdout
    assert "not fit to record: spool: folder" in result.stderr


def test_only_what_is_asked_for(environment: Path) -> None:
    assert "bucket, " not in run("--only", "machine").stdout
    assert not (environment / "spool").exists()
    cost = run("--only", "cost", "--prices", "put=1", "--prices", "get=0", "--prices", "storage=0")
    assert "requests cost     $0.588" in cost.stdout


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--only", "disk"), "must be of bucket, lifecycle, spool, machine, cost"),
        (("--only", ","), "names nothing"),
        (("--calls", "0"), "--calls 0: must be 1 to 100000"),
        (("--call-minutes", "nan"), "--call-minutes nan: must be"),
        (("--tracks", "17"), "--tracks 17: must be 1 to 16"),
        (("--turns-per-minute", "-1"), "--turns-per-minute -1: must be"),
        (("--prices", "put=cheap"), "must be put, get or storage, and a number"),
        (("--prices", "egress=1"), "must be put, get or storage, and a number"),
    ],
)
def test_wrong_options_are_one_clear_line(
    environment: Path, words: tuple[str, ...], problem: str
) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert problem in result.stderr
