"""File formats of chunks and outputs: one module each, chosen by name.

A container holds samples as they are behind a header of fixed length: any byte of the file can be
made by itself. A codec compresses them one after the other: its bytes come in order.
"""

from __future__ import annotations

from typing import Protocol

from recorder.containers import wav
from recorder.containers.codecs import Codec, Encoder, Format, MissingCodec
from recorder.containers.flac import FLAC
from recorder.containers.opus import OPUS


class Container(Format, Protocol):
    """How interleaved 16-bit samples become a file: a header that is known once its length is."""

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
_CODECS: dict[str, Codec] = {codec.name: codec for codec in (FLAC, OPUS)}


def container(name: str) -> Container:
    """Return the container called `name`.

    Raises:
        ValueError: There is none.
    """
    try:
        return _CONTAINERS[name]
    except KeyError:
        known = ", ".join(sorted(_CONTAINERS))
        raise ValueError(f"no container is called {name!r}; there is {known}") from None


def output_format(name: str) -> Container | Codec:
    """Return the format called `name`, of those that outputs may have.

    Raises:
        ValueError: There is none.
    """
    found = _CONTAINERS.get(name) or _CODECS.get(name)
    if found is None:
        raise ValueError(f"no format is called {name!r}; there is {', '.join(format_names())}")
    return found


def codec(name: str) -> Codec | None:
    """Return the codec called `name`; None where the format is none, or not known."""
    return _CODECS.get(name)


def format_names() -> tuple[str, ...]:
    """Return the names of the formats that outputs may have; the simplest first."""
    return (*_CONTAINERS, *_CODECS)


__all__ = [
    "Codec",
    "Container",
    "Encoder",
    "Format",
    "MissingCodec",
    "codec",
    "container",
    "format_names",
    "output_format",
]
