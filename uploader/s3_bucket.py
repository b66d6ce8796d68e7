"""One bucket, below one prefix: its client, how requests are made, what answers tell of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from uploader.errors import AccessDenied, NoSuchBucket, NoSuchObject, StoreError, TransientError
from uploader.s3_client import Connection, connect, requesting, translated

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


class Bucket:
    """Makes requests to a bucket.

    Args:
        name: The bucket's.
        prefix: What all keys begin with; empty, or with a `/` at its end.
        region: Its region; from the AWS configuration if None.
        endpoint_url: A server other than AWS.
        options: What else `connect` is told.

    Attributes:
        seen: Whether an answer has shown that the bucket exists.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        *,
        region: str | None,
        endpoint_url: str | None,
        **options: Any,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.endpoint_url = endpoint_url
        self.seen = False
        self._region = region
        self._options = options
        self._connection: Connection | None = None
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Make the client.

        Raises:
            AccessDenied: The profile does not exist.
            InvalidRequest: The client's configuration is not valid, e.g. the endpoint's URL.
        """
        with translated("open", "", **self._told()):
            opening = connect(region=self._region, endpoint_url=self.endpoint_url, **self._options)
            self._connection = await self._stack.enter_async_context(opening)

    async def close(self) -> None:
        """Close the client and its connections."""
        self._connection = None
        await self._stack.aclose()

    @property
    def connection(self) -> Connection:
        """The client, and what it signs with."""
        if self._connection is None:
            raise RuntimeError("the store is not open: use it inside `async with`")
        return self._connection

    @property
    def client(self) -> S3Client:
        """The client."""
        return self.connection.client

    @property
    def region(self) -> str:
        """The region the client is set up for; empty before it is made."""
        connection = self._connection
        return self._region or (connection.client.meta.region_name if connection else "")

    def whole(self, key: str) -> str:
        """Return a key, or the beginning of keys, as the bucket has it."""
        return self.prefix + key

    @contextlib.asynccontextmanager
    async def request(self, op: str, key: str) -> AsyncIterator[None]:
        """Turn the client's errors into the store's, and note what they tell of the bucket."""
        try:
            async with requesting(self.connection, op, key, **self._told()):
                yield
        except (NoSuchBucket, NoSuchObject, AccessDenied, TransientError):
            raise
        except StoreError as error:
            self.seen |= error.code in _FROM_A_BUCKET
            raise
        else:
            self.seen = True

    def _told(self) -> dict[str, str]:
        """Return what messages say of where requests go."""
        where = self.endpoint_url or "Amazon S3"
        return {"bucket": self.name, "region": self.region, "where": where}


_FROM_A_BUCKET = frozenset({"NoSuchUpload", "InvalidRange"})
"""Refusals that only a bucket that is there can give."""
