"""Credentials that expire or are replaced while the store is in use."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fault_http import Request as ProxiedRequest
from fault_proxy import Fault, FaultProxy, refused
from proxied_calls import Calls, Server
from scripted_s3 import (
    ACCESS_KEY,
    BODY,
    SECRET_KEY,
    Answer,
    Request,
    ScriptedServer,
    open_store,
    refusal,
    stored,
)

from recorder import Session
from recorder.embedded import EmbeddedS3
from uploader import s3_credentials
from uploader.errors import AccessDenied, StoreError, TransientError
from uploader.s3 import S3Store
from uploader.s3_credentials import (
    LOOK_AGAIN_SECONDS,
    PROPAGATION_SECONDS,
    CredentialsUnavailable,
    RenewableCredentials,
)

FIRST, SECOND = "AKIAFIRST", "AKIASECOND"
EXPIRED = ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"]
REPLACED = ["InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"]


def signer(authorization: str) -> str:
    """Return the access key that a request is signed with."""
    return authorization.partition("Credential=")[2].partition("/")[0]


class KeyServer(ScriptedServer):
    """Refuses access keys with the codes it is told; takes all others."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: dict[str, str] = {}
        self.gates: dict[str, asyncio.Event] = {}

    def hold(self, name: str) -> asyncio.Event:
        """Let requests for an object wait for an event."""
        return self.gates.setdefault(name, asyncio.Event())

    async def came(self, number: int) -> None:
        """Wait until there have been so many requests."""
        while len(self.requests) < number:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.001)

    async def decide(self, request: Request) -> Answer:
        if gate := self.gates.get(request.path.rpartition("/")[2]):
            await gate.wait()
        code = self.codes.get(signer(request.headers["authorization"]))
        return stored(b"") if code is None else refusal(400, code)

    @property
    def signers(self) -> list[str]:
        return [signer(one.headers["authorization"]) for one in self.requests]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[KeyServer]:
    scripted = KeyServer()
    listener = await scripted.start()
    yield scripted
    listener.close()
    await listener.wait_closed()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared credentials file, with `FIRST`; there are no credentials anywhere else."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    write(path, FIRST)
    return path


def write(
    path: Path,
    key: str,
    secret: str = "of nobody",  # noqa: S107 - just so
    profile: str = "default",
) -> None:
    """Write keys to one profile, and somebody else's to another."""
    others = {"default": "AKIAOTHERS", "calls": "AKIAOTHERS"}
    path.write_text(
        "".join(
            f"[{name}]\naws_access_key_id = {one}\naws_secret_access_key = {secret}\n"
            for name, one in {**others, profile: key}.items()
        )
    )


def keyless(server: ScriptedServer, **options: Any) -> S3Store:
    return open_store(server, access_key=None, secret_key=None, **options)


async def put(store: S3Store, key: str = "object") -> StoreError | None:
    try:
        await store.put(key, BODY)
    except StoreError as error:
        return error
    return None


# -- a credentials file


@pytest.mark.parametrize("profile", [None, "calls"])
@pytest.mark.parametrize("code", EXPIRED + REPLACED)
async def test_a_rewritten_file_is_read_again_when_its_keys_are_refused(
    server: KeyServer, file: Path, code: str, profile: str | None
) -> None:
    write(file, FIRST, profile=profile or "default")
    async with keyless(server, profile=profile) as store:
        assert await put(store) is None
        server.codes[FIRST] = code
        write(file, SECOND, profile=profile or "default")
        error = await put(store)
        assert type(error) is TransientError
        assert (error.code, error.hint) == (code, "the credentials have been renewed")
        assert await put(store) is None
    assert server.signers == [FIRST, FIRST, SECOND]


async def test_a_refused_head_renews_them_too(server: KeyServer, file: Path) -> None:
    async with keyless(server) as store:
        server.codes[FIRST] = "ExpiredToken"
        write(file, SECOND)
        with pytest.raises(TransientError, match="ExpiredToken"):
            await store.head("object")
        assert (await store.head("object")).size == 0


