"""The final objects: what each is called, which samples it holds, and its bytes as a pure function.

An output's bytes are the container's header and then its layout's samples, rendered from chunks.
Any byte range can be made at any time from the chunks that cover it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recorder import layouts
from recorder.buffers import buffer
from recorder.chunk_reader import ChunkReader, Planes
from recorder.containers import Container, Format
from recorder.render import Samples
from uploader.store import Body

Layout = Literal["mono", "stereo", "track"]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output object.

    Attributes:
        name: What results and manifest call it.
        file: Its key below the recording's folder.
        layout: How tracks become channels.
        track: The track, for layout `track`.
        first_sample: Where on the recording's clock it begins.
        declared: The tracks known from the beginning, for layout `stereo`.
    """

    name: str
    file: str
    layout: Layout
    track: str = ""
    first_sample: int = 0
    declared: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of the object."""
        return 2 if self.layout == "stereo" else 1

    def render(self, planes: Planes) -> Samples:
        """Return the samples of all tracks laid out, shape (samples, channels)."""
        if self.layout == "stereo":
            return layouts.stereo(planes.samples, planes.tracks, self.declared)
        if self.layout == "mono":
            return layouts.mix(planes.samples).reshape(-1, 1)
        if self.track not in planes.tracks:  # it joined later
            return np.zeros((planes.samples.shape[1], 1), dtype=np.int16)
        return layouts.track(planes.samples, planes.tracks, self.track).reshape(-1, 1)

    def is_plain(self, tracks: Sequence[str]) -> bool:
        """Return whether frames of these tracks, interleaved, are this output's as they are."""
        if self.layout == "stereo":
            return layouts.is_stereo(tracks)
        return len(tracks) == 1 and self.track in ("", *tracks)


def mixed_outputs(
    names: Sequence[str],
    form: Format,
    first_sample: int = 0,
    declared: tuple[str, ...] = (),
) -> list[OutputSpec]:
    """Return the outputs made of all tracks together; the first is `audio`."""
    layouts_asked: list[Layout] = [layout for layout in ("stereo", "mono") if layout in names]
    specs = []
    for index, layout in enumerate(layouts_asked):
        stem = "audio" if index == 0 else layout
        file = f"{stem}.{form.extension}"
        spec = OutputSpec(layout, file, layout, first_sample=first_sample, declared=declared)
        specs.append(spec)
    return specs


def mixed_layout(names: Sequence[str]) -> Literal["mono", "stereo"]:
    """Return the layout of the output called `audio`, or of the one there would be."""
    return "mono" if "mono" in names and "stereo" not in names else "stereo"


def extra_output(
    layout: Literal["mono", "stereo"],
    form: Format,
    first_sample: int = 0,
    declared: tuple[str, ...] = (),
) -> OutputSpec:
    """Return a mixed output that a recording was not made with: it has its layout's name."""
    file = f"{layout}.{form.extension}"
    return OutputSpec(layout, file, layout, first_sample=first_sample, declared=declared)


def track_output(track: str, form: Format, first_sample: int = 0) -> OutputSpec:
    """Return the output of one track."""
    return OutputSpec(track, f"{track}.{form.extension}", "track", track, first_sample)


def turn_output(number: int, track: str, first_sample: int, form: Format) -> OutputSpec:
    """Return the output of one speaking turn."""
    name = f"turns/{number:04d}-{track}"
    return OutputSpec(name, f"{name}.{form.extension}", "track", track, first_sample)


class OutputSource:
    """An output's bytes, for `uploader.upload.Upload`.

    Args:
        spec: Which output.
        container: Its format.
        sample_rate: Hz.
        reader: Where samples come from.
    """

    def __init__(
        self, spec: OutputSpec, container: Container, sample_rate: int, reader: ChunkReader
    ) -> None:
        self._spec = spec
        self._container = container
        self._sample_rate = sample_rate
        self._reader = reader
        self._frame_bytes = 2 * spec.channels

    def size(self, samples: int) -> int:
        """Return the object's bytes when `samples` of it are there."""
        return self._container.header_bytes + samples * self._frame_bytes

    def samples_before(self, position: int) -> int:
        """Return the index, in this output, of the first sample that byte `position` needs."""
        return max(0, position - self._container.header_bytes) // self._frame_bytes

    async def reach(self, samples: int, sent: int) -> tuple[int, bool]:
        """Return how many bytes there are when `samples` are sealed, and that this is all."""
        return self.size(samples), True

    def sent(self, number: int) -> None:
        """Take note that a part is in the store."""

    def close(self) -> None:
        """Let go of nothing: nothing is held."""

    async def read(self, start: int, end: int, total: int | None) -> Body:
        """Return the object's bytes [start, end).

        Raises:
            ValueError: The header is asked for and the length is not known.
            StoreError: A chunk that is not here any more cannot be read from the store.
        """
        header_bytes, width = self._container.header_bytes, self._frame_bytes
        head = b""
        if start < header_bytes:
            if total is None:
                raise ValueError("the header is written when the length is known")
            samples = (total - header_bytes) // width
            header = self._container.header(samples, self._sample_rate, self._spec.channels)
            head = header[start:end]
        first = max(start, header_bytes) - header_bytes
        last = max(end, header_bytes) - header_bytes
        if first >= last:
            return head
        origin = self._spec.first_sample
        body = buffer(len(head) + last - first)
        body[: len(head)] = head
        target = body[len(head) :]
        if await self._reader.copy(origin * width + first, width, target, self._spec.is_plain):
            return body
        begin, until = first // width, -(-last // width)
        pcm = np.frombuffer(target, np.uint8)
        skipped = first - begin * width
        whole = (origin + begin, origin + until)

        def from_files() -> bool:
            at = -skipped
            try:
                for planes in self._reader.blocks(*whole):
                    at = self._lay_out(planes, pcm, at)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

        if not await self._reader.in_thread(from_files):
            planes = await self._reader.read(*whole)
            await self._reader.in_thread(lambda: self._lay_out(planes, pcm, -skipped))
        return body

    def _lay_out(self, planes: Planes, pcm: NDArray[np.uint8], at: int) -> int:
        """Put the planes' bytes, as the layout has them, where they belong; return their end.

        Args:
            planes: Samples.
            pcm: Where all bytes that are wanted go.
            at: Where in it these begin; what lies before its first byte, or behind its last, is
                not wanted.
        """
        laid = np.ascontiguousarray(self._spec.render(planes), dtype="<i2").reshape(-1)
        found = laid.view(np.uint8)
        end = at + len(found)
        pcm[max(0, at) : end] = found[max(0, -at) : len(pcm) - at]
        return end
