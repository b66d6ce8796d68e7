"""What the S3 store sends, and where; and how its client is set up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from scripted_s3 import (
    ACCESS_KEY,
    BODY,
    ETAG,
    SECRET_KEY,
    Answer,
    ScriptedServer,
    open_store,
    stored,
)

from uploader.checksum import crc64nvme, encode
from uploader.errors import (
    AccessDenied,
    InvalidRequest,
    TransientError,
)
from uploader.s3 import S3Store
from uploader.store import ObjectAttributes, Part


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
        store._bucket.client.meta.events.register("before-send.s3", note)
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
        store._bucket.name = "no bucket?"
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


async def test_an_endpoint_is_found_once_for_all_keys(server: ScriptedServer) -> None:
    """What it costs to find it is a third of a request: see `s3_client`."""
    async with open_store(server) as store:
        found: Any = store._bucket.client
        resolver = found._ruleset_resolver
        provider = resolver._provider
        looked: list[Any] = []
        asked: list[Any] = []
        evaluate, gather = provider.ruleset.evaluate, resolver._get_provider_params

        async def gathered(*args: Any) -> Any:
            asked.append(args)
            return await gather(*args)

        resolver._get_provider_params = gathered

        def counted(parameters: Any) -> Any:
            looked.append(parameters)
            return evaluate(parameters)

        provider.ruleset.evaluate = counted
        for number in range(5):
            key = f"object-{number}"
            await server.scripted(lambda key=key: store.put(key, BODY), stored(b""))
    assert len(looked) == len(asked) == 1
    assert [one.path for one in server.requests] == [
        f"/calls/prefix/object-{number}" for number in range(5)
    ]


@pytest.mark.parametrize(("size", "asked"), [(65_536, False), (65_537, True)])
async def test_small_bodies_are_sent_unasked(
    server: ScriptedServer, store: S3Store, size: int, asked: bool
) -> None:
    await server.scripted(lambda: store.put("object", bytes(size)), stored(b""))
    await server.scripted(lambda: store.upload_part("object", "id", 1, bytes(size)), stored(b""))
    assert [one.headers.get("expect") == "100-continue" for one in server.requests] == [asked] * 2
    assert [len(one.body) for one in server.requests] == [size] * 2
