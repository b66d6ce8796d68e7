"""ffmpeg as a child process: audio in by its standard input, a file or a stream out.

Nothing is read from either end faster than the other takes it: both are pipes of bounded buffers.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from uploader.errors import BotRecorderError

PIPE_BYTES = 64 * 1024
"""Read of a pipe at a time; twice as much may wait in it."""

_LAST_LINES = 8
_LINE_LENGTH = 300


class FfmpegError(BotRecorderError):
    """ffmpeg is not there, or failed."""


def find_ffmpeg() -> str:
    """Return the program's path: of `PATH`, else of the package `imageio-ffmpeg`.

    Raises:
        FfmpegError: It is in neither place.
    """
    if (found := shutil.which("ffmpeg")) is not None:
        return found
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:  # it is there, and has no program for this machine
        raise FfmpegError(
            "ffmpeg is neither on the PATH nor in the package imageio-ffmpeg",
            hint="install ffmpeg, or: pip install imageio-ffmpeg; --format wav does without",
        ) from error


async def run(
    arguments: Sequence[str | Path],
    audio: AsyncGenerator[memoryview, None],
    take: Callable[[bytes], Awaitable[None]] | None = None,
) -> None:
    """Run ffmpeg to its end, or kill it.

    Args:
        arguments: What follows the program's name.
        audio: Goes into its standard input.
        take: Given what comes out of its standard output.

    Raises:
        FfmpegError: It is not there, or did not succeed; with its last lines.
        Exception: Whatever `audio` or `take` raised.
    """
    process = await asyncio.create_subprocess_exec(
        find_ffmpeg(),
        *("-hide_banner", "-loglevel", "error", "-nostdin"),
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL if take is None else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=PIPE_BYTES,
        start_new_session=True,  # a terminal's Ctrl-C is this process's to answer
    )
    said: deque[str] = deque(maxlen=_LAST_LINES)
    work = [
        asyncio.ensure_future(_feed(process.stdin, audio)),
        asyncio.ensure_future(_listen(process.stderr, said)),
    ]
    if take is not None:
        work.append(asyncio.ensure_future(_drain(process.stdout, take)))
    try:
        await _all(work)
        await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await process.wait()
    if process.returncode or not work[0].result():
        lines = "; ".join(said) or "it said nothing"
        raise FfmpegError(f"ffmpeg failed with exit code {process.returncode}: {lines}")


async def _all(work: Sequence[asyncio.Future[bool]]) -> None:
    """Wait for all; the first that fails ends the waiting."""
    done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _feed(
    stdin: asyncio.StreamWriter | None, audio: AsyncGenerator[memoryview, None]
) -> bool:
    """Write all audio; return whether it was taken."""
    if stdin is None:
        raise RuntimeError("ffmpeg was started without an input")
    async with aclosing(audio):
        async for block in audio:
            for start in range(0, len(block), PIPE_BYTES):
                stdin.write(block[start : start + PIPE_BYTES])
                try:
                    await stdin.drain()
                except (BrokenPipeError, ConnectionResetError):  # its exit code says why
                    return False
    stdin.close()
    with suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()
    return True


async def _drain(
    stdout: asyncio.StreamReader | None, take: Callable[[bytes], Awaitable[None]]
) -> bool:
    if stdout is None:
        raise RuntimeError("ffmpeg was started without an output")
    while block := await stdout.read(PIPE_BYTES):
        await take(block)
    return True


async def _listen(stderr: asyncio.StreamReader | None, said: deque[str]) -> bool:
    """Keep the last lines of what it says."""
    if stderr is None:
        raise RuntimeError("ffmpeg was started without an error output")
    rest = b""
    while block := await stderr.read(PIPE_BYTES):
        *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
        rest = rest[-_LINE_LENGTH:]
        said.extend(_text(line) for line in lines if line.strip())
    if rest.strip():
        said.append(_text(rest))
    return True


def _text(line: bytes) -> str:
    return line.strip()[:_LINE_LENGTH].decode("utf-8", "replace")
