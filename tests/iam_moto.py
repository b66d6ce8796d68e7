"""A moto server in a process of its own that enforces IAM policies, but for `QUIRKS`.

It counts requests that need no permission for the whole process, so that it cannot be the one that
other tests share.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3

QUIRKS = {
    "s3:PutObjectTagging": "moto does not ask for it where tags come with a put",
}

BATCH_DELETES_QUIRK = "s3:DeleteObject"
"""Of a batch of deletes, moto wants to see this allowed on the bucket; AWS, on each object."""

_START_SECONDS = 30
_DOCUMENT = "policy"


class Account:
    """One AWS account on the server, with a bucket and a user whose policy can be changed.

    Attributes:
        endpoint_url: Of the server.
        access_key: Of the user.
        secret_key: To it.
    """

    def __init__(self, endpoint_url: str, bucket: str) -> None:
        self.endpoint_url = endpoint_url
        self.bucket = bucket
        options: dict[str, Any] = {
            "endpoint_url": endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": "root",
            "aws_secret_access_key": "root",
        }
        self.s3, self._iam = boto3.client("s3", **options), boto3.client("iam", **options)
        self._enforce(False)
        self.s3.create_bucket(Bucket=bucket)
        self._iam.create_user(UserName="bot")
        key = self._iam.create_access_key(UserName="bot")["AccessKey"]
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]

    @contextmanager
    def allowed(self, policy: dict[str, Any]) -> Iterator[None]:
        """Let the user do what a policy allows, and nothing else, inside the block."""
        self._iam.put_user_policy(
            UserName="bot", PolicyName=_DOCUMENT, PolicyDocument=json.dumps(policy)
        )
        self._enforce(True)
        try:
            yield
        finally:
            self._enforce(False)

    def objects(self) -> list[str]:
        """All objects."""
        return [
            one["Key"] for one in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        ]

    def uploads(self) -> list[str]:
        """All uploads in progress."""
        found = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [one["UploadId"] for one in found]

    def _enforce(self, on: bool) -> None:
        count = b"0" if on else b"1000000000"
        url, kind = f"{self.endpoint_url}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, count, kind)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            pass


@contextmanager
def iam_account(bucket: str) -> Iterator[Account]:
    """Start a server, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url)
            yield Account(url, bucket)
        finally:
            server.kill()


def _wait(url: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
