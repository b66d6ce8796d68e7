"""What the S3 store makes of a server's answers, good and bad; each asked for exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import pytest_asyncio
from scripted_s3 import (
    ACCESS_KEY,
    BODY,
    ETAG,
    PART,
    PARTS,
    SECRET_KEY,
    Answer,
    ScriptedServer,
    open_store,
    refusal,
    stored,
)

from uploader.checksum import crc64nvme, encode
from uploader.errors import (
    AccessDenied,
    ChecksumError,
    Conflict,
    InvalidPart,
    InvalidRequest,
    NoSuchBucket,
    NoSuchObject,
    NoSuchUpload,
    PreconditionFailed,
    StoreError,
    TransientError,
    Unsupported,
    WrongRegion,
)
from uploader.s3 import S3Store


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


CODES = [
    (403, "AccessDenied", AccessDenied),
    (403, "InvalidAccessKeyId", AccessDenied),
    (403, "SignatureDoesNotMatch", AccessDenied),
    (400, "ExpiredToken", AccessDenied),
    (400, "InvalidToken", AccessDenied),
    (403, "RequestTimeTooSkewed", AccessDenied),
    (400, "AuthorizationHeaderMalformed", AccessDenied),
    (403, "SomethingNew", AccessDenied),
    (404, "NoSuchBucket", NoSuchBucket),
    (301, "PermanentRedirect", WrongRegion),
    (400, "IllegalLocationConstraintException", WrongRegion),
    (412, "PreconditionFailed", PreconditionFailed),
    (409, "ConditionalRequestConflict", TransientError),
    (409, "OperationAborted", TransientError),
    (409, "SomethingNew", Conflict),
    (400, "BadDigest", ChecksumError),
    (400, "XAmzContentChecksumMismatch", ChecksumError),
    (400, "InvalidDigest", ChecksumError),
    (503, "SlowDown", TransientError),
    (503, "ServiceUnavailable", TransientError),
    (500, "InternalError", TransientError),
    (400, "RequestTimeout", TransientError),
    (400, "IncompleteBody", TransientError),
    (400, "ThrottlingException", TransientError),
    (429, "TooManyRequests", TransientError),
    (429, "SomethingNew", TransientError),
    (502, "SomethingNew", TransientError),
    (307, "TemporaryRedirect", TransientError),
    (501, "NotImplemented", Unsupported),
    (501, "SomethingNew", Unsupported),
    (400, "KeyTooLongError", InvalidRequest),
    (400, "KMS.DisabledException", InvalidRequest),
    (400, "SomethingNew", InvalidRequest),
    (405, "MethodNotAllowed", InvalidRequest),
]


@pytest.mark.parametrize(("status", "code", "expected"), CODES)
async def test_a_refusal_of_a_put(
    server: ScriptedServer, store: S3Store, status: int, code: str, expected: type[StoreError]
) -> None:
    answer = refusal(status, code, x_amz_request_id="ABC")
    error = await server.scripted(lambda: store.put("object", BODY), answer)
    assert type(error) is expected
    assert (error.op, error.key, error.code) == ("put", "object", code)
    assert error.retryable == (expected in (TransientError, ChecksumError))
    assert "In other words" in str(error) or expected is WrongRegion
    assert "ABC" in str(error)
    for secret in (SECRET_KEY, ACCESS_KEY, BODY.decode()):
        assert secret not in str(error)


@pytest.mark.parametrize("code", ["NoSuchUpload", "NoSuchKey", "404"])
@pytest.mark.parametrize("op", ["upload_part", "list_parts", "complete_multipart"])
async def test_an_upload_that_is_gone(
    server: ScriptedServer, store: S3Store, op: str, code: str
) -> None:
    operations: dict[str, Callable[[], Awaitable[Any]]] = {
        "upload_part": lambda: store.upload_part("object", "id", 1, BODY),
        "list_parts": lambda: store.list_parts("object", "id"),
        "complete_multipart": lambda: store.complete_multipart("object", "id", [PART]),
    }
    assert type(await server.scripted(operations[op], refusal(404, code))) is NoSuchUpload


@pytest.mark.parametrize("code", ["InternalError", "UnknownError"])
async def test_an_internal_error_is_looked_into(
    server: ScriptedServer, store: S3Store, code: str
) -> None:
    """Ceph says so of an upload that is gone."""

    async def complete() -> None:
        await store.complete_multipart("object", "id", [PART])

    broken, gone, there = refusal(500, code), refusal(404, "NoSuchUpload"), Answer(200, PARTS)
    assert type(await server.scripted(complete, broken, gone)) is NoSuchUpload
    for second in (there, refusal(503, "SlowDown"), refusal(403, "AccessDenied")):
        error = await server.scripted(complete, broken, second)
        assert type(error) is TransientError
        assert error.code == code


@pytest.mark.parametrize("code", ["InvalidPart", "InvalidPartOrder"])
async def test_parts_that_the_server_does_not_have(
    server: ScriptedServer, store: S3Store, code: str
) -> None:
    error = await server.scripted(
        lambda: store.complete_multipart("object", "id", [PART]), refusal(400, code)
    )
    assert type(error) is InvalidPart


async def test_if_match_where_no_object_is(server: ScriptedServer, store: S3Store) -> None:
    """Amazon S3 answers it by 404."""
    error = await server.scripted(
        lambda: store.put("object", BODY, if_match=ETAG), refusal(404, "NoSuchKey")
    )
    assert type(error) is PreconditionFailed


async def test_what_is_gone_already_is_deleted(server: ScriptedServer, store: S3Store) -> None:
    assert await server.scripted(lambda: store.delete("object"), refusal(404, "NoSuchKey")) is None
    for code in ("NoSuchUpload", "NoSuchKey"):
        assert (
            await server.scripted(lambda: store.abort_multipart("object", "id"), refusal(404, code))
            is None
        )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InternalError", TransientError),
        ("SlowDown", TransientError),
        ("PreconditionFailed", PreconditionFailed),
        ("NoSuchUpload", NoSuchUpload),
        ("ConditionalRequestConflict", Conflict),
        ("SomethingNew", TransientError),
    ],
)
async def test_an_error_inside_a_200(
    server: ScriptedServer, store: S3Store, code: str, expected: type[StoreError]
) -> None:
    answers = [refusal(200, code)]
    if code == "InternalError":
        answers.append(Answer(200, PARTS))
    error = await server.scripted(
        lambda: store.complete_multipart("object", "id", [PART]), *answers
    )
    assert type(error) is expected
    assert error.code == code


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html><body>Please log in</body></html>", {"content-type": "text/html"}),
        Answer(200, b"<CompleteMultipartUploadResult><ETag>abc", cut_at=20),
        Answer(502, b"<html>Bad Gateway</html>"),
        Answer(503, b""),
        Answer(reset=True),
    ],
)
async def test_an_answer_that_is_none(
    server: ScriptedServer, store: S3Store, answer: Answer
) -> None:
    error = await server.scripted(lambda: store.complete_multipart("object", "id", [PART]), answer)
    assert type(error) is TransientError


@pytest.mark.parametrize("body", [b"   \n", b"{not even xml", b""])
async def test_an_answer_without_a_code(
    server: ScriptedServer, store: S3Store, body: bytes
) -> None:
    async def complete() -> None:
        await store.complete_multipart("object", "id", [PART])

    answers = [Answer(200, body), Answer(200, PARTS)][: 2 if body else 1]
    error = await server.scripted(complete, *answers)
    assert type(error) is TransientError
    error = await server.scripted(complete, Answer(500, body), refusal(404, "NoSuchUpload"))
    assert type(error) is NoSuchUpload


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>Please log in</html>"),
        Answer(200, b""),
        Answer(200, b"x", cut_at=0),
        Answer(500, b""),
    ],
)
async def test_an_answer_to_a_put_that_is_none(
    server: ScriptedServer, store: S3Store, answer: Answer
) -> None:
    error = await server.scripted(lambda: store.put("object", BODY), answer)
    assert type(error) is TransientError


async def test_an_answer_to_a_head_or_a_get_that_is_none(
    server: ScriptedServer, store: S3Store
) -> None:
    page = Answer(200, b"<html>Please log in</html>", {"content-type": "text/html"})
    for look in (lambda: store.head("object"), lambda: store.read("object")):
        error = await server.scripted(look, page)
        assert type(error) is TransientError
        assert error.code == "NoETag"


async def test_a_connection_that_breaks(server: ScriptedServer, store: S3Store) -> None:
    """The HTTP library repeats a put by itself, once: this is why all requests may be repeated."""
    error = await server.scripted(
        lambda: store.put("object", BODY), Answer(reset=True), Answer(reset=True)
    )
    assert type(error) is TransientError


async def test_a_server_that_never_answers(server: ScriptedServer) -> None:
    async with open_store(server, read_timeout=0.05) as store:
        error = await server.scripted(lambda: store.put("object", BODY), Answer(hang=True))
        assert type(error) is TransientError
        assert error.code == "ReadTimeoutError"
        error = await server.scripted(lambda: store.get("object"), Answer(hang=True))
        assert type(error) is TransientError


async def test_a_request_that_is_cancelled(server: ScriptedServer, store: S3Store) -> None:
    server.answers = [Answer(hang=True), stored(b"")]
    before = asyncio.all_tasks()
    task = asyncio.create_task(store.put("object", BODY))
    await server.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() <= before | {one for one in asyncio.all_tasks() if _serves(one)}
    assert (await store.put("object", BODY)).etag == ETAG


def _serves(task: asyncio.Task[Any]) -> bool:
    return "_serve" in repr(task.get_coro())


@pytest.mark.parametrize("answer", [stored(cut_at="x")])
async def test_a_body_that_is_whole(server: ScriptedServer, store: S3Store, answer: Answer) -> None:
    server.answers = [answer]
    assert await store.get("object") == BODY


async def test_a_body_that_is_cut_off(server: ScriptedServer, store: S3Store) -> None:
    answer = stored()
    answer.cut_at = 10
    for read in (lambda: store.get("object"), lambda: store.read("object")):
        error = await server.scripted(read, answer)
        assert type(error) is TransientError


async def test_a_body_that_was_changed(server: ScriptedServer, store: S3Store) -> None:
    checksum = encode(crc64nvme(b"other bytes"))
    for read in (lambda: store.get("object"), lambda: store.read("object")):
        error = await server.scripted(read, stored(x_amz_checksum_crc64nvme=checksum))
        assert type(error) is ChecksumError


async def test_a_checksum_of_parts_is_none_of_the_whole(
    server: ScriptedServer, store: S3Store
) -> None:
    server.answers = [stored(x_amz_checksum_crc64nvme="rosUhgp5mIg=-2")]
    data, info = await store.read("object")
    assert (data, info.checksum) == (BODY, None)


async def test_a_server_that_keeps_another_checksum(server: ScriptedServer, store: S3Store) -> None:
    answer = stored(b"", x_amz_checksum_crc64nvme=encode(crc64nvme(b"other bytes")))
    assert type(await server.scripted(lambda: store.put("object", BODY), answer)) is ChecksumError
    operation = lambda: store.upload_part("object", "id", 1, BODY)  # noqa: E731 - used once
    assert type(await server.scripted(operation, answer)) is ChecksumError


# -- regions


@pytest.mark.parametrize(
    "answer",
    [
        refusal(301, "PermanentRedirect", x_amz_bucket_region="us-west-2"),
        refusal(400, "AuthorizationHeaderMalformed", "<Region>us-west-2</Region>"),
        refusal(400, "IllegalLocationConstraintException", x_amz_bucket_region="us-west-2"),
    ],
)
async def test_a_bucket_in_another_region_is_not_followed(
    server: ScriptedServer, store: S3Store, answer: Answer
) -> None:
    error = await server.scripted(lambda: store.put("object", BODY), answer)
    assert type(error) is WrongRegion
    assert "'calls' is in us-west-2, not in eu-central-1" in str(error)
    assert "us-west-2" in error.hint


@pytest.mark.parametrize("status", [301, 400])
async def test_a_head_that_is_answered_from_another_region(
    server: ScriptedServer, store: S3Store, status: int
) -> None:
    answer = Answer(status, b"", {"x-amz-bucket-region": "us-west-2"})
    error = await server.scripted(lambda: store.head("object"), answer)
    assert type(error) is WrongRegion
    assert "us-west-2" in str(error)


async def test_a_bucket_elsewhere_nobody_knows_where(
    server: ScriptedServer, store: S3Store
) -> None:
    error = await server.scripted(
        lambda: store.put("object", BODY), refusal(301, "PermanentRedirect")
    )
    assert type(error) is WrongRegion
    assert "in another region" in str(error)


# -- HEAD, which is answered without a body


@pytest.mark.parametrize(
    ("status", "second", "expected"),
    [
        (404, refusal(404, "NoSuchKey"), NoSuchObject),
        (404, refusal(404, "NoSuchBucket"), NoSuchBucket),
        (404, stored(), NoSuchObject),
        (404, refusal(503, "SlowDown"), TransientError),
        (403, refusal(403, "InvalidAccessKeyId"), AccessDenied),
        (400, refusal(400, "ExpiredToken"), AccessDenied),
        (400, refusal(400, "SomethingNew"), InvalidRequest),
        (400, stored(), InvalidRequest),
    ],
)
async def test_a_refused_head_is_looked_into(
    server: ScriptedServer,
    store: S3Store,
    status: int,
    second: Answer,
    expected: type[StoreError],
) -> None:
    error = await server.scripted(lambda: store.head("object"), Answer(status), second)
    assert type(error) is expected
    assert error.op == "head"


async def test_a_known_bucket_is_not_asked_for_again(
    server: ScriptedServer, store: S3Store
) -> None:
    assert await server.scripted(lambda: store.head("object"), stored()) is None
    error = await server.scripted(lambda: store.head("object"), Answer(404))
    assert type(error) is NoSuchObject


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_head_to_a_busy_server(server: ScriptedServer, store: S3Store, status: int) -> None:
    error = await server.scripted(lambda: store.head("object"), Answer(status))
    assert type(error) is TransientError


# -- Retry-After


async def test_retry_after_is_told(server: ScriptedServer, store: S3Store) -> None:
    async def asked(value: str, status: int = 503) -> float | None:
        answer = refusal(status, "SlowDown", retry_after=value)
        error = await server.scripted(lambda: store.put("object", BODY), answer)
        assert error is not None
        return error.retry_after

    assert await asked("7") == 7.0
    assert await asked("0") == 0.0
    for nonsense in ("soon", "-3", "7.5", "Wed, 99 Nov"):
        assert await asked(nonsense) is None
    later = datetime.now(UTC) + timedelta(seconds=3600)
    seconds = await asked(format_datetime(later, usegmt=True))
    assert seconds is not None
    assert 3000 < seconds <= 3600
    assert await asked(format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)) == 0.0
