"""Servers and stores for all tests; nothing here uses the developer's own account."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from moto.server import ThreadedMotoServer

from recorder.embedded import EmbeddedS3
from uploader.s3 import S3Store

BUCKET = "calls"


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Keep the developer's settings, AWS configuration and proxies out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(("AWS_", "RECORDER_", "BOTO_")) or (
                name.upper().endswith("_PROXY")
            ):
                patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def seaweed(
    tmp_path_factory: pytest.TempPathFactory, clean_environment: None
) -> AsyncIterator[EmbeddedS3]:
    """A SeaweedFS server, shared: use a prefix of your own, and do not stop it."""
    server = EmbeddedS3(tmp_path_factory.mktemp("seaweed"), bucket=BUCKET)
    await server.start()
    try:
        yield server
    finally:
        server.kill()  # quicker than to ask: its data is not needed any more


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def moto_url(clean_environment: None) -> AsyncIterator[str]:
    """The endpoint of a moto server with the bucket `calls`, shared."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        async with S3Store(BUCKET, endpoint_url=url) as store:
            await store.create_bucket()
        yield url
    finally:
        server.stop()


@pytest_asyncio.fixture
async def s3_store(seaweed: EmbeddedS3) -> AsyncIterator[Callable[..., Awaitable[S3Store]]]:
    """A function that opens a store on SeaweedFS: a new prefix by default, any option of S3Store.

    `await s3_store()`, `await s3_store(prefix="x", max_connections=2)`; closed after the test.
    """
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> S3Store:
            arguments: dict[str, Any] = {
                "bucket": seaweed.bucket,
                "prefix": f"test-{uuid.uuid4().hex}",
                "endpoint_url": seaweed.endpoint_url,
                "access_key": seaweed.access_key,
                "secret_key": seaweed.secret_key,
                **options,
            }
            return await stack.enter_async_context(S3Store(**arguments))

        yield make
