"""An output's bytes are the same whether its chunks' frames will do as they are, or not."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.chunk_reader import ChunkReader
from recorder.chunks import Chunk
from recorder.containers import container
from recorder.outputs import OutputSource, OutputSpec
from uploader.errors import NoSuchObject

T = TypeVar("T")
RATE, SAMPLES = 8000, 50
WAV = container("wav")
SPECS = [
    OutputSpec("stereo", "audio.wav", "stereo"),
    OutputSpec("stereo", "audio.wav", "stereo", first_sample=30),
    OutputSpec("mono", "mono.wav", "mono"),
    OutputSpec("user", "user.wav", "track", "user"),
    OutputSpec("turns/0001-user", "turns/0001-user.wav", "track", "user", first_sample=70),
]


class Chunks:
    """Chunk files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sealed: list[Chunk] = []
        self.opened: list[str] = []
        self.reader = ChunkReader(self.sealed, self.path, self.fetch, self.in_thread, self.gone)

    def add(self, tracks: tuple[str, ...], samples: int = SAMPLES, *, lost: bool = False) -> None:
        channels = max(1, len(tracks))
        first = self.sealed[-1].end if self.sealed else 0
        draw = np.random.default_rng(first)
        frames = draw.integers(-9000, 9000, (samples, channels), dtype=np.int16)
        if not tracks:
            frames[:] = 0
        body = WAV.header(samples, RATE, channels) + frames.tobytes()
        chunk = Chunk(len(self.sealed) + 1, first, samples, tracks, len(body), 0, lost)
        self.sealed.append(chunk)
        (self.folder / chunk.name).write_bytes(body)

    def path(self, chunk: Chunk) -> Path:
        self.opened.append(chunk.name)
        return self.folder / chunk.name

    async def fetch(self, chunk: Chunk) -> bytes:
        raise NoSuchObject("there is no store", op="get", key=chunk.name)

    async def in_thread(self, function: Callable[[], T]) -> T:
        return function()

    def gone(self, number: int) -> None:
        self.sealed[number - 1] = Chunk(number, 0, 0, (), 0, 0, True)

    def read(self, spec: OutputSpec, start: int, end: int) -> bytes:
        source = OutputSource(spec, WAV, RATE, self.reader)
        total = source.size(self.sealed[-1].end - spec.first_sample)
        return bytes(asyncio.run(source.read(start, min(end, total), total)))

    def rendered(self, spec: OutputSpec, start: int, end: int) -> bytes:
        """The same from samples, the long way."""
        length = self.sealed[-1].end - spec.first_sample
        planes = asyncio.run(self.reader.read(spec.first_sample, self.sealed[-1].end))
        frames = np.ascontiguousarray(spec.render(planes), "<i2")
        return (WAV.header(length, RATE, spec.channels) + frames.tobytes())[start:end]


joins = st.sampled_from(
    [
        [("user", "bot")] * 3,
        [("user",)] * 3,
        [("user",), ("user", "bot"), ("user", "bot")],
        [(), ("bot",), ("bot", "user")],
        [("user", "bot"), ("user", "bot", "guest"), ("user", "bot", "guest")],
        [("user", "guest")] * 2,
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    tracks=joins,
    spec=st.sampled_from(SPECS),
    lost=st.sampled_from([None, None, None, 0, 1]),
    start=st.integers(0, 300),
    size=st.integers(1, 900),
)
def test_any_range_is_the_same_either_way(
    tracks: list[tuple[str, ...]], spec: OutputSpec, lost: int | None, start: int, size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chunks = Chunks(Path(folder))
        for index, names in enumerate(tracks):
            chunks.add(names, lost=index == lost)
        assert chunks.read(spec, start, start + size) == chunks.rendered(spec, start, start + size)


@pytest.mark.parametrize(
    ("tracks", "spec", "plain"),
    [
        (("user", "bot"), SPECS[0], True),
        (("user", "guest"), SPECS[0], True),
        (("bot", "user"), SPECS[0], False),
        (("user",), SPECS[0], False),
        (("user",), SPECS[2], True),
        (("user", "bot"), SPECS[2], False),
        (("user",), SPECS[3], True),
        (("bot",), SPECS[3], False),
        (("user", "bot"), SPECS[3], False),
    ],
)
def test_frames_that_will_do_as_they_are_are_not_rendered(
    tmp_path: Path, tracks: tuple[str, ...], spec: OutputSpec, plain: bool
) -> None:
    assert spec.is_plain(tracks) is plain
    chunks = Chunks(tmp_path)
    chunks.add(tracks)
    target = memoryview(bytearray(60))
    copied = asyncio.run(chunks.reader.copy(40, 2 * spec.channels, target, spec.is_plain))
    assert copied is plain
    if plain:
        assert bytes(target) == chunks.rendered(spec, WAV.header_bytes + 40, WAV.header_bytes + 100)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_file_that_is_not_whole_is_not_taken_as_it_is(tmp_path: Path, damage: str) -> None:
    chunks = Chunks(tmp_path)
    chunks.add(("user", "bot"))
    [path] = tmp_path.glob("*.wav")
    path.write_bytes(path.read_bytes()[:-8])
    target = memoryview(bytearray(4 * SAMPLES))
    if damage == "gone":
        path.unlink()
    assert not asyncio.run(chunks.reader.copy(0, 4, target, SPECS[0].is_plain))
