"""Amazon S3 and its kin as a store.

One client for each store, shared by all that use it. The checksum of a body is sent as a header:
it is known before, so that the body is neither hashed again nor sent in chunked encoding.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlencode

from uploader import checksum as crc
from uploader import limits, s3_deletes
from uploader.errors import (
    AccessDenied,
    ChecksumError,
    Conflict,
    InvalidRequest,
    NoSuchBucket,
    NoSuchObject,
    NoSuchUpload,
    StoreError,
    TransientError,
    Unsupported,
)
from uploader.s3_answers import confirmed, info_of, newest_parts, unquoted, written_etag
from uploader.s3_body import body_file
from uploader.s3_client import (
    DEFAULT_REGION,
    Connection,
    connect,
    presigned,
    requesting,
    translated,
)
from uploader.s3_links import web_url
from uploader.store import (
    MAX_PRESIGN_SECONDS,
    Body,
    Listing,
    ObjectAttributes,
    ObjectInfo,
    Part,
    Store,
    UploadInfo,
    refused,
)

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import (
        CompleteMultipartUploadRequestTypeDef,
        CreateMultipartUploadRequestTypeDef,
        GetObjectRequestTypeDef,
        PutObjectRequestTypeDef,
        UploadPartRequestTypeDef,
    )


class S3Store(Store):
    """A store in an S3 bucket, or in that of a compatible server.

    Args:
        bucket: The bucket.
        prefix: What all keys begin with, with or without a `/` at its end.
        region: The bucket's region; from the AWS configuration if None.
        endpoint_url: A server other than AWS.
        profile: A profile of the AWS configuration.
        kms_key_id: Encrypt new objects with this KMS key; the bucket's default if None.
        checksums: Send CRC-64/NVME checksums. False is for servers that refuse them: then
            nothing but TCP and TLS protects the bytes on their way, and no info has a checksum.
        max_connections: Most connections at a time; further requests wait for one.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the server's next bytes.
        access_key: Access key id, instead of the AWS configuration's.
        secret_key: Secret key to `access_key`.
        session_token: Session token to them, if they are temporary.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        profile: str | None = None,
        kms_key_id: str | None = None,
        checksums: bool = True,
        max_connections: int = 64,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.endpoint_url = endpoint_url
        self._region = region
        self._kms_key_id = kms_key_id
        self._checksums = checksums
        self._client_options: dict[str, Any] = {
            "profile": profile,
            "access_key": access_key,
            "secret_key": secret_key,
            "session_token": session_token,
            "region": region,
            "endpoint_url": endpoint_url,
            "max_connections": max_connections,
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
        }
        self._connection: Connection | None = None
        self._stack = contextlib.AsyncExitStack()
        self._bucket_seen = False
        self._takes_batches = True

    def url(self, key: str) -> str:
        """Return the object's `s3://` URL."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def web_url(self, key: str) -> str:
        """See `Store.web_url`. The bucket is in the host name where requests have it there."""
        return web_url(self._client.meta.endpoint_url, self.bucket, self.prefix + key)

    async def presigned_url(self, key: str, seconds: int) -> str:
        """See `Store.presigned_url`."""
        limits.check_key("presigned_url", key, prefix=self.prefix)
        if not 1 <= seconds <= MAX_PRESIGN_SECONDS:
            problem = f"{seconds} s is not from 1 to {MAX_PRESIGN_SECONDS} s (7 days)"
            raise limits.refuse("presigned_url", key, problem, code="InvalidArgument")
        async with self._request("presigned_url", key):
            endpoint = self._client.meta.endpoint_url
            address = web_url(endpoint, self.bucket, self.prefix + key, strict=True)
            return await presigned(self._open, address, self.region, seconds)

    async def __aenter__(self) -> Self:
        """Make the client.

        Raises:
            AccessDenied: The profile does not exist.
            InvalidRequest: The client's configuration is not valid, e.g. the endpoint's URL.
        """
        with translated("open", "", **self._place()):
            opening = connect(**self._client_options)
            self._connection = await self._stack.enter_async_context(opening)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client and its connections."""
        self._connection = None
        await self._stack.aclose()

    async def put(
        self,
        key: str,
        body: Body,
        attributes: ObjectAttributes | None = None,
        *,
        checksum: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """See `Store.put`."""
        attributes = attributes or ObjectAttributes()
        limits.check_key("put", key, prefix=self.prefix)
        limits.check_put("put", key, body, if_absent=if_absent, if_match=if_match)
        limits.check_attributes("put", key, attributes)
        # The two operations take the same options for what is set with the object.
        request = cast("PutObjectRequestTypeDef", self._new_object(key, attributes))
        request["Body"] = body_file(body)
        sent = self._checksum(body, checksum)
        if sent is not None:
            request["ChecksumCRC64NVME"] = crc.encode(sent)
        if if_absent:
            request["IfNoneMatch"] = "*"
        if if_match is not None:
            request["IfMatch"] = f'"{if_match}"'
        async with self._request("put", key):
            answer = await self._client.put_object(**request)
        return ObjectInfo(
            key=key,
            size=len(body),
            etag=written_etag("put", key, answer),
            checksum=confirmed("put", key, sent, answer),
            content_type=attributes.content_type,
            metadata=dict(attributes.metadata),
        )

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See `Store.get`."""
        limits.check_range("get", key, start, end)
        if end == start:
            info = await self.head(key)
            if start > 0 and start >= info.size:
                problem = f"the object has {info.size} bytes, none at {start}"
                raise limits.refuse("get", key, problem, code="InvalidRange")
            return b""
        byte_range = "" if start == 0 and end is None else f"bytes={start}-"
        if end is not None:
            byte_range += str(end - 1)
        try:
            data, _ = await self._get("get", key, byte_range)
        except InvalidRequest as error:
            if error.code == "InvalidRange" and start == 0:
                return b""  # an empty object has no first byte
            raise
        return data

    async def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """See `Store.read`."""
        return await self._get("read", key)

    async def head(self, key: str) -> ObjectInfo:
        """See `Store.head`."""
        limits.check_key("head", key, prefix=self.prefix)
        try:
            async with self._request("head", key):
                mode: dict[str, Any] = {"ChecksumMode": "ENABLED"} if self._checksums else {}
                answer = await self._client.head_object(
                    Bucket=self.bucket, Key=self.prefix + key, **mode
                )
        except (AccessDenied, InvalidRequest, NoSuchObject) as error:
            if isinstance(error, NoSuchObject) and self._bucket_seen:
                raise
            # A HEAD is answered without a body, so without a code: ask for one byte to learn it.
            await self._get("head", key, "bytes=0-0")
            raise
        return _info("head", key, answer)

    async def tags(self, key: str) -> dict[str, str]:
        """See `Store.tags`."""
        limits.check_key("tags", key, prefix=self.prefix)
        async with self._request("tags", key):
            answer = await self._client.get_object_tagging(
                Bucket=self.bucket, Key=self.prefix + key
            )
        return {one["Key"]: one["Value"] for one in answer["TagSet"]}

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `Store.tag`."""
        limits.check_key("tag", key, prefix=self.prefix)
        limits.check_attributes("tag", key, ObjectAttributes(tags=tags))
        place: Any = {"Bucket": self.bucket, "Key": self.prefix + key}
        tag_set: Any = [{"Key": name, "Value": value} for name, value in tags.items()]
        async with self._request("tag", key):
            if tag_set:
                await self._client.put_object_tagging(**place, Tagging={"TagSet": tag_set})
            else:  # an empty set is not understood by all
                await self._client.delete_object_tagging(**place)

    async def list_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `Store.list_objects`."""
        limits.check_prefix("list_objects", prefix)
        async for page in self._pages("list_objects", prefix):
            for one in page.get("Contents", ()):
                yield self._listed(one)

    async def list_level(self, prefix: str = "") -> Listing:
        """See `Store.list_level`."""
        limits.check_prefix("list_level", prefix, level=True)
        objects: list[ObjectInfo] = []
        folders: list[str] = []
        async for page in self._pages("list_level", prefix, Delimiter="/"):
            # A key that is the prefix itself is a folder marker, made by a console.
            found = (one for one in page.get("Contents", ()) if not one["Key"].endswith("/"))
            objects.extend(self._listed(one) for one in found)
            cut = len(self.prefix)
            folders.extend(one["Prefix"][cut:] for one in page.get("CommonPrefixes", ()))
        return Listing(objects=objects, folders=folders)

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        limits.check_key("delete", key, prefix=self.prefix)
        with contextlib.suppress(NoSuchObject):
            async with self._request("delete", key):
                await self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StoreError]:
        """See `Store.delete_many`. One by one where the server, or a policy, takes no batches."""
        for key in keys:
            limits.check_key("delete", key, prefix=self.prefix)
        if len(keys) > 1 and self._takes_batches:
            try:
                return refused(await self._delete_batches(keys))
            except (AccessDenied, ChecksumError, InvalidRequest, Unsupported) as error:
                # Of a permission, the next recording's objects may have another.
                self._takes_batches = isinstance(error, AccessDenied)
        return await super().delete_many(keys)

    async def _delete_batches(self, keys: Sequence[str]) -> dict[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for batch in s3_deletes.batches(keys, self.prefix):
            async with self._request("delete", keys[0]):
                answer = await self._client.delete_objects(
                    Bucket=self.bucket, Delete=cast("Any", batch)
                )
            failed |= s3_deletes.failures(
                answer, self.prefix, bucket=self.bucket, region=self.region
            )
        return failed

    async def create_multipart(self, key: str, attributes: ObjectAttributes | None = None) -> str:
        """See `Store.create_multipart`."""
        attributes = attributes or ObjectAttributes()
        limits.check_key("create_multipart", key, prefix=self.prefix)
        limits.check_attributes("create_multipart", key, attributes)
        request = self._new_object(key, attributes)
        if self._checksums:
            request["ChecksumAlgorithm"] = "CRC64NVME"
            request["ChecksumType"] = "FULL_OBJECT"
        async with self._request("create_multipart", key):
            answer = await self._client.create_multipart_upload(**request)
        return answer["UploadId"]

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, checksum: int | None = None
    ) -> Part:
        """See `Store.upload_part`."""
        limits.check_key("upload_part", key, prefix=self.prefix)
        limits.check_part("upload_part", key, number, body)
        request: UploadPartRequestTypeDef = {
            "Bucket": self.bucket,
            "Key": self.prefix + key,
            "UploadId": upload_id,
            "PartNumber": number,
            "Body": body_file(body),
        }
        sent = self._checksum(body, checksum)
        if sent is not None:
            request["ChecksumCRC64NVME"] = crc.encode(sent)
        async with self._settled("upload_part", key, upload_id):
            answer = await self._client.upload_part(**request)
        confirmed("upload_part", key, sent, answer)
        return Part(number, len(body), written_etag("upload_part", key, answer), sent)

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """See `Store.list_parts`.

        SeaweedFS lists a part as often as it was sent, with times in whole seconds. Where that
        does not tell which of two different bodies is the newer, the part is left out: whoever
        goes on with the upload sends it again.
        """
        limits.check_key("list_parts", key, prefix=self.prefix)
        listed: list[Mapping[str, Any]] = []
        async with self._request("list_parts", key):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=self.prefix + key, UploadId=upload_id
            )
            async for page in pages:
                listed.extend(cast("Sequence[Mapping[str, Any]]", page.get("Parts", ())))
        return newest_parts(listed)

    async def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
        """See `Store.list_uploads`."""
        limits.check_prefix("list_uploads", prefix)
        pages = aiter(
            self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
        )
        while True:
            async with self._request("list_uploads", prefix):
                page = await anext(pages, None)
            if page is None:
                return
            for one in page.get("Uploads", ()):
                if one["Key"].startswith(self.prefix + prefix):  # some servers ignore the prefix
                    key = one["Key"][len(self.prefix) :]
                    yield UploadInfo(key, one["UploadId"], one.get("Initiated"))

    async def complete_multipart(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        checksum: int | None = None,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """See `Store.complete_multipart`."""
        limits.check_key("complete_multipart", key, prefix=self.prefix)
        limits.check_parts("complete_multipart", key, parts)
        request: CompleteMultipartUploadRequestTypeDef = {
            "Bucket": self.bucket,
            "Key": self.prefix + key,
            "UploadId": upload_id,
            "MultipartUpload": {
                "Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
            },
        }
        sent = checksum if self._checksums else None
        if sent is not None:
            request["ChecksumCRC64NVME"] = crc.encode(sent)
            request["ChecksumType"] = "FULL_OBJECT"
        if if_absent:
            request["IfNoneMatch"] = "*"
        async with self._settled("complete_multipart", key, upload_id):
            answer = await self._client.complete_multipart_upload(**request)
        return ObjectInfo(
            key=key,
            size=sum(part.size for part in parts),
            etag=written_etag("complete_multipart", key, answer),
            checksum=confirmed("complete_multipart", key, sent, answer),
        )

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """See `Store.abort_multipart`."""
        limits.check_key("abort_multipart", key, prefix=self.prefix)
        with contextlib.suppress(NoSuchUpload):
            async with self._request("abort_multipart", key):
                await self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=self.prefix + key, UploadId=upload_id
                )

    async def create_bucket(self) -> None:
        """Create the bucket; one that this account has already is no error.

        Raises:
            Conflict: Somebody has a bucket of that name.
        """
        options: dict[str, Any] = {}
        if self.endpoint_url is None and self.region != DEFAULT_REGION:
            options["CreateBucketConfiguration"] = {"LocationConstraint": self.region}
        try:
            async with self._request("create_bucket", ""):
                await self._client.create_bucket(Bucket=self.bucket, **options)
        except Conflict as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise

    @contextlib.asynccontextmanager
    async def asking(self, op: str, key: str = "") -> AsyncIterator[S3Client]:
        """Make a request that is not one of a store's, its errors turned into ours."""
        async with self._request(op, key):
            yield self._client

    @contextlib.contextmanager
    def on_answer(self, heard: Callable[..., None]) -> Iterator[None]:
        """Have `heard` called with each answer, refusals too, inside the block.

        Args:
            heard: Called as botocore's event `after-call` says.
        """
        events = self._client.meta.events
        events.register("after-call.s3", heard)
        try:
            yield
        finally:
            events.unregister("after-call.s3", heard)

    @property
    def credentials_from(self) -> str:
        """Where the credentials were found, in the client's words; empty if not known yet."""
        credentials = self._open.credentials
        return "arguments" if credentials is None else credentials.origin

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the store is not open: use it inside `async with`")
        return self._connection

    @property
    def _client(self) -> S3Client:
        return self._open.client

    def _checksum(self, body: Body, checksum: int | None) -> int | None:
        """Return the checksum to send with a body, or None to send none."""
        if not self._checksums:
            return None
        return crc.crc64nvme(body) if checksum is None else checksum

    def _new_object(
        self, key: str, attributes: ObjectAttributes
    ) -> CreateMultipartUploadRequestTypeDef:
        """Return the options that a put and the creation of an upload have in common."""
        request: CreateMultipartUploadRequestTypeDef = {
            "Bucket": self.bucket,
            "Key": self.prefix + key,
            "ContentType": attributes.content_type,
            "Metadata": attributes.metadata,
        }
        if attributes.content_disposition is not None:
            request["ContentDisposition"] = attributes.content_disposition
        if attributes.tags:
            request["Tagging"] = urlencode(attributes.tags)
        if attributes.storage_class is not None:
            request["StorageClass"] = cast("Any", attributes.storage_class)  # the server knows them
        if self._kms_key_id is not None:
            request["ServerSideEncryption"] = "aws:kms"
            request["SSEKMSKeyId"] = self._kms_key_id
        return request

    async def _get(self, op: str, key: str, byte_range: str = "") -> tuple[bytes, ObjectInfo]:
        limits.check_key(op, key, prefix=self.prefix)
        request: GetObjectRequestTypeDef = {"Bucket": self.bucket, "Key": self.prefix + key}
        if byte_range:
            request["Range"] = byte_range
        elif self._checksums:
            request["ChecksumMode"] = "ENABLED"
        async with self._request(op, key):
            answer = await self._client.get_object(**request)
            async with answer["Body"] as stream:
                data = await stream.read()
        info = _info(op, key, answer)
        if not byte_range and info.checksum not in (None, crc.crc64nvme(data)):
            message = f"{op} {key!r}: other bytes arrived than are stored"
            raise ChecksumError(message, op=op, key=key, code="BadDigest")
        return data, info

    async def _pages(
        self, op: str, prefix: str, **options: str
    ) -> AsyncIterator[Mapping[str, Any]]:
        pages = aiter(
            self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix, **cast("Any", options)
            )
        )
        while True:
            async with self._request(op, prefix):
                page = await anext(pages, None)
            if page is None:
                return
            yield cast("Mapping[str, Any]", page)

    def _listed(self, one: Mapping[str, Any]) -> ObjectInfo:
        return ObjectInfo(
            key=one["Key"][len(self.prefix) :],
            size=one["Size"],
            etag=unquoted(one["ETag"]),
            modified=one["LastModified"],
        )

    @contextlib.asynccontextmanager
    async def _settled(self, op: str, key: str, upload_id: str) -> AsyncIterator[None]:
        """Translate errors, and tell an upload that is gone from a server that is ill.

        Ceph's gateway, and moto, answer both by an internal error.
        """
        try:
            async with self._request(op, key):
                yield
        except TransientError as error:
            if error.code in _INTERNAL:
                try:
                    await self.list_parts(key, upload_id)
                except NoSuchUpload:
                    raise
                except StoreError:
                    pass  # what this one says, a permission of its own, is not about the request
            raise

    @contextlib.asynccontextmanager
    async def _request(self, op: str, key: str) -> AsyncIterator[None]:
        """Turn the client's errors into the store's, and note what they tell of the bucket."""
        try:
            async with requesting(self._open, op, key, **self._place()):
                yield
        except (NoSuchBucket, NoSuchObject, AccessDenied, TransientError):
            raise
        except StoreError as error:
            self._bucket_seen |= error.code in _FROM_A_BUCKET
            raise
        else:
            self._bucket_seen = True

    def _place(self) -> dict[str, str]:
        """Return what messages say of where requests go."""
        where = self.endpoint_url or "Amazon S3"
        return {"bucket": self.bucket, "region": self.region, "where": where}

    @property
    def region(self) -> str:
        """The region the client is set up for; empty before it is made."""
        connection = self._connection
        return self._region or (connection.client.meta.region_name if connection else "")


def _info(op: str, key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    written_etag(op, key, answer)  # or else it is no answer of an S3 server's
    return info_of(key, answer)


_INTERNAL = frozenset({"500", "InternalError", "InternalFailure", "UnknownError"})
_FROM_A_BUCKET = frozenset({"NoSuchUpload", "InvalidRange"})
"""Refusals that only a bucket that is there can give."""
