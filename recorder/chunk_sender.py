"""Puts sealed chunks into the store, oldest first, and gets them back from there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from recorder import events
from recorder.account import Account
from recorder.buffers import buffer
from recorder.chunk_reader import DamagedChunk, InThread
from recorder.chunks import Chunk
from recorder.shelf import ChunkShelf
from uploader.checksum import crc64nvme
from uploader.errors import NoSuchObject, TransientError
from uploader.store import Body


class ChunkSender:
    """Of one recording.

    Args:
        account: Of the recording.
        shelf: Knows which chunk is next; told of those that are nowhere.
        in_thread: Runs file work off the event loop.
        emit: Told of chunks that are in the store.

    Attributes:
        note: Told of each chunk and its bytes before they are sent, in a worker thread.
    """

    def __init__(
        self,
        account: Account,
        shelf: ChunkShelf,
        in_thread: InThread,
        emit: Callable[[events.Event], None],
    ) -> None:
        self.note: Callable[[Chunk, Body], None] | None = None
        self._account = account
        self._contents = account.contents
        self._context = account.context
        self._shelf = shelf
        self._in_thread = in_thread
        self._emit = emit

    async def send(self) -> None:
        """Send all that is sealed and not sent yet.

        Raises:
            DamagedChunk: A file has other bytes than were sealed.
            StoreError: Refused, or not to be had before the deadline.
        """
        sealed = self._contents.sealed
        while self._shelf.sent < len(sealed):
            async with self._context.budget.reserve(sealed[self._shelf.sent].bytes):
                with self._shelf.sending() as chunk:
                    if chunk is not None:
                        await self._send(chunk)

    async def _send(self, chunk: Chunk) -> None:
        context, key = self._context, self._account.plan.chunk_key(chunk)
        attributes = self._account.plan.chunk_attributes(chunk)
        path = self._contents.chunk_path(chunk)
        try:
            body = await self._in_thread(lambda: self._read_and_note(path, chunk))
        except (FileNotFoundError, NotADirectoryError):
            if not await self._is_stored(chunk):
                self._shelf.gone(chunk.number)
        else:
            await context.call(
                "put_chunk",
                lambda: context.store.put(key, body, attributes, checksum=chunk.checksum),
            )
            self._emit(events.ChunkUploaded(chunk, key, context.store.url(key)))

    def _read_and_note(self, path: Path, chunk: Chunk) -> Body:
        body = _read(path, chunk)
        if self.note is not None:
            self.note(chunk, body)
        return body

    async def _is_stored(self, chunk: Chunk) -> bool:
        """Return whether the store has a chunk that no manifest lists yet, and no file here."""
        try:
            return crc64nvme(await self.fetch(chunk)) == chunk.checksum
        except NoSuchObject:
            return False

    async def fetch(self, chunk: Chunk) -> bytes:
        """Return a chunk object's bytes, whatever they are.

        Raises:
            NoSuchObject: It is not in the store, for sure.
            StoreError: Refused, or not to be had before the deadline.
        """
        key, context = self._account.plan.chunk_key(chunk), self._context
        try:
            return await context.call("get_chunk", lambda: context.store.get(key))
        except NoSuchObject:
            # Audio is called lost only where two kinds of question are answered alike.
            if await context.call("list_objects", lambda: self._is_listed(key)):
                problem = f"{key} is listed, and cannot be read"
                raise TransientError(problem, op="get_chunk", key=key) from None
            raise

    async def _is_listed(self, key: str) -> bool:
        return any([info.key == key async for info in self._context.store.list_objects(key)])


def _read(path: Path, chunk: Chunk) -> Body:
    """Return a chunk file's bytes.

    Raises:
        DamagedChunk: They are not what was sealed: no store would take them, however often.
    """
    with path.open("rb", buffering=0) as file:
        body = buffer(os.fstat(file.fileno()).st_size)
        at = 0
        while at < len(body) and (count := file.readinto(body[at:])):
            at += count
    if crc64nvme(body) != chunk.checksum:
        raise DamagedChunk(
            f"{path} is not what was recorded",
            hint="look for errors of the disk, or of memory; nothing was sent or deleted",
        )
    return body
