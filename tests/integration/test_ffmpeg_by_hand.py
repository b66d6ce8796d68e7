"""What README tells to do with downloaded chunks and ffmpeg alone, and what does not work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from calls import RATE
from stored import LENGTH, STEREO, decoded, ffmpeg, local, path_of, record

from recorder.assemble import assemble
from recorder.containers.wav import HEADER_BYTES

PCM = ("-f", "s16le", "-ar", RATE, "-ac", 2)


@pytest.fixture
async def chunks(tmp_path: Path) -> Path:
    """A folder with the chunks of a recording, as they are downloaded."""
    await record(tmp_path, keep_chunks=True)
    return path_of(tmp_path, "chunks")


async def by_a_list(folder: Path, out: Path) -> None:
    """The concat demuxer: a list of files, each of which is opened by itself."""
    names = sorted(path.name for path in folder.glob("0*.wav"))
    (folder / "list.txt").write_text("".join(f"file '{name}'\n" for name in names))
    await ffmpeg("-f", "concat", "-i", "list.txt", "-c", "copy", out, cwd=folder)


async def by_raw_samples(folder: Path, out: Path) -> None:
    """The concat protocol: bytes one behind the other, and so only of what has no header."""
    names = []
    for path in sorted(folder.glob("0*.wav")):
        await ffmpeg("-i", path, *PCM[:2], path.with_suffix(".pcm"))
        names.append(path.with_suffix(".pcm").name)
    await ffmpeg(*PCM, "-i", "concat:" + "|".join(names), "-c", "copy", out, cwd=folder)


async def by_skipped_headers(folder: Path, out: Path) -> None:
    """The same of the chunks as they are: every header has the same length."""
    parts = [
        f"subfile,,start,{HEADER_BYTES},end,0,,:{path.name}" for path in sorted(folder.glob("0*"))
    ]
    await ffmpeg(*PCM, "-i", "concat:" + "|".join(parts), "-c", "copy", out, cwd=folder)


async def by_a_filter(folder: Path, out: Path) -> None:
    """The concat filter: each is decoded."""
    paths = sorted(folder.glob("0*.wav"))
    inputs = [word for path in paths for word in ("-i", path.name)]
    graph = "".join(f"[{index}:a]" for index in range(len(paths)))
    graph += f"concat=n={len(paths)}:v=0:a=1"
    await ffmpeg(*inputs, "-filter_complex", graph, out, cwd=folder)


@pytest.mark.parametrize("way", [by_a_list, by_raw_samples, by_skipped_headers, by_a_filter])
async def test_these_ways_give_the_same_audio_as_the_output(
    chunks: Path, tmp_path: Path, way: Callable[[Path, Path], Awaitable[None]]
) -> None:
    out = tmp_path / "out.wav"
    await way(chunks, out)
    heard = await decoded(out, 2)
    np.testing.assert_array_equal(heard, await decoded(path_of(tmp_path, "audio.wav"), 2))
    np.testing.assert_array_equal(heard, STEREO[:LENGTH])


async def test_the_concat_protocol_on_wav_files_ends_with_the_first(
    chunks: Path, tmp_path: Path
) -> None:
    """It is what the README warns of: the first header says how long the audio is."""
    names = sorted(path.name for path in chunks.glob("0*.wav"))
    out = tmp_path / "out.wav"
    await ffmpeg("-i", "concat:" + "|".join(names), "-c", "copy", out, cwd=chunks)
    np.testing.assert_array_equal(await decoded(out, 2), STEREO[:RATE])


async def test_assemble_gives_the_same_audio_as_ffmpeg(chunks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    await by_a_list(chunks, out)
    path_of(tmp_path, "audio.wav").unlink()
    async with local(tmp_path) as store:
        await assemble(store, "call")
    whole = await decoded(path_of(tmp_path, "audio.wav"), 2)
    np.testing.assert_array_equal(whole, await decoded(out, 2))
