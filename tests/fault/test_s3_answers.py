"""What the S3 store makes of a server's answers, good and bad; each asked for exactly once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import pytest_asyncio

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
from uploader.store import ObjectAttributes, Part

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI-K7MDENG"  # noqa: S105 - of nobody
BODY = b"audio that nobody else may hear"
ETAG = "5d41402abc4b2a76b9719d911017c592"
PART = Part(1, 10, ETAG)


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What the server does: answer, or not."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    reset: bool = False
    cut_at: int | None = None


class ScriptedServer:
    """Answers each request with the next of its answers; notes the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.url = ""
        self.hanging = asyncio.Event()

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer_one(reader, writer):
                    pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(method, path, headers, body))
        answer = self.answers.pop(0)
        if answer.hang:
            self.hanging.set()
            await reader.read()  # until the client has gone
            return False
        if answer.reset:
            writer.transport.abort()
            return False
        sent = b"" if method == "HEAD" else answer.body
        fields = {"content-length": str(len(answer.body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} Whatever", *(f"{k}: {v}" for k, v in fields.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + sent[: answer.cut_at])
        await writer.drain()
        return answer.cut_at is None

    async def scripted(
        self, operation: Callable[[], Awaitable[Any]], *answers: Answer
    ) -> StoreError | None:
        """Return what the operation raises if this is what it is answered.

        All answers must have been asked for, and no more than these.
        """
        self.answers = list(answers)
        before = len(self.requests)
        error: StoreError | None = None
        try:
            await operation()
        except StoreError as raised:
            error = raised
        assert len(self.requests) - before == len(answers)
        return error


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


def open_store(server: ScriptedServer, **options: Any) -> S3Store:
    return S3Store(
        "calls",
        "prefix",
        **{
            "region": "eu-central-1",
            "endpoint_url": server.url,
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            **options,
        },
    )


def refusal(status: int, code: str, extra: str = "", **headers: str) -> Answer:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>In other words</Message>{extra}"
        "<RequestId>ABC</RequestId></Error>"
    ).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"content-type": "application/xml", **fields})


def stored(body: bytes = BODY, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, body, {"ETag": f'"{ETAG}"', **fields})


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
    (409, "ConditionalRequestConflict", Conflict),
    (409, "OperationAborted", Conflict),
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
    for second in (there, refusal(503, "SlowDown")):
        error = await server.scripted(complete, broken, second)
        assert type(error) is TransientError
        assert error.code == code


PARTS = b"<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"


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


# -- what is sent


