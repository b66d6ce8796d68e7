"""Multipart uploads in a bucket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from uploader import checksum as crc
from uploader import limits
from uploader.errors import NoSuchUpload, StoreError, TransientError
from uploader.s3_answers import confirmed, newest_parts, written_etag
from uploader.s3_body import body_file
from uploader.s3_bucket import Bucket
from uploader.s3_options import Options
from uploader.store import Body, ObjectAttributes, ObjectInfo, Part, UploadInfo

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import (
        CompleteMultipartUploadRequestTypeDef,
        UploadPartRequestTypeDef,
    )


class Uploads:
    """Multipart uploads of a store; arguments and errors as the `Store` has them.

    Args:
        bucket: Where they are.
        options: What their requests carry.
    """

    def __init__(self, bucket: Bucket, options: Options) -> None:
        self._bucket = bucket
        self._options = options

    async def create(self, key: str, attributes: ObjectAttributes | None) -> str:
        """Begin an upload; see `Store.create_multipart`."""
        attributes = attributes or ObjectAttributes()
        limits.check_key("create_multipart", key, prefix=self._bucket.prefix)
        limits.check_attributes("create_multipart", key, attributes)
        request = self._options.new_object(self._bucket, key, attributes)
        if self._options.checksums:
            request["ChecksumAlgorithm"] = "CRC64NVME"
            request["ChecksumType"] = "FULL_OBJECT"
        async with self._bucket.request("create_multipart", key):
            answer = await self._bucket.client.create_multipart_upload(**request)
        return answer["UploadId"]

    async def put_part(
        self, key: str, upload_id: str, number: int, body: Body, checksum: int | None
    ) -> Part:
        """Send a part; see `Store.upload_part`."""
        limits.check_key("upload_part", key, prefix=self._bucket.prefix)
        limits.check_part("upload_part", key, number, body)
        request: UploadPartRequestTypeDef = {
            "Bucket": self._bucket.name,
            "Key": self._bucket.whole(key),
            "UploadId": upload_id,
            "PartNumber": number,
            "Body": body_file(body),
        }
        sent = self._options.checksum(body, checksum)
        if sent is not None:
            request["ChecksumCRC64NVME"] = crc.encode(sent)
        async with self._settled("upload_part", key, upload_id):
            answer = await self._bucket.client.upload_part(**request)
        confirmed("upload_part", key, sent, answer)
        return Part(number, len(body), written_etag("upload_part", key, answer), sent)

    async def parts(self, key: str, upload_id: str) -> list[Part]:
        """List an upload's parts; see `Store.list_parts`.

        SeaweedFS lists a part as often as it was sent, with times in whole seconds. Where that
        does not tell which of two different bodies is the newer, the part is left out: whoever
        goes on with the upload sends it again.
        """
        limits.check_key("list_parts", key, prefix=self._bucket.prefix)
        listed: list[Mapping[str, Any]] = []
        async with self._bucket.request("list_parts", key):
            pages = self._bucket.client.get_paginator("list_parts").paginate(
                Bucket=self._bucket.name, Key=self._bucket.whole(key), UploadId=upload_id
            )
            async for page in pages:
                listed.extend(cast("Sequence[Mapping[str, Any]]", page.get("Parts", ())))
        return newest_parts(listed)

    async def all(self, prefix: str) -> AsyncIterator[UploadInfo]:
        """List uploads in progress; see `Store.list_uploads`."""
        limits.check_prefix("list_uploads", prefix)
        begin = self._bucket.whole(prefix)
        pages = aiter(
            self._bucket.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket.name, Prefix=begin
            )
        )
        while True:
            async with self._bucket.request("list_uploads", prefix):
                page = await anext(pages, None)
            if page is None:
                return
            for one in page.get("Uploads", ()):
                if one["Key"].startswith(begin):  # some servers ignore the prefix
                    key = one["Key"][len(self._bucket.prefix) :]
                    yield UploadInfo(key, one["UploadId"], one.get("Initiated"))

    async def complete(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        checksum: int | None,
        if_absent: bool,
    ) -> ObjectInfo:
        """Make the object of its parts; see `Store.complete_multipart`."""
        limits.check_key("complete_multipart", key, prefix=self._bucket.prefix)
        limits.check_parts("complete_multipart", key, parts)
        request: CompleteMultipartUploadRequestTypeDef = {
            "Bucket": self._bucket.name,
            "Key": self._bucket.whole(key),
            "UploadId": upload_id,
            "MultipartUpload": {
                "Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
            },
        }
        sent = checksum if self._options.checksums else None
        if sent is not None:
            request["ChecksumCRC64NVME"] = crc.encode(sent)
            request["ChecksumType"] = "FULL_OBJECT"
        if if_absent:
            request["IfNoneMatch"] = "*"
        async with self._settled("complete_multipart", key, upload_id):
            answer = await self._bucket.client.complete_multipart_upload(**request)
        return ObjectInfo(
            key=key,
            size=sum(part.size for part in parts),
            etag=written_etag("complete_multipart", key, answer),
            checksum=confirmed("complete_multipart", key, sent, answer),
        )

    async def abort(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts; see `Store.abort_multipart`."""
        limits.check_key("abort_multipart", key, prefix=self._bucket.prefix)
        with contextlib.suppress(NoSuchUpload):
            async with self._bucket.request("abort_multipart", key):
                await self._bucket.client.abort_multipart_upload(
                    Bucket=self._bucket.name, Key=self._bucket.whole(key), UploadId=upload_id
                )

    @contextlib.asynccontextmanager
    async def _settled(self, op: str, key: str, upload_id: str) -> AsyncIterator[None]:
        """Translate errors, and tell an upload that is gone from a server that is ill.

        Ceph's gateway, and moto, answer both by an internal error.
        """
        try:
            async with self._bucket.request(op, key):
                yield
        except TransientError as error:
            if error.code in _INTERNAL:
                try:
                    await self.parts(key, upload_id)
                except NoSuchUpload:
                    raise
                except StoreError:
                    pass  # what this one says, a permission of its own, is not about the request
            raise


_INTERNAL = frozenset({"500", "InternalError", "InternalFailure", "UnknownError"})
