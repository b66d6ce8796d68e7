"""Each test of the contract runs on each implementation of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from backends import MOTO_QUIRKS, SEAWEED_QUIRKS, Backend

from recorder.embedded import EmbeddedS3
from uploader.store import Store


def _backend(name: str, request: pytest.FixtureRequest, folder: Path) -> Backend:
    if name == "local":
        return Backend(name, folder)
    if name == "moto":
        url = request.getfixturevalue("moto_url")
        return Backend(name, folder, {"bucket": "calls", "endpoint_url": url}, MOTO_QUIRKS)
    server: EmbeddedS3 = request.getfixturevalue("seaweed")
    options = {
        "bucket": server.bucket,
        "endpoint_url": server.endpoint_url,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
    }
    return Backend(name, folder, options, SEAWEED_QUIRKS)


@pytest.fixture(params=["local", "moto", "seaweed"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each implementation in turn."""
    return _backend(request.param, request, tmp_path)


@pytest.fixture(params=["moto", "seaweed"])
def s3_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Each S3 server in turn, for what only a server can get wrong."""
    return _backend(request.param, request, tmp_path)


@pytest_asyncio.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """An open store with a prefix of its own."""
    async with backend.make() as opened:
        yield opened
