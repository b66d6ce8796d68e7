"""The stores that the contract is tested on, and where they are known to differ from it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from uploader.local import LocalStore
from uploader.s3 import S3Store
from uploader.store import Store

MOTO_QUIRKS = {
    "checksum-not-compared": "moto takes any checksum for any bytes",
    "no-checksum": "moto keeps no CRC-64/NVME",
    "no-signatures": "moto takes any credentials",
    "upload-of-another-key": "moto takes an upload's id with any key",
    "racing-completes-500": "moto answers the later of two completes by an internal error",
}
SEAWEED_QUIRKS = {
    "order-by-folder": "SeaweedFS lists `a/b` before `a-b`: in order inside a folder only",
    "old-parts-live": "SeaweedFS completes with a part that was replaced",
    "part-times-in-seconds": "SeaweedFS does not tell which of two parts is the newer",
    "precondition-first": "SeaweedFS looks at If-Match before it looks for the bucket",
    "tags-of-folders": "SeaweedFS gives tags to a folder of objects, too",
    "empty-folders": "SeaweedFS lists a folder for a while after its last object",
}


@dataclass
class Backend:
    """One implementation of the store.

    Attributes:
        name: Its name.
        options: What `S3Store` needs to reach it; empty for the local directory.
        folder: The local directory's parent.
        quirks: Where it is known to break the contract, and how.
    """

    name: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    quirks: Mapping[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex}")

    def make(self, prefix: str | None = None, **changes: Any) -> Store:
        """Return a store on this backend, not opened."""
        prefix = self.prefix if prefix is None else f"{self.prefix}/{prefix}"
        if not self.options:
            return LocalStore(self.folder / changes.get("bucket", "root"), prefix)
        return S3Store(**{**self.options, "prefix": prefix, **changes})

    @contextlib.contextmanager
    def refuses(self, *errors: type[Exception], unless: str = "") -> Iterator[None]:
        """Expect an error; or, with the quirk `unless`, that there is none."""
        if unless and unless in self.quirks:
            yield  # if this starts to raise, the quirk is gone: take it from the list
        else:
            with pytest.raises(errors):
                yield
