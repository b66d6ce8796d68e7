"""What an S3 server's refusal means: from its error code, or else its HTTP status, to our errors.

Codes are those of the Amazon S3 API Reference, "Error responses", and of compatible servers where
they differ. A code wins over the status: servers answer errors inside a 200, and the same code
with several statuses. The answer to a HEAD has no body, so its code is its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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

_UPLOAD_OPS = frozenset({"upload_part", "list_parts", "complete_multipart", "abort_multipart"})

_KEYS = "check the access key and the secret key, and that they are meant for this endpoint"
_PERMISSION = (
    "the credentials are valid but lack a permission, or a bucket policy, an access point or a "
    "KMS key policy forbids it; without s3:ListBucket a missing object is answered like this, too"
)
_EXPIRED = "the temporary credentials have expired: renew them"
_CLOCK = "this machine's clock is more than 15 minutes off: set it by NTP"

_DENIED = {
    "AccessDenied": _PERMISSION,
    "AllAccessDisabled": "the bucket's owner or the provider has disabled all access to it",
    "AccountProblem": "the account needs attention at the provider",
    "NotSignedUp": "the account is not signed up for S3",
    "AuthorizationHeaderMalformed": _KEYS,
    "CredentialsNotSupported": _KEYS,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId": _KEYS,
    "InvalidClientTokenId": _KEYS,
    "InvalidSecurity": _KEYS,
    "InvalidToken": "the session token does not belong to the access key, or is damaged",
    "MissingSecurityHeader": _KEYS,
    "RequestTimeTooSkewed": _CLOCK,
    "SignatureDoesNotMatch": _KEYS,
    "UnauthorizedAccess": _PERMISSION,
}

_TRANSIENT = frozenset(
    {
        "BandwidthLimitExceeded",
        "Busy",
        "IncompleteBody",
        "InternalError",
        "InternalFailure",
        "LimitExceededException",
        "OperationTimedOut",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "TemporaryRedirect",
        "TooManyRequests",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_TRANSIENT_STATUS = frozenset({307, 408, 425, 429})

_REGION = frozenset({"PermanentRedirect", "IllegalLocationConstraintException"})
_CHECKSUM = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
_CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's refusal, as far as it matters.

    Attributes:
        op: The store operation.
        key: The object key or prefix it was about.
        bucket: The bucket.
        region: The region the client is set up for.
        code: The error code; the status as text where the answer had no body.
        message: The server's own words.
        status: The HTTP status.
        headers: The HTTP headers, names in lower case.
        error_region: The region the error's body names, if it does.
    """

    op: str
    key: str
    bucket: str
    region: str
    code: str
    message: str
    status: int
    headers: Mapping[str, str]
    error_region: str = ""

    @property
    def bucket_region(self) -> str:
        """Where the server says the bucket is, or an empty string."""
        return self.headers.get("x-amz-bucket-region", "") or self.error_region


def to_error(answer: Answer, mended: str = "") -> StoreError:
    """Return the error that a refusal is to the rest of the code.

    Args:
        answer: The refusal.
        mended: What has been done about it, if that is a reason to send the request again.
    """
    kind, hint = (TransientError, mended) if mended else _classify(answer)
    request_id = answer.headers.get("x-amz-request-id", "")
    message = f"{answer.op} {answer.key!r} in bucket {answer.bucket!r}: {answer.code}"
    if answer.message and answer.message != answer.code:
        message += f": {answer.message}"
    if kind is WrongRegion:
        there = answer.bucket_region or "another region"
        message = f"bucket {answer.bucket!r} is in {there}, not in {answer.region}"
    if request_id:
        message += f" [request {request_id}]"
    return kind(
        message,
        op=answer.op,
        key=answer.key,
        code=answer.code,
        hint=hint,
        retry_after=retry_after(answer.headers) if kind is TransientError else None,
    )


def _classify(answer: Answer) -> tuple[type[StoreError], str]:
    by_code = _by_code(answer)
    return by_code if by_code is not None else _by_status(answer)


def _by_code(answer: Answer) -> tuple[type[StoreError], str] | None:
    code = answer.code
    if _is_elsewhere(answer):
        there = answer.bucket_region
        return WrongRegion, f"set the region to {there}" if there else "set the bucket's region"
    if code in _DENIED:
        return AccessDenied, _DENIED[code]
    if code in _TRANSIENT or code.startswith(("Throttl", "KMS.Throttl")):
        return TransientError, ""
    if code in _CHECKSUM:
        return ChecksumError, ""
    if code in _CONFLICT:
        # S3 User Guide, "conditional writes": an upload is to be made anew, all else sent again.
        return (Conflict if answer.op == "complete_multipart" else TransientError), ""
    if code in ("NoSuchKey", "NoSuchVersion") or (code == "404" and answer.op == "head"):
        return _absent(answer.op), ""
    return _EXACT.get(code)


_EXACT: Mapping[str, tuple[type[StoreError], str]] = {
    "NoSuchBucket": (NoSuchBucket, "create the bucket, or correct its name or the endpoint"),
    "NoSuchUpload": (NoSuchUpload, ""),
    "InvalidPart": (InvalidPart, ""),
    "InvalidPartOrder": (InvalidPart, ""),
    "PreconditionFailed": (PreconditionFailed, ""),
    "NotImplemented": (Unsupported, "this server does not know the operation or an option of it"),
}


def _is_elsewhere(answer: Answer) -> bool:
    if answer.code in _REGION or answer.status == 301:
        return True
    there = answer.bucket_region
    malformed = answer.code == "AuthorizationHeaderMalformed" and bool(answer.error_region)
    # A HEAD signed for the wrong region is answered by a bare 400.
    bare = answer.code == "400" and bool(there) and there != answer.region
    return malformed or bare


def _absent(op: str) -> type[StoreError]:
    """Return what "no such key" means: Ceph says it of uploads, AWS of a put with If-Match."""
    if op in _UPLOAD_OPS:
        return NoSuchUpload
    return PreconditionFailed if op == "put" else NoSuchObject


_STATUS: Mapping[int, tuple[type[StoreError], str]] = {
    401: (AccessDenied, _KEYS),
    403: (AccessDenied, _PERMISSION),
    409: (Conflict, ""),
    412: (PreconditionFailed, ""),
    501: (Unsupported, "this server does not know the operation or an option of it"),
}


def _by_status(answer: Answer) -> tuple[type[StoreError], str]:
    status = answer.status
    if status in _STATUS:
        return _STATUS[status]
    if status in _TRANSIENT_STATUS or status >= 500 or status < 400:
        return TransientError, ""  # an error below 400 is one inside a 200, of an unknown kind
    if status == 404:
        return _absent(answer.op), ""
    return InvalidRequest, ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to wait (RFC 9110, section 10.2.3), if it says so."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
