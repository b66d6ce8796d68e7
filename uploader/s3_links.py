"""The address of an object on the web, put together as the client does for its requests."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

_AWS = (".amazonaws.com", ".amazonaws.com.cn")


def web_url(endpoint: str, bucket: str, key: str, *, strict: bool = False) -> str:
    """Return an object's address, percent-encoded.

    Amazon S3 User Guide, "Virtual hosting of general purpose buckets": the bucket is part of the
    host name, unless a dot in it does not go with the certificate. Other servers have it in the
    path.

    Args:
        endpoint: Where requests go, e.g. `https://s3.eu-central-1.amazonaws.com`.
        bucket: The bucket.
        key: The whole key.
        strict: Encode all but unreserved characters, as signatures want it (S3 API Reference,
            "Authenticating Requests", `UriEncode`); if not, what reads better without is left.
    """
    parts = urlsplit(endpoint)
    path = quote(key, safe="/" if strict else "/=+,@:~")
    base = parts.path.rstrip("/")
    if "." not in bucket and (parts.hostname or "").endswith(_AWS):
        return f"{parts.scheme}://{bucket}.{parts.netloc}{base}/{path}"
    return f"{parts.scheme}://{parts.netloc}{base}/{bucket}/{path}"
