"""What requests carry by a store's settings: an object's attributes, encryption, checksums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode

from uploader import checksum as crc
from uploader.s3_bucket import Bucket
from uploader.store import Body, ObjectAttributes

if TYPE_CHECKING:
    from types_aiobotocore_s3.literals import StorageClassType
    from types_aiobotocore_s3.type_defs import CreateMultipartUploadRequestTypeDef


@dataclass(frozen=True, slots=True)
class Options:
    """A store's settings; see `S3Store`.

    Attributes:
        checksums: Whether checksums are sent, and asked for.
        kms_key_id: Encrypt new objects with this KMS key; the bucket's default if None.
    """

    checksums: bool
    kms_key_id: str | None

    def checksum(self, body: Body, known: int | None) -> int | None:
        """Return the checksum to send with a body, or None to send none."""
        if not self.checksums:
            return None
        return crc.crc64nvme(body) if known is None else known

    def new_object(
        self, bucket: Bucket, key: str, attributes: ObjectAttributes
    ) -> CreateMultipartUploadRequestTypeDef:
        """Return the options that a put and the creation of an upload have in common."""
        request: CreateMultipartUploadRequestTypeDef = {
            "Bucket": bucket.name,
            "Key": bucket.whole(key),
            "ContentType": attributes.content_type,
            "Metadata": attributes.metadata,
        }
        if attributes.content_disposition is not None:
            request["ContentDisposition"] = attributes.content_disposition
        if attributes.tags:
            request["Tagging"] = urlencode(attributes.tags)
        if attributes.storage_class is not None:  # the server knows them
            request["StorageClass"] = cast("StorageClassType", attributes.storage_class)
        if self.kms_key_id is not None:
            request["ServerSideEncryption"] = "aws:kms"
            request["SSEKMSKeyId"] = self.kms_key_id
        return request
