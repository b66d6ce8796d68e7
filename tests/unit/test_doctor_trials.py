"""What a store cannot do is found by trying, told by name, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calls import settings_in
from faulty_store import FaultyStore

from recorder.doctor.check import Check, Status
from recorder.doctor.iam import DATA_KEY, PUT, policy
from recorder.doctor.refusals import check_of_refusal
from recorder.doctor.trials import Trials
from uploader.errors import AccessDenied, InvalidRequest, StoreError, Unsupported
from uploader.local import LocalStore
from uploader.retry import Retrier, RetryPolicy
from uploader.store import Body, ObjectAttributes, ObjectInfo

ONCE = RetryPolicy(attempts=1)


def refusing(op: str, kind: type[StoreError] = AccessDenied) -> Callable[..., Any]:
    code = {AccessDenied: "AccessDenied"}.get(kind, kind.__name__)

    async def hook(called: str, key: str, done: bool) -> None:
        if called == op and not done:
            raise kind(f"{op} refused", op=op, key=key, code=code, hint="ask")

    return hook


async def tried(
    folder: Path, store: FaultyStore, **changes: Any
) -> tuple[dict[str, Check], Trials]:
    settings = settings_in(folder, **changes)
    trials = Trials(store, settings, Retrier(ONCE), "token")
    await trials.run()
    return {one.name: one for one in trials.checks}, trials


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(LocalStore(tmp_path / "bucket"))


def there(folder: Path) -> list[str]:
    found = [*folder.glob("bucket/.bot-recorder/**/*"), *folder.glob("bucket/.store/uploads/*")]
    return [str(path) for path in found if path.is_file() or "uploads" in path.parts]


async def test_a_store_that_can_do_everything(tmp_path: Path, store: FaultyStore) -> None:
    async with store:
        checks, trials = await tried(tmp_path, store, tags={"team": "voice"})
    assert {one.status for one in checks.values()} == {Status.OK}
    assert {"put", "put with tags", "get", "head", "list", "delete", "abort upload"} <= set(checks)
    assert not trials.left
    assert not there(tmp_path)


@pytest.mark.parametrize(
    ("op", "name", "status"),
    [
        ("put", "put", Status.FAIL),
        ("get", "get", Status.WARN),
        ("head", "head", Status.WARN),
        ("list_objects", "list", Status.WARN),
        ("delete", "delete", Status.WARN),
        ("create_multipart", "create upload", Status.FAIL),
        ("list_uploads", "list uploads", Status.WARN),
        ("upload_part", "upload parts", Status.FAIL),
        ("list_parts", "list parts", Status.WARN),
        ("complete_multipart", "complete upload", Status.FAIL),
        ("abort_multipart", "abort upload", Status.WARN),
    ],
)
async def test_what_is_refused_is_told_with_its_permission(
    tmp_path: Path, store: FaultyStore, op: str, name: str, status: Status
) -> None:
    async with store:
        store.hook = refusing(op)
        checks, _ = await tried(tmp_path, store)
    assert checks[name].status is status
    assert checks[name].grants
    assert checks[name].fix == f"allow {checks[name].grants[0].action}"


async def test_what_cannot_be_removed_is_small_and_told(tmp_path: Path, store: FaultyStore) -> None:
    async with store:
        store.hook = refusing("delete")
        checks, trials = await tried(tmp_path, store)
    assert "one small part" in checks["upload parts"].found
    assert len(trials.left) == 2
    assert sum(path.stat().st_size for path in tmp_path.glob("bucket/.bot-recorder/*/*")) < 1000


class Careless(FaultyStore):
    """Writes whatever the condition, as servers do that do not know any."""

    async def put(
        self,
        key: str,
        body: Body,
        attributes: ObjectAttributes | None = None,
        **_: Any,
    ) -> ObjectInfo:
        return await super().put(key, body, attributes)


async def test_conditions_that_are_ignored_are_found_out(tmp_path: Path) -> None:
    store = Careless(LocalStore(tmp_path / "bucket"))
    async with store:
        checks, _ = await tried(tmp_path, store)
    assert checks["conditional writes"].status is Status.WARN
    assert "was not refused" in checks["conditional writes"].found
    assert not there(tmp_path)


async def test_conditions_that_are_not_known_are_told(tmp_path: Path) -> None:
    class Unknowing(FaultyStore):
        async def put(self, *arguments: Any, **options: Any) -> ObjectInfo:
            if options.get("if_absent") or options.get("if_match"):
                raise Unsupported("no", op="put", code="NotImplemented")
            return await super().put(*arguments, **options)

    store = Unknowing(LocalStore(tmp_path / "bucket"))
    async with store:
        checks, _ = await tried(tmp_path, store)
    assert "takes none (NotImplemented)" in checks["conditional writes"].found


async def test_a_cancel_leaves_nothing_behind(tmp_path: Path, store: FaultyStore) -> None:
    reached = asyncio.Event()

    async def stop_at_the_parts(op: str, key: str, done: bool) -> None:
        if op == "upload_part":
            reached.set()
            await asyncio.Event().wait()

    async with store:
        store.hook = stop_at_the_parts
        running = asyncio.ensure_future(tried(tmp_path, store))
        await reached.wait()
        assert there(tmp_path)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not there(tmp_path)


def refusal(message: str, code: str = "AccessDenied") -> Check:
    error = AccessDenied(message, op="put", code=code, hint="look")
    return check_of_refusal("bucket", "put", Status.FAIL, error, PUT, "nothing works")


def test_a_refusal_that_names_the_permission_is_believed() -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1234"
    check = refusal(
        "User: arn:aws:iam::111122223333:user/bot is not authorized to perform: "
        f"kms:GenerateDataKey on resource: {key} because no identity-based policy allows it"
    )
    assert check.grants == (DATA_KEY,)
    document = policy("calls", "", check.grants, region="eu-west-1", key=key)
    assert document["Statement"][0]["Resource"] == key


def test_an_explicit_deny_is_not_mended_by_allowing() -> None:
    check = refusal(
        "User: x is not authorized to perform: s3:PutObject on resource: "
        '"arn:aws:s3:::calls/a" with an explicit deny in a resource-based policy'
    )
    assert not check.grants
    assert "denies s3:PutObject explicitly" in check.fix


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_credentials_that_are_wrong_lack_no_permission(code: str) -> None:
    check = refusal("no", code)
    assert not check.grants
    assert check.fix == "look"


def test_what_is_no_refusal_keeps_its_hint() -> None:
    error = InvalidRequest("too long", op="put", code="X", hint="be shorter")
    check = check_of_refusal("bucket", "put", Status.WARN, error, PUT, "it is bad")
    assert (check.found, check.fix, check.grants) == ("too long: it is bad", "be shorter", ())


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("", "aws")],
)
def test_a_policy_is_of_the_regions_partition(region: str, partition: str) -> None:
    (statement,) = policy("calls", "a/b", [PUT, PUT], region=region)["Statement"]
    assert statement["Resource"] == f"arn:{partition}:s3:::calls/a/b/*"
    assert statement["Action"] == ["s3:PutObject"]
