"""A finished recording's chunk objects: each is proved to be what was recorded before its use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from recorder.at_rest import AtRest
from recorder.chunk_reader import ChunkReader, InThread
from recorder.chunks import Chunk
from uploader.checksum import crc64nvme
from uploader.completion import RECORDING_ID
from uploader.errors import BotRecorderError, NoSuchObject
from uploader.store import ObjectInfo

_SHOWN = 5
_RESTORE = "restore it from an older version or a copy of the bucket; nothing was replaced"


class UnusableChunks(BotRecorderError):
    """Chunk objects are missing, damaged or another recording's."""


class StoredChunks:
    """Of one recording.

    Args:
        rest: The recording.
        in_thread: Runs work off the event loop.

    Attributes:
        listed: As the manifest lists them.
    """

    def __init__(self, rest: AtRest, in_thread: InThread) -> None:
        self.listed = rest.chunks()
        self._rest = rest
        self._in_thread = in_thread

    def check(self) -> None:
        """See whether all chunk objects are there, by the listing alone.

        Raises:
            UnusableChunks: They are not; or the list has a hole.
        """
        plan, objects = self._rest.plan, self._rest.objects
        position = self.listed[0].first_sample if self.listed else plan.first_sample
        for chunk in self.listed:
            if chunk.first_sample != position:
                raise UnusableChunks(
                    f"the manifest lists no chunk that begins at sample {position}"
                )
            position = chunk.end
        if position != plan.first_sample + self._rest.samples:
            raise UnusableChunks(
                f"the manifest lists chunks up to sample {position}, of {self._rest.samples}"
            )
        there = [chunk for chunk in self.listed if not chunk.lost]
        missing = [chunk for chunk in there if plan.chunk_key(chunk) not in objects]
        if missing and len(missing) == len(there):
            raise UnusableChunks(
                f"the chunks of recording {plan.recording_id!r} are not in the store",
                hint="they are kept after completion where RECORDER_KEEP_CHUNKS is true",
            )
        if missing:
            raise UnusableChunks(f"{_named(missing)} missing from {plan.folder}", hint=_RESTORE)
        for chunk in there:
            self._check_size(chunk, objects)

    def _check_size(self, chunk: Chunk, objects: Mapping[str, ObjectInfo]) -> None:
        key = self._rest.plan.chunk_key(chunk)
        if (size := objects[key].size) != chunk.bytes:
            problem = f"{key} has {size} bytes, and {chunk.bytes} by the manifest"
            raise UnusableChunks(problem, hint=_RESTORE)

    def held(self, chunk: Chunk) -> AbstractAsyncContextManager[None]:
        """Hold the bytes of a chunk, of what may be held."""
        return self._rest.context.budget.reserve(0 if chunk.lost else chunk.bytes)

    async def fetch(self, chunk: Chunk) -> bytes:
        """Return a chunk object's bytes.

        Raises:
            UnusableChunks: They are not what was recorded.
            StoreError: The store refuses, or does not answer.
        """
        rest = self._rest
        key = rest.plan.chunk_key(chunk)
        try:
            body, info = await rest.context.call("get_chunk", lambda: rest.store.read(key))
        except NoSuchObject as error:
            problem = f"{_named([chunk])} missing from {rest.plan.folder}"
            raise UnusableChunks(problem, hint=_RESTORE) from error
        checksum = await self._in_thread(lambda: crc64nvme(body))
        if len(body) == chunk.bytes and checksum == chunk.checksum:
            return body
        whose = info.metadata.get(RECORDING_ID, rest.plan.recording_id)
        if whose != rest.plan.recording_id:
            problem = f"{key} is a chunk of recording {whose!r}"
        elif len(body) != chunk.bytes:
            problem = f"{key} has {len(body)} bytes, and {chunk.bytes} by the manifest"
        else:
            problem = f"{key} has other bytes than were recorded: its checksum differs"
        raise UnusableChunks(problem, hint=_RESTORE)

    def reader(self) -> ChunkReader:
        """Return what reads samples of them; what is missing is an error."""

        def gone(number: int) -> None:  # `fetch` has its own word for it
            raise UnusableChunks(f"chunk {number} is missing", hint=_RESTORE)

        return ChunkReader(self.listed, _nowhere, self.fetch, self._in_thread, gone)


def _nowhere(chunk: Chunk) -> Path:
    """Return a file that is not there: all chunks are in the store."""
    return Path("/dev/null") / chunk.name


def _named(chunks: Sequence[Chunk]) -> str:
    names = ", ".join(str(chunk.number) for chunk in chunks[:_SHOWN])
    more = f" and {len(chunks) - _SHOWN} more" if len(chunks) > _SHOWN else ""
    return f"chunk {names} is" if len(chunks) == 1 else f"chunks {names}{more} are"