async def test_what_a_put_sends(server: ScriptedServer) -> None:
    attributes = ObjectAttributes(
        content_type="audio/wav",
        content_disposition='inline; filename="a.wav"',
        metadata={"recorder-recording-id": "call-1"},
        tags={"team": "a b", "c/d": "e&f=g+h"},
        storage_class="STANDARD_IA",
    )
    async with open_store(server, kms_key_id="alias/calls") as store:
        await server.scripted(lambda: store.put("a b.wav", BODY, attributes), stored(b""))
    [request] = server.requests
    assert (request.method, request.path) == ("PUT", "/calls/prefix/a%20b.wav")
    assert request.body == BODY
    sent = request.headers
    assert sent["content-type"] == "audio/wav"
    assert sent["content-disposition"] == 'inline; filename="a.wav"'
    assert sent["x-amz-meta-recorder-recording-id"] == "call-1"
    assert sent["x-amz-tagging"] == "team=a+b&c%2Fd=e%26f%3Dg%2Bh"
    assert sent["x-amz-storage-class"] == "STANDARD_IA"
    assert sent["x-amz-server-side-encryption"] == "aws:kms"
    assert sent["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/calls"
    assert sent["x-amz-checksum-crc64nvme"] == encode(crc64nvme(BODY))
    assert "bot-recorder" in sent["user-agent"]
    assert "eu-central-1" in sent["authorization"]
    # A body that is hashed once more, or sent in chunks of its own encoding, costs CPU time.
    assert sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    for absent in ("content-encoding", "content-md5", "x-amz-trailer", "if-match", "if-none-match"):
        assert absent not in sent


async def test_what_the_creation_of_an_upload_sends(server: ScriptedServer) -> None:
    created = Answer(
        200,
        b"<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>",
    )
    attributes = ObjectAttributes(
        content_type="audio/wav", tags={"a": "b"}, storage_class="GLACIER_IR"
    )
    async with open_store(server, kms_key_id="alias/calls") as store:
        server.answers = [created]
        assert await store.create_multipart("object", attributes) == "id"
    [request] = server.requests
    sent = request.headers
    assert (request.method, request.path) == ("POST", "/calls/prefix/object?uploads")
    assert sent["x-amz-checksum-algorithm"] == "CRC64NVME"
    assert sent["x-amz-checksum-type"] == "FULL_OBJECT"
    assert sent["x-amz-storage-class"] == "GLACIER_IR"
    assert sent["x-amz-tagging"] == "a=b"
    assert sent["content-type"] == "audio/wav"
    assert sent["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/calls"


async def test_what_a_part_and_a_complete_send(server: ScriptedServer, store: S3Store) -> None:
    done = Answer(
        200,
        b"<CompleteMultipartUploadResult><ETag>&quot;abc-1&quot;</ETag>"
        b"</CompleteMultipartUploadResult>",
    )
    server.answers = [stored(b""), done]
    part = await store.upload_part("object", "id", 7, BODY)
    assert part == Part(7, len(BODY), ETAG, crc64nvme(BODY))
    info = await store.complete_multipart(
        "object", "id", [part], checksum=crc64nvme(BODY), if_absent=True
    )
    assert (info.etag, info.size, info.checksum) == ("abc-1", len(BODY), None)
    sent, completed = server.requests
    assert sent.path == "/calls/prefix/object?uploadId=id&partNumber=7"
    assert sent.headers["x-amz-checksum-crc64nvme"] == encode(crc64nvme(BODY))
    assert sent.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert completed.headers["if-none-match"] == "*"
    assert completed.headers["x-amz-checksum-crc64nvme"] == encode(crc64nvme(BODY))
    assert completed.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert "<PartNumber>7</PartNumber>" in completed.body.decode()
    assert ETAG in completed.body.decode()


async def test_conditions_are_sent(server: ScriptedServer, store: S3Store) -> None:
    await server.scripted(lambda: store.put("object", BODY, if_absent=True), stored(b""))
    await server.scripted(lambda: store.put("object", BODY, if_match=ETAG), stored(b""))
    absent, match = (request.headers for request in server.requests)
    assert absent["if-none-match"] == "*"
    assert match["if-match"] == f'"{ETAG}"'


async def test_without_checksums_none_are_sent(server: ScriptedServer) -> None:
    created = Answer(
        200,
        b"<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>",
    )
    done = Answer(
        200,
        b"<CompleteMultipartUploadResult><ETag>abc</ETag></CompleteMultipartUploadResult>",
    )
    async with open_store(server, checksums=False) as store:
        server.answers = [stored(b""), created, stored(b""), done, stored(), stored()]
        assert (await store.put("object", BODY, checksum=1)).checksum is None
        await store.create_multipart("object")
        part = await store.upload_part("object", "id", 1, BODY, checksum=1)
        await store.complete_multipart("object", "id", [part], checksum=1)
        await store.head("object")
        await store.get("object")
    assert len(server.requests) == 6
    for request in server.requests:
        assert not any("checksum" in name for name in request.headers)


# -- the client itself


@pytest.mark.parametrize(
    ("endpoint_url", "expected"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/calls/object"),
        ("http://[::1]:9000", "http://[::1]:9000/calls/object"),
        ("http://localhost:9000", "http://localhost:9000/calls/object"),
        ("https://minio.example.com", "https://minio.example.com/calls/object"),
        (None, "https://calls.s3.eu-central-1.amazonaws.com/object"),
    ],
)
async def test_where_the_bucket_is_put(endpoint_url: str | None, expected: str) -> None:
    urls = []

    def note(request: Any, **_: object) -> None:
        urls.append(request.url)
        raise ConnectionError("not sent")

    store = S3Store(
        "calls",
        region="eu-central-1",
        endpoint_url=endpoint_url,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )
    async with store:
        store._client.meta.events.register("before-send.s3", note)
        with pytest.raises(TransientError):
            await store.put("object", BODY)
    assert urls == [expected]


async def test_without_credentials(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with open_store(server, access_key=None, secret_key=None) as store:
        error = await server.scripted(lambda: store.put("object", BODY))
    assert type(error) is AccessDenied
    assert "AWS_ACCESS_KEY_ID" in error.hint


async def test_a_profile_that_is_not_there(server: ScriptedServer) -> None:
    with pytest.raises(AccessDenied, match="no-such-profile"):
        async with open_store(server, profile="no-such-profile"):
            pass


async def test_an_endpoint_that_is_no_url() -> None:
    with pytest.raises(InvalidRequest):
        async with S3Store("calls", endpoint_url="not a url"):
            pass


async def test_a_bucket_name_that_is_none(server: ScriptedServer) -> None:
    async with open_store(server) as store:
        store.bucket = "no bucket?"
        error = await server.scripted(lambda: store.put("object", BODY))
    assert type(error) is InvalidRequest


async def test_a_host_that_is_not_known() -> None:
    async with S3Store("calls", endpoint_url="http://nowhere.invalid:1", region="x") as store:
        with pytest.raises(TransientError, match=r"nowhere\.invalid"):
            await store.put("object", BODY)


async def test_a_store_that_is_not_open(server: ScriptedServer) -> None:
    store = open_store(server)
    with pytest.raises(RuntimeError, match="not open"):
        await store.put("object", BODY)


async def test_a_server_that_redirects_in_a_circle(server: ScriptedServer, store: S3Store) -> None:
    circle = Answer(307, b"", {"location": server.url + "/calls/prefix/object"})
    server.answers = [circle] * 30
    with pytest.raises(TransientError):
        await store.put("object", BODY)
    assert len(server.requests) <= 11


async def test_connections_are_limited(server: ScriptedServer) -> None:
    async with open_store(server, max_connections=2) as store:
        server.answers = [stored(b"") for _ in range(6)]
        await asyncio.gather(*(store.put(f"object-{n}", BODY) for n in range(6)))
    assert len(server.requests) == 6
