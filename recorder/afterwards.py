"""What comes after a recording's end: its result in the spool, its vCon, and only then deletes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from loguru import logger

from recorder import events
from recorder.account import Account
from recorder.chunk_reader import InThread
from recorder.clean_up import CleanUp
from recorder.manifest_writer import ManifestWriter
from recorder.open_chunk import OpenChunk
from recorder.quota import SpoolQuota
from recorder.result import RecordingResult
from recorder.shelf import ChunkShelf
from recorder.spool import Spool
from uploader.errors import BotRecorderError


class Afterwards:
    """Of one recording.

    Args:
        account: Of the recording.
        manifest: Of the recording.
        shelf: Of its chunk files.
        open_chunk: Whose object nobody needs any more.
        in_thread: Runs file work off the event loop.
        quota: Gets back the bytes of files.
        emit: Told of a vCon that could not be written.
        spool: The recording's local folder, if it has one here.
        unheld: Waits until nobody reads chunk files any more.

    Attributes:
        result: What the recording came to, once it has ended; tells of leftovers as they are found.
    """

    def __init__(
        self,
        account: Account,
        manifest: ManifestWriter,
        shelf: ChunkShelf,
        open_chunk: OpenChunk,
        in_thread: InThread,
        quota: SpoolQuota,
        emit: Callable[[events.Event], None],
        spool: Spool | None,
        unheld: Callable[[], Awaitable[None]],
    ) -> None:
        self.result: RecordingResult | None = None
        self._account = account
        self._contents = account.contents
        self._context = account.context
        self._manifest = manifest
        self._shelf = shelf
        self._open_chunk = open_chunk
        self._in_thread = in_thread
        self._quota = quota
        self._emit = emit
        self._spool = spool
        self._unheld = unheld
        self._log = logger.bind(recording_id=account.plan.recording_id)

    async def note(self, result: RecordingResult) -> None:
        """Say in the spool, too, why the recording is still there."""
        spool = self._spool
        if spool is None:
            return

        def write() -> None:
            try:
                spool.write_json("result.json", result.to_dict())
            except OSError as error:
                self._log.error("cannot note the result in the spool: {}", error)

        await self._in_thread(write)

    async def write_vcon(self, result: RecordingResult) -> None:
        """Put a vCon beside a complete recording, if that was asked for; who stopped waits not."""
        plan = self._account.plan
        if not (plan.vcon and result.durable) or plan.continuation:
            return
        from recorder.vcon import write_vcon  # takes a while to import: only who uses it waits

        document = self._account.document(result.state, len(self._contents.sealed))
        try:
            await write_vcon(self._context.store, document, base_url=plan.web_url or None)
        except BotRecorderError as error:
            self._log.error("no vCon was written: {}", error)
            self._emit(events.UploadFailed("put_vcon", error, retrying=False))

    async def clean_up(self, *, thorough: bool) -> None:
        """Delete what the completed outputs make superfluous: chunk objects, then the spool.

        Args:
            thorough: Whether there may be more than this process knows of: look for it.
        """
        if self.result is None or not self.result.durable:
            return
        plan = self._account.plan
        clean_up = CleanUp(plan, self._context)
        await self._open_chunk.idle.wait()
        done = await clean_up.run(
            self._contents.sealed,
            self._account.outputs,
            thorough=thorough,
            also=[plan.open_chunk_key] if self._open_chunk.there else [],
        )
        if not set(self.result.leftovers).issuperset(clean_up.leftovers):
            self.result = self._account.with_leftovers(self.result, clean_up.leftovers)
            with suppress(BotRecorderError):  # it is said in the result and logged, too
                await self._manifest.write(self.result.state)
        await self._unheld()
        if done and self._spool is not None:
            spool = self._spool
            await self._in_thread(lambda: self._remove(spool))

    def _remove(self, spool: Spool) -> None:
        for chunk in self._contents.sealed:
            self._shelf.delete(chunk)
        spool.remove(self._quota)
