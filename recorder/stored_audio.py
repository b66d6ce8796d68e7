"""The samples of a finished recording, laid out as asked, from whatever the store has of them.

Best is an output that has the layout already: only the bytes that are wanted are read. Else the
chunks, where they were kept. Else other outputs, where they hold the tracks exactly: those of
single tracks, or a stereo output with no more than one track on each side. What would be only
nearly right, such as a mix that was limited, is not taken.

Outputs in FLAC are as good as those in WAV. Those in Opus, which is lossy, come behind the chunks,
and it is told that the audio was theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from recorder import layouts
from recorder.at_rest import AtRest, NoAudio, in_thread, same_bytes
from recorder.chunk_reader import BLOCK_SAMPLES, Planes
from recorder.chunks import Chunk
from recorder.containers import codec
from recorder.containers.wav import WAV, InvalidWav, parse_header
from recorder.render import Samples
from recorder.stored_chunks import StoredChunks, UnusableChunks
from recorder.stored_encoded import EncodedOutput
from uploader.checksum import crc64nvme, decode

PIECE_BYTES = 1024**2
"""Read of an output at a time."""

LayoutName = Literal["mono", "stereo", "track"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What is heard on which channel.

    Attributes:
        layout: `mono`, `stereo`, or `track`: single tracks, a channel each.
        tracks: Of the layout `track`: which, in order.
        declared: The tracks known from the beginning, for `stereo`.
    """

    layout: LayoutName
    tracks: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """How many."""
        return {"mono": 1, "stereo": 2, "track": len(self.tracks)}[self.layout]

    @property
    def name(self) -> str:
        """As results and manifests call it."""
        return ",".join(self.tracks) if self.layout == "track" else self.layout

    def render(self, planes: Planes) -> Samples:
        """Return samples laid out, shape (samples, channels)."""
        if self.layout == "stereo":
            return layouts.stereo(planes.samples, planes.tracks, self.declared)
        if self.layout == "mono":
            return layouts.mix(planes.samples).reshape(-1, 1)
        frames = np.zeros((planes.samples.shape[1], self.channels), np.int16)
        for channel, name in enumerate(self.tracks):
            if name in planes.tracks:  # or else it joins later
                frames[:, channel] = planes.samples[planes.tracks.index(name)]
        return frames


