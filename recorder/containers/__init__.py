"""File formats of chunks and outputs: one module each, chosen by name."""

from __future__ import annotations

from typing import Protocol

from recorder.containers import wav


class Container(Protocol):
    """How interleaved 16-bit samples become a file: a header that is known once its length is."""

    @property
    def name(self) -> str:
        """What settings and manifests call it, e.g. `wav`."""
        ...

    @property
    def extension(self) -> str:
        """Of file names, without the dot."""
        ...

    @property
    def media_type(self) -> str:
        """For Content-Type (RFC 9110, section 8.3)."""
        ...

    @property
    def header_bytes(self) -> int:
        """Length of every header, so that samples can be placed before it is written."""
        ...

    def header(self, samples: int, rate: int, channels: int) -> bytes:
        """Return the header of a file of `samples` frames of `channels` samples at `rate` hertz.

        Raises:
            ValueError: A number the format cannot hold.
        """
        ...


_CONTAINERS: dict[str, Container] = {wav.WAV.name: wav.WAV}


def container(name: str) -> Container:
    """Return the container called `name`.

    Raises:
        ValueError: There is none.
    """
    try:
        return _CONTAINERS[name]
    except KeyError:
        known = ", ".join(container_names())
        raise ValueError(f"no container is called {name!r}; there is {known}") from None


def container_names() -> tuple[str, ...]:
    """Return the names of all containers, sorted."""
    return tuple(sorted(_CONTAINERS))