@pytest.mark.parametrize("code", [*EXPIRED, *REPLACED])
async def test_a_file_that_is_the_same_is_a_refusal_until_it_is_mended(
    server: KeyServer, file: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(s3_credentials, "LOOK_AGAIN_SECONDS", 0.0)
    async with keyless(server) as store:
        server.codes[FIRST] = code
        error = await put(store)
        assert type(error) is AccessDenied
        if code in EXPIRED:
            assert "renew them" in error.hint
        write(file, SECOND)
        assert type(await put(store)) is TransientError
        assert await put(store) is None


async def test_a_file_that_is_gone_changes_nothing(server: KeyServer, file: Path) -> None:
    async with keyless(server) as store:
        file.unlink()
        assert await put(store) is None
        server.codes[FIRST] = "ExpiredToken"
        assert type(await put(store)) is AccessDenied


async def test_credentials_that_were_missing_are_found_when_they_are_there(
    server: KeyServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_credentials, "LOOK_AGAIN_SECONDS", 0.0)
    file.unlink()
    async with keyless(server) as store:
        error = await put(store)
        assert type(error) is AccessDenied
        assert "AWS_ACCESS_KEY_ID" in error.hint
        write(file, FIRST)
        assert await put(store) is None
    assert server.signers == [FIRST]


async def test_other_refusals_renew_nothing(server: KeyServer, file: Path) -> None:
    async with keyless(server) as store:
        server.codes[FIRST] = "AccessDenied"
        write(file, SECOND)
        assert type(await put(store)) is AccessDenied
        assert type(await put(store)) is AccessDenied
    assert server.signers == [FIRST, FIRST]


async def test_keys_that_are_given_cannot_change(server: KeyServer, file: Path) -> None:
    async with open_store(server) as store:
        server.codes[ACCESS_KEY] = "ExpiredToken"
        write(file, SECOND)
        for _ in range(2):
            error = await put(store)
            assert type(error) is AccessDenied
            assert "renew them" in error.hint
    assert server.signers == [ACCESS_KEY, ACCESS_KEY]
    assert SECRET_KEY not in str(error)


async def test_requests_under_way_with_old_keys_end_as_they_would_have(
    server: KeyServer, file: Path
) -> None:
    async with keyless(server) as store:
        refused, taken = server.hold("refused"), server.hold("taken")
        tasks = [asyncio.create_task(put(store, name)) for name in ("refused", "taken")]
        await server.came(2)
        server.codes[FIRST] = "ExpiredToken"
        write(file, SECOND)
        assert type(await put(store)) is TransientError
        write(file, "AKIATHIRD")  # another look would find these
        refused.set()
        assert type(await tasks[0]) is TransientError
        assert await put(store) is None
        server.codes.clear()
        taken.set()
        assert await tasks[1] is None
    assert server.signers == [FIRST, FIRST, FIRST, SECOND]


# -- credentials that renew themselves


PROGRAM = """
import json, pathlib, sys
told = json.loads(pathlib.Path(sys.argv[1]).read_text())
if "exit" in told:
    sys.exit(told["exit"])
print(told.get("print") or json.dumps({"Version": 1, "SecretAccessKey": "secret", **told}))
"""


@dataclass
class Program:
    """A `credential_process` that says what it is told to."""

    path: Path

    def says(self, key: str = FIRST, seconds: float = 86400, **other: Any) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        answer = {"AccessKeyId": key, "SessionToken": "token", "Expiration": until.isoformat()}
        self.path.write_text(json.dumps({**answer, **other}))


@pytest.fixture
def program(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    file.unlink()
    script, says, config = (tmp_path / name for name in ("program.py", "says.json", "config"))
    script.write_text(PROGRAM)
    config.write_text(f"[default]\ncredential_process = {sys.executable} {script} {says}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setattr(s3_credentials, "LOOK_AGAIN_SECONDS", 0.0)
    told = Program(says)
    told.says()
    return told


async def test_a_token_that_expires_before_its_time_is_renewed(
    server: KeyServer, program: Program
) -> None:
    async with keyless(server) as store:
        assert await put(store) is None
        server.codes[FIRST] = "ExpiredToken"
        assert type(await put(store)) is AccessDenied
        program.says(SECOND)
        assert type(await put(store)) is TransientError
        assert await put(store) is None
        assert server.requests[-1].headers["x-amz-security-token"] == "token"


async def test_a_token_that_expires_in_its_time_is_renewed_before(
    server: KeyServer, program: Program
) -> None:
    program.says(seconds=120)  # less than the client's margin
    async with keyless(server) as store:
        program.says(SECOND)
        assert await put(store) is None
    assert server.signers == [SECOND]


@pytest.mark.parametrize(
    "trouble", [{"exit": 3}, {"print": "no JSON"}, {"print": "{}"}, {"seconds": -9}]
)
async def test_a_source_that_is_out_of_order_is_asked_again(
    server: KeyServer, program: Program, trouble: dict[str, Any]
) -> None:
    program.says(**trouble)
    async with keyless(server) as store:
        assert type(await put(store)) is TransientError
        program.says()
        assert await put(store) is None
        server.codes[FIRST] = "ExpiredToken"
        program.says(**trouble)
        assert type(await put(store)) is TransientError
        program.says(SECOND)
        await put(store)  # an error again, but where what was found last can renew itself
        assert await put(store) is None
    assert server.signers[-1] == SECOND


# -- how often they are looked for


@dataclass
class Found:
    keys: object
    trouble: Exception | None = None

    async def get_frozen_credentials(self) -> Any:
        if self.trouble is not None:
            raise self.trouble
        return self.keys


@dataclass
class Place:
    """Where credentials are; counts the looks."""

    keys: object = FIRST
    now: float = 0.0
    looks: int = 0
    trouble: Exception | None = None
    gate: asyncio.Event | None = None
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    found: Found | None = None
    unusable: Exception | None = None

    async def look(self) -> Any:
        self.looks += 1
        if self.gate is not None:
            self.looked.set()
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.found = Found(self.keys, self.unusable)
        return self.found if self.keys else None

    def credentials(self) -> RenewableCredentials:
        return RenewableCredentials(self.look, monotonic=lambda: self.now)


async def refuse(credentials: RenewableCredentials, code: str = "ExpiredToken") -> bool:
    """Sign a request that is refused."""
    credentials.begin()
    await credentials.current()
    return await credentials.renewed(code)


async def test_requests_refused_at_once_share_one_look() -> None:
    place = Place()
    credentials = place.credentials()
    await credentials.current()
    place.keys, place.gate = SECOND, asyncio.Event()
    requests = [asyncio.create_task(refuse(credentials)) for _ in range(8)]
    await place.looked.wait()
    place.gate.set()
    assert await asyncio.gather(*requests) == [True] * 8
    assert place.looks == 2


async def test_the_outcome_of_a_look_counts_for_a_while() -> None:
    place = Place()
    credentials = place.credentials()
    assert not await refuse(credentials)
    place.keys = SECOND
    place.now = LOOK_AGAIN_SECONDS - 0.1
    assert not await refuse(credentials)
    assert place.looks == 2
    place.now = LOOK_AGAIN_SECONDS
    assert await refuse(credentials)
    assert await refuse(credentials), "the new ones may be newer than the server's knowledge"
    assert place.looks == 3
    place.now += LOOK_AGAIN_SECONDS
    assert not await refuse(credentials)
    assert place.looks == 4


async def test_a_late_refusal_of_old_keys_is_no_reason_to_look() -> None:
    place = Place()
    credentials = place.credentials()
    signed, refused_late = asyncio.Event(), asyncio.Event()

    async def late() -> bool:
        await credentials.current()
        signed.set()
        await refused_late.wait()
        return await credentials.renewed("ExpiredToken")

    task = asyncio.create_task(late())
    await signed.wait()
    place.keys = SECOND
    assert await refuse(credentials)
    place.now = 10 * LOOK_AGAIN_SECONDS
    refused_late.set()
    assert await task
    assert place.looks == 2


async def test_a_source_that_cannot_renew_itself_any_more_is_replaced() -> None:
    """As a role's is whose own credentials were rotated: the request is refused unsigned."""
    place = Place()
    credentials = place.credentials()
    await credentials.current()
    assert place.found is not None
    place.found.trouble, place.keys = ValueError("ExpiredToken"), SECOND
    credentials.begin()
    with pytest.raises(ValueError, match="ExpiredToken"):
        await credentials.current()
    assert await credentials.renewed("ExpiredToken")
    assert await credentials.current() == SECOND


async def test_what_was_found_and_cannot_be_used_yet_is_no_refusal() -> None:
    place = Place()
    credentials = place.credentials()
    assert not await refuse(credentials)
    place.now = LOOK_AGAIN_SECONDS
    credentials.begin()
    await credentials.current()
    place.unusable = CredentialsUnavailable("not yet")
    with pytest.raises(CredentialsUnavailable):
        await credentials.renewed("ExpiredToken")
    assert place.found is not None
    place.found.trouble = None
    assert await credentials.renewed("ExpiredToken")


async def test_an_error_of_a_look_counts_for_a_while() -> None:
    place = Place(trouble=CredentialsUnavailable("away"))
    credentials = place.credentials()
    for _ in range(3):
        with pytest.raises(CredentialsUnavailable):
            await credentials.current()
    assert place.looks == 1
    place.now, place.trouble = LOOK_AGAIN_SECONDS, None
    assert await credentials.current() == FIRST


async def test_new_keys_may_not_be_known_everywhere_at_once() -> None:
    place = Place()
    credentials = place.credentials()
    assert not await refuse(credentials, "InvalidAccessKeyId")
    place.keys, place.now = SECOND, LOOK_AGAIN_SECONDS
    assert await refuse(credentials, "InvalidAccessKeyId")
    place.now += PROPAGATION_SECONDS - 0.1
    assert await refuse(credentials, "InvalidAccessKeyId")
    assert place.looks == 3
    place.now += 0.1
    assert not await refuse(credentials, "InvalidAccessKeyId")


async def test_a_look_that_is_cancelled_says_nothing() -> None:
    place = Place()
    credentials = place.credentials()
    await credentials.current()
    place.keys, place.gate = SECOND, asyncio.Event()
    task = asyncio.create_task(refuse(credentials))
    await place.looked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    place.gate = None
    assert await refuse(credentials)


# -- real servers and whole recordings


async def test_keys_that_a_real_server_does_not_know_are_replaced(
    seaweed: EmbeddedS3, file: Path
) -> None:
    async with S3Store(seaweed.bucket, "credentials", endpoint_url=seaweed.endpoint_url) as store:
        write(file, seaweed.access_key, "half written")
        assert type(await put(store)) is TransientError  # of keys nobody knows
        assert type(await put(store)) is TransientError  # of the wrong secret
        write(file, seaweed.access_key, seaweed.secret_key)
        credentials = store._bucket.connection.credentials
        assert credentials is not None
        credentials._looked_at = credentials._renewed_at = -1e9
        assert type(await put(store)) is TransientError
        assert await put(store) is None


@pytest_asyncio.fixture
async def calls(moto_url: str, file: Path, tmp_path: Path) -> AsyncIterator[Calls]:
    """Recordings on moto, which takes any keys, with those of the file."""
    async with FaultProxy(moto_url) as proxy:
        server = Server(moto_url, access_key=None, secret_key=None)
        yield Calls(server, proxy, tmp_path / "spool")


def taking(*keys: str) -> Callable[[ProxiedRequest], Fault | None]:
    """Return what refuses all requests but those that are signed with certain keys."""

    def choose(request: ProxiedRequest) -> Fault | None:
        if signer(request.headers["authorization"]) in keys:
            return None
        return refused(400, "ExpiredToken")

    return choose


async def test_a_recording_outlives_its_credentials(
    calls: Calls, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_credentials, "LOOK_AGAIN_SECONDS", 0.0)  # two virtual seconds are none
    keys = [f"AKIA{number:04}" for number in range(8)]

    async def rotate(call: Session, second: int) -> None:
        write(file, keys[second // 2 - 1])
        calls.proxy.choose = taking(keys[second // 2 - 1])

    result = await calls.record(during=rotate, step=2, chunk_seconds=2)
    await calls.check(result)
    assert not calls.failures()
    signers = [signer(one.headers["authorization"]) for one in calls.proxy.begun]
    assert list(dict.fromkeys(signers)) == [FIRST, *keys]


async def test_a_recording_goes_on_when_somebody_renews_the_credentials(
    calls: Calls, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_credentials, "LOOK_AGAIN_SECONDS", 0.0)

    async def expire(call: Session, second: int) -> None:
        if second == 4:
            calls.proxy.choose = taking(SECOND)
        if second == 10:
            write(file, SECOND)

    result = await calls.record(during=expire, step=2, chunk_seconds=2)
    await calls.check(result)
    failed = calls.failures()
    assert failed
    assert all(isinstance(error, AccessDenied) for error in failed)
    assert all("renew them" in error.hint for error in failed)
