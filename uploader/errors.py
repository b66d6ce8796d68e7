"""Every error this project raises on purpose, under one root.

A store's own exceptions (botocore's, aiohttp's, the operating system's) are translated into these
in the store's file and nowhere else, so that the rest of the code decides by class and by
`retryable`, never by a provider's message.
"""

from __future__ import annotations


class BotRecorderError(Exception):
    """Root of all errors of this project.

    Attributes:
        hint: What the reader can do about it, in one sentence; empty when the message says it all.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message


class StoreError(BotRecorderError):
    """An object store refused or failed a request.

    Attributes:
        op: The store operation, e.g. `put`, `upload_part`.
        key: The object key or prefix the request was about.
        code: The provider's error code, or the class of the local error.
        retryable: Whether sending the same request again can succeed without anybody's help.
        retry_after: Seconds the server asked to wait before the next try, if it said so.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        op: str,
        key: str = "",
        code: str = "",
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.op = op
        self.key = key
        self.code = code
        self.retry_after = retry_after


class TransientError(StoreError):
    """Throttling, a 5xx answer, a timeout, a reset or refused connection: try again."""

    retryable = True


class ChecksumError(StoreError):
    """The bytes that arrived differ from the bytes that were sent: send them again."""

    retryable = True


class AccessDenied(StoreError):
    """The credentials are missing, wrong or expired, or lack a permission."""


class NoSuchBucket(StoreError):
    """The bucket, or the local folder, does not exist."""


class WrongRegion(StoreError):
    """The bucket lives in another region than the client was set up for."""


class NoSuchObject(StoreError):
    """There is no object under the key."""


class NoSuchUpload(StoreError):
    """The multipart upload is unknown: completed, aborted, or expired by a lifecycle rule."""


class InvalidPart(StoreError):
    """Complete named a part the store does not have, or has with another ETag."""


class PreconditionFailed(StoreError):
    """A conditional write lost: the object exists already, or its ETag has changed (412)."""


class Conflict(StoreError):
    """Two conditional writes collided (409): the operation must be made anew."""


class InvalidRequest(StoreError):
    """The store understood the request and refuses it as malformed or out of limits."""


class Unsupported(StoreError):
    """The store does not implement the operation or one of its options."""
