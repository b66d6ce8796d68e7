"""Amazon S3 and its kin as a store.

One client for each store, shared by all that use it. The checksum of a body is sent as a header:
it is known before, so that the body is neither hashed again nor sent in chunked encoding.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from uploader import checksum as crc
from uploader import limits, s3_deletes, s3_listing
from uploader.errors import (
    AccessDenied,
    ChecksumError,
    Conflict,
    InvalidRequest,
    NoSuchObject,
    StoreError,
    Unsupported,
)
from uploader.s3_answers import confirmed, info_of, written_etag
from uploader.s3_body import body_file
from uploader.s3_bucket import Bucket
from uploader.s3_client import DEFAULT_REGION, presigned
from uploader.s3_links import web_url
from uploader.s3_options import Options
from uploader.s3_uploads import Uploads
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
    from types_aiobotocore_s3.type_defs import GetObjectRequestTypeDef, PutObjectRequestTypeDef


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
        self._bucket = Bucket(
            bucket,
            f"{prefix.strip('/')}/" if prefix.strip("/") else "",
            region=region,
            endpoint_url=endpoint_url,
            profile=profile,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        )
        self._options = Options(checksums=checksums, kms_key_id=kms_key_id)
        self._uploads = Uploads(self._bucket, self._options)
        self._takes_batches = True

    @property
    def bucket(self) -> str:
        """The bucket."""
        return self._bucket.name

    @property
    def prefix(self) -> str:
        """What all keys begin with; empty, or with a `/` at its end."""
        return self._bucket.prefix

    @property
    def region(self) -> str:
        """The region the client is set up for; empty before it is made."""
        return self._bucket.region

    @property
    def endpoint_url(self) -> str | None:
        """The server, if it is not AWS."""
        return self._bucket.endpoint_url

    def url(self, key: str) -> str:
        """Return the object's `s3://` URL."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def web_url(self, key: str) -> str:
        """See `Store.web_url`. The bucket is in the host name where requests have it there."""
        return web_url(self._bucket.client.meta.endpoint_url, self.bucket, self._bucket.whole(key))

    async def presigned_url(self, key: str, seconds: int) -> str:
        """See `Store.presigned_url`."""
        limits.check_key("presigned_url", key, prefix=self.prefix)
        if not 1 <= seconds <= MAX_PRESIGN_SECONDS:
            problem = f"{seconds} s is not from 1 to {MAX_PRESIGN_SECONDS} s (7 days)"
            raise limits.refuse("presigned_url", key, problem, code="InvalidArgument")
        async with self._bucket.request("presigned_url", key):
            endpoint = self._bucket.client.meta.endpoint_url
            address = web_url(endpoint, self.bucket, self._bucket.whole(key), strict=True)
            return await presigned(self._bucket.connection, address, self.region, seconds)

    async def __aenter__(self) -> Self:
        """Make the client.

        Raises:
            AccessDenied: The profile does not exist.
            InvalidRequest: The client's configuration is not valid, e.g. the endpoint's URL.
        """
        await self._bucket.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client and its connections."""
        await self._bucket.close()

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
        request = cast(
            "PutObjectRequestTypeDef", self._options.new_object(self._bucket, key, attributes)
        )
        request["Body"] = body_file(body)
        sent = self._options.checksum(body, checksum)
        if sent is not None:
            request["ChecksumCRC64NVME"] = crc.encode(sent)
        if if_absent:
            request["IfNoneMatch"] = "*"
        if if_match is not None:
            request["IfMatch"] = f'"{if_match}"'
        async with self._bucket.request("put", key):
            answer = await self._bucket.client.put_object(**request)
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
            async with self._bucket.request("head", key):
                mode: dict[str, Any] = (
                    {"ChecksumMode": "ENABLED"} if self._options.checksums else {}
                )
                answer = await self._bucket.client.head_object(
                    Bucket=self.bucket, Key=self._bucket.whole(key), **mode
                )
        except (AccessDenied, InvalidRequest, NoSuchObject) as error:
            if isinstance(error, NoSuchObject) and self._bucket.seen:
                raise
            # A HEAD is answered without a body, so without a code: ask for one byte to learn it.
            await self._get("head", key, "bytes=0-0")
            raise
        return _info("head", key, answer)

    async def tags(self, key: str) -> dict[str, str]:
        """See `Store.tags`."""
        limits.check_key("tags", key, prefix=self.prefix)
        async with self._bucket.request("tags", key):
            answer = await self._bucket.client.get_object_tagging(
                Bucket=self.bucket, Key=self._bucket.whole(key)
            )
        return {one["Key"]: one["Value"] for one in answer["TagSet"]}

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `Store.tag`."""
        limits.check_key("tag", key, prefix=self.prefix)
        limits.check_attributes("tag", key, ObjectAttributes(tags=tags))
        place: Any = {"Bucket": self.bucket, "Key": self._bucket.whole(key)}
        tag_set: Any = [{"Key": name, "Value": value} for name, value in tags.items()]
        async with self._bucket.request("tag", key):
            if tag_set:
                await self._bucket.client.put_object_tagging(**place, Tagging={"TagSet": tag_set})
            else:  # an empty set is not understood by all
                await self._bucket.client.delete_object_tagging(**place)

    def list_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `Store.list_objects`."""
        return s3_listing.objects(self._bucket, prefix)

    async def list_level(self, prefix: str = "") -> Listing:
        """See `Store.list_level`."""
        return await s3_listing.level(self._bucket, prefix)

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        limits.check_key("delete", key, prefix=self.prefix)
        with contextlib.suppress(NoSuchObject):
            async with self._bucket.request("delete", key):
                await self._bucket.client.delete_object(
                    Bucket=self.bucket, Key=self._bucket.whole(key)
                )

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StoreError]:
        """See `Store.delete_many`. One by one where the server, or a policy, takes no batches."""
        for key in keys:
            limits.check_key("delete", key, prefix=self.prefix)
        if len(keys) > 1 and self._takes_batches:
            try:
                return refused(await s3_deletes.delete_batches(self._bucket, keys))
            except (AccessDenied, ChecksumError, InvalidRequest, Unsupported) as error:
                # Of a permission, the next recording's objects may have another.
                self._takes_batches = isinstance(error, AccessDenied)
        return await super().delete_many(keys)

    async def create_multipart(self, key: str, attributes: ObjectAttributes | None = None) -> str:
        """See `Store.create_multipart`."""
        return await self._uploads.create(key, attributes)

    async def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, checksum: int | None = None
    ) -> Part:
        """See `Store.upload_part`."""
        return await self._uploads.put_part(key, upload_id, number, body, checksum)

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """See `Store.list_parts`."""
        return await self._uploads.parts(key, upload_id)

    def list_uploads(self, prefix: str = "") -> AsyncIterator[UploadInfo]:
        """See `Store.list_uploads`."""
        return self._uploads.all(prefix)

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
        return await self._uploads.complete(
            key, upload_id, parts, checksum=checksum, if_absent=if_absent
        )

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """See `Store.abort_multipart`."""
        await self._uploads.abort(key, upload_id)

    async def create_bucket(self) -> None:
        """Create the bucket; one that this account has already is no error.

        Raises:
            Conflict: Somebody has a bucket of that name.
        """
        options: dict[str, Any] = {}
        if self.endpoint_url is None and self.region != DEFAULT_REGION:
            options["CreateBucketConfiguration"] = {"LocationConstraint": self.region}
        try:
            async with self._bucket.request("create_bucket", ""):
                await self._bucket.client.create_bucket(Bucket=self.bucket, **options)
        except Conflict as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise

    @contextlib.asynccontextmanager
    async def asking(self, op: str, key: str = "") -> AsyncIterator[S3Client]:
        """Make a request that is not one of a store's, its errors turned into ours."""
        async with self._bucket.request(op, key):
            yield self._bucket.client

    @contextlib.contextmanager
    def on_answer(self, heard: Callable[..., None]) -> Iterator[None]:
        """Have `heard` called with each answer, refusals too, inside the block.

        Args:
            heard: Called as botocore's event `after-call` says.
        """
        events = self._bucket.client.meta.events
        events.register("after-call.s3", heard)
        try:
            yield
        finally:
            events.unregister("after-call.s3", heard)

    @property
    def credentials_from(self) -> str:
        """Where the credentials were found, in the client's words; empty if not known yet."""
        credentials = self._bucket.connection.credentials
        return "arguments" if credentials is None else credentials.origin

    async def _get(self, op: str, key: str, byte_range: str = "") -> tuple[bytes, ObjectInfo]:
        limits.check_key(op, key, prefix=self.prefix)
        request: GetObjectRequestTypeDef = {
            "Bucket": self.bucket,
            "Key": self._bucket.whole(key),
        }
        if byte_range:
            request["Range"] = byte_range
        elif self._options.checksums:
            request["ChecksumMode"] = "ENABLED"
        async with self._bucket.request(op, key):
            answer = await self._bucket.client.get_object(**request)
            async with answer["Body"] as stream:
                data = await stream.read()
        info = _info(op, key, answer)
        if not byte_range and info.checksum not in (None, crc.crc64nvme(data)):
            message = f"{op} {key!r}: other bytes arrived than are stored"
            raise ChecksumError(message, op=op, key=key, code="BadDigest")
        return data, info


def _info(op: str, key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    written_etag(op, key, answer)  # or else it is no answer of an S3 server's
    return info_of(key, answer)
