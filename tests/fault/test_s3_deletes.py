"""Deleting many objects on S3: refusals of some, refusals of batches, and what is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from scripted_s3 import Answer, ScriptedServer, open_store, refusal

from uploader.errors import AccessDenied, NoSuchBucket, StoreError, TransientError
from uploader.s3 import S3Store

KEYS = ["chunks/1", "chunks/2", "chunks/3"]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    listener = await scripted.start()
    yield scripted
    listener.close()
    await listener.wait_closed()


@pytest_asyncio.fixture
async def store(server: ScriptedServer) -> AsyncIterator[S3Store]:
    async with open_store(server) as opened:
        yield opened


def answer(**codes: str) -> Answer:
    """What DeleteObjects answers: nothing of keys that are deleted, when asked to be quiet."""
    errors = "".join(
        f"<Error><Key>prefix/chunks/{name[1:]}</Key><Code>{code}</Code>"
        "<Message>In other words</Message></Error>"
        for name, code in codes.items()
    )
    return Answer(200, f"<DeleteResult>{errors}</DeleteResult>".encode())


async def deleted(
    server: ScriptedServer, store: S3Store, *answers: Answer
) -> dict[str, StoreError]:
    """Return what is refused; all answers must have been asked for."""
    found: dict[str, StoreError] = {}

    async def delete() -> None:
        found.update(await store.delete_many(KEYS))

    error = await server.scripted(delete, *answers)
    if error is not None:
        raise error
    return found


async def test_one_request_names_all(server: ScriptedServer, store: S3Store) -> None:
    assert await deleted(server, store, answer()) == {}
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/calls?delete")
    assert all(f"<Key>prefix/{key}</Key>".encode() in request.body for key in KEYS)
    # Amazon S3 demands one of the body's checksums.
    assert any(name.startswith("x-amz-checksum-") for name in request.headers)


async def test_what_is_refused_is_told_by_key(server: ScriptedServer, store: S3Store) -> None:
    refused = await deleted(server, store, answer(c1="AccessDenied", c2="NoSuchKey"))
    assert {key: type(error) for key, error in refused.items()} == {"chunks/1": AccessDenied}
    assert "In other words" in str(refused["chunks/1"])


async def test_what_may_pass_is_to_be_tried_again(server: ScriptedServer, store: S3Store) -> None:
    with pytest.raises(TransientError):
        await deleted(server, store, answer(c1="AccessDenied", c2="InternalError"))


@pytest.mark.parametrize(
    "refused",
    [
        refusal(501, "NotImplemented"),
        refusal(405, "MethodNotAllowed"),
        refusal(400, "MissingContentMD5"),
        refusal(400, "InvalidDigest"),
    ],
)
async def test_a_server_without_batches_is_asked_once(
    server: ScriptedServer, store: S3Store, refused: Answer
) -> None:
    gone = Answer(204)
    assert await deleted(server, store, refused, gone, gone, gone) == {}
    assert await deleted(server, store, gone, gone, gone) == {}
    assert [one.method for one in server.requests] == ["POST", *["DELETE"] * 6]


async def test_a_batch_that_is_forbidden_is_tried_one_by_one(
    server: ScriptedServer, store: S3Store
) -> None:
    denied = refusal(403, "AccessDenied")
    refused = await deleted(server, store, denied, denied, denied, denied)
    assert set(refused) == set(KEYS)
    assert all(type(error) is AccessDenied for error in refused.values())


@pytest.mark.parametrize(
    ("answered", "expected"),
    [(refusal(503, "SlowDown"), TransientError), (refusal(404, "NoSuchBucket"), NoSuchBucket)],
)
async def test_what_is_about_the_request_is_raised(
    server: ScriptedServer, store: S3Store, answered: Answer, expected: type[StoreError]
) -> None:
    with pytest.raises(expected):
        await deleted(server, store, answered)
