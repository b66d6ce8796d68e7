"""What the probe finds out of real implementations."""

from __future__ import annotations

from backends import Backend

from uploader.probe import Capabilities, probe
from uploader.store import Store


async def test_each_implementation_is_probed_right(store: Store, backend: Backend) -> None:
    assert await probe(store, None, "token") == Capabilities(
        conditional_writes=True,
        checksums="no-checksum" not in backend.quirks,
        deletes=True,
        head=True,
    )
    assert [info.key async for info in store.list_objects()] == []
