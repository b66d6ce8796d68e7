"""Where an object's bytes come from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from uploader.store import Body

LOOK_BYTES = 65_536
"""Of an object's beginning and end: what tells whether it holds the same as another."""


class Source(Protocol):
    """Where an object's bytes come from."""

    async def read(self, start: int, end: int, total: int | None) -> Body:
        """Return the object's bytes [start, end); `total` is its size once that is known."""
        ...


@runtime_checkable
class ManyFoldSource(Source, Protocol):
    """The same content may be other bytes, where another library made them."""

    def recognizes(self, head: bytes, tail: bytes) -> bool:
        """Return whether an object of other bytes holds the same: by its first and last ones.

        Asked only of what this recording's owners made; `LOOK_BYTES` of each, or all there are.
        """
        ...