class Audio(Protocol):
    """Where samples come from.

    Attributes:
        source: What results call it.
        lossy: Whether samples are not those that were recorded, but what Opus has left of them.
    """

    source: str
    lossy: bool

    def blocks(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        """Yield samples [start, end), laid out, as 16-bit little-endian PCM.

        Raises:
            BotRecorderError: What is in the store is not what was recorded.
            StoreError: The store refuses, or does not answer.
        """
        ...


def find_audio(rest: AtRest, heard: Heard) -> Audio:
    """Return where samples of a layout are to be had.

    Raises:
        NoAudio: Nowhere.
    """
    outputs = {str(one.get("name")): one for one in rest.outputs() if _is_whole(rest, one)}
    name = heard.tracks[0] if heard.layout == "track" and len(heard.tracks) == 1 else heard.layout
    direct: _Output | EncodedOutput | None = None
    if name in outputs and outputs[name].get("layout") == heard.layout:
        direct = _output(rest, outputs[name])
        if not direct.lossy:
            return direct
    why = ""
    try:
        chunks = StoredChunks(rest, in_thread)
        chunks.check()
        return _Chunks(chunks, heard)
    except UnusableChunks as error:
        why = Exception.__str__(error)
    if direct is not None:
        return direct
    needed = heard.tracks if heard.layout == "track" else rest.tracks
    tracks = {name: one for name, one in outputs.items() if one.get("layout") == "track"}
    if needed and all(name in tracks for name in needed):
        return _Derived(rest, [(tracks[name], (name,)) for name in needed], heard)
    sides = _sides(rest.tracks, rest.plan.tracks)
    if "stereo" in outputs and all(len(side) <= 1 for side in sides):
        names = tuple(side[0] if side else "" for side in sides)
        return _Derived(rest, [(outputs["stereo"], names)], heard)
    if "mono" in outputs and len(rest.tracks) == 1:
        return _Derived(rest, [(outputs["mono"], rest.tracks)], heard)
    raise NoAudio(
        f"{heard.name} of recording {rest.plan.recording_id!r} cannot be had: it is no output that "
        f"is whole ({_there_is(rest, outputs)}), does not follow from those, and {why}"
    )


def _there_is(rest: AtRest, whole: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what outputs there are, and what of others has another size than it should."""
    folder = rest.plan.folder
    said = [
        "there is "
        + (", ".join(str(one["key"]).removeprefix(folder) for one in whole.values()) or "none")
    ]
    for one in rest.outputs():
        info = rest.objects.get(str(one.get("key")))
        if info is not None and one.get("name") not in whole:
            name, told = info.key.removeprefix(folder), one.get("bytes")
            said.append(f"{name} has {info.size} bytes, and {told} by the manifest")
    return "; ".join(said)


def _sides(tracks: Sequence[str], declared: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return which tracks a stereo output has on the left and on the right."""
    marked = np.zeros((len(tracks), len(tracks)), np.int16)
    np.fill_diagonal(marked, 1)
    heard = layouts.stereo(marked, tracks, declared)
    return tuple(
        tuple(name for index, name in enumerate(tracks) if heard[index, side]) for side in (0, 1)
    )


def _is_whole(rest: AtRest, output: Mapping[str, Any]) -> bool:
    info = rest.objects.get(str(output.get("key")))
    if info is None or info.size != output.get("bytes"):
        return False
    size = WAV.header_bytes + 2 * _channels(output) * rest.samples
    return rest.plan.format != WAV.name or info.size == size


def _channels(output: Mapping[str, Any]) -> int:
    return 2 if output.get("layout") == "stereo" else 1


def _output(rest: AtRest, output: Mapping[str, Any]) -> _Output | EncodedOutput:
    """Return what reads an output that is whole."""
    key, channels = str(output["key"]), _channels(output)
    try:
        checksum = decode(str(output.get("checksum")))
    except ValueError:
        checksum = None
    if (compressed := codec(rest.plan.format)) is None:
        return _Output(rest, key, checksum, channels)
    return EncodedOutput(rest, key, checksum, channels, compressed)


class _Output:
    """An output in WAV that has the layout."""

    source = "output"
    lossy = False

    def __init__(self, rest: AtRest, key: str, checksum: int | None, channels: int) -> None:
        self._rest = rest
        self._key = key
        self._channels = channels
        self._checksum = checksum

    @property
    def held_bytes(self) -> int:
        """What reading by `unreserved` holds."""
        return 2 * BLOCK_SAMPLES * 2 * self._channels

    async def unreserved(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        """Yield the same in blocks of `BLOCK_SAMPLES`; `held_bytes` are the caller's to reserve."""
        piece = BLOCK_SAMPLES * 2 * self._channels
        async with aclosing(self._read(start, end, piece, self._rest.pieces)) as blocks:
            async for block in blocks:
                yield block

    async def blocks(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        piece = PIECE_BYTES // (2 * self._channels) * 2 * self._channels
        async with aclosing(self._read(start, end, piece, self._rest.read)) as blocks:
            async for block in blocks:
                yield block

    async def _read(
        self,
        start: int,
        end: int,
        piece: int,
        read: Callable[[str, int, int, int], AsyncGenerator[bytes, None]],
    ) -> AsyncGenerator[memoryview, None]:
        rest, key = self._rest, self._key
        width = 2 * self._channels
        offset = await self._header()
        begin, until = offset + start * width, offset + end * width
        whole = (start, end) == (0, rest.samples)
        checksum = crc64nvme(await rest.get(key, 0, offset)) if whole else 0
        async with aclosing(read(key, begin, until, piece)) as pieces:
            async for body in pieces:
                if whole:
                    checksum = await asyncio.to_thread(crc64nvme, body, checksum)
                yield memoryview(body)
        if whole:
            same_bytes(key, self._checksum, checksum)

    async def _header(self) -> int:
        """Return where the samples begin, by a header that is what the manifest says."""
        rest, key = self._rest, self._key
        expected = WAV.header(rest.samples, rest.plan.sample_rate, self._channels)
        found = await rest.get(key, 0, len(expected))
        if found == expected:
            return len(expected)
        try:
            info = parse_header(found)
            said = f"{info.samples} samples of {info.channels} channels at {info.sample_rate} Hz"
        except InvalidWav as error:
            said = str(error)
        raise NoAudio(f"{key} does not begin as it was recorded: {said}")


class _Chunks:
    """The chunk objects."""

    source = "chunks"
    lossy = False

    def __init__(self, chunks: StoredChunks, heard: Heard) -> None:
        self._chunks = chunks
        self._heard = heard

    async def blocks(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        for chunk in self._chunks.listed:
            first, last = max(start, chunk.first_sample), min(end, chunk.end)
            if first >= last:
                continue
            async with self._chunks.held(chunk):
                frames = await self._frames(chunk)
                for begin in range(first, last, BLOCK_SAMPLES):
                    until = min(last, begin + BLOCK_SAMPLES)
                    block = frames[begin - chunk.first_sample : until - chunk.first_sample]
                    planes = Planes(block.T, chunk.tracks)
                    yield await asyncio.to_thread(_pcm, self._heard, planes)

    async def _frames(self, chunk: Chunk) -> Samples:
        if chunk.lost or not chunk.tracks:
            return np.zeros((chunk.samples, len(chunk.tracks)), np.int16)
        body = await self._chunks.fetch(chunk)
        width = len(chunk.tracks)
        offset = len(body) - 2 * width * chunk.samples
        return np.frombuffer(body, "<i2", offset=offset).reshape(-1, width)


class _Derived:
    """Other outputs that hold the tracks exactly."""

    def __init__(
        self,
        rest: AtRest,
        outputs: Sequence[tuple[Mapping[str, Any], tuple[str, ...]]],
        heard: Heard,
    ) -> None:
        self.source = ", ".join(
            str(output["key"]).removeprefix(rest.plan.folder) for output, _ in outputs
        )
        self._heard = heard
        self._budget = rest.context.budget
        self._outputs = [(_output(rest, output), names) for output, names in outputs]
        self.lossy = any(output.lossy for output, _ in self._outputs)
        named = [name for _, names in outputs for name in names if name]
        # Tracks in the order they joined: it tells the sides of stereo.
        self._tracks = tuple(name for name in rest.tracks if name in named)

    async def blocks(self, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        async with AsyncExitStack() as stack:
            streams = []
            # All together: one after the other, the last could wait for the first for ever.
            held = sum(one.held_bytes for one, _ in self._outputs)
            await stack.enter_async_context(self._budget.reserve(held))
            for output, names in self._outputs:
                blocks = output.unreserved(start, end)
                streams.append((await stack.enter_async_context(aclosing(blocks)), names))
            while True:
                rows: dict[str, Samples] = {}
                count = 0
                for blocks, names in streams:
                    block = await anext(blocks, None)
                    if block is None:
                        return
                    frames = np.frombuffer(block, "<i2").reshape(-1, len(names))
                    count = len(frames)
                    rows |= {name: frames[:, at] for at, name in enumerate(names) if name}
                planes = np.empty((len(self._tracks), count), np.int16)
                for row, name in zip(planes, self._tracks, strict=True):
                    row[:] = rows[name]
                yield await asyncio.to_thread(_pcm, self._heard, Planes(planes, self._tracks))


def _pcm(heard: Heard, planes: Planes) -> memoryview:
    return np.ascontiguousarray(heard.render(planes), dtype="<i2").data.cast("B")
