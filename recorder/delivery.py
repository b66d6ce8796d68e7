"""Carries one recording from its chunks to the store: chunks, outputs, manifest, in a safe order.

Runs on the engine's loop. One task per recording does it all, each step from what is there: the
manifest before any audio, chunk objects oldest first, whole parts as they come, and when the
recording has stopped, the tail and part 1, the manifest that says the length is final, Complete,
the check, `completed`, and only then deletes. A step that fails for good is reported and tried
again with the next chunk, or at the stop.

A stop, a restart after a crash and a rescue by another host are the same code: the latter two
`adopt` what is there already, and finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger

from recorder import events
from recorder.account import Account
from recorder.afterwards import Afterwards
from recorder.chunk_reader import ChunkReader
from recorder.chunk_sender import ChunkSender
from recorder.chunks import Chunk, Contents
from recorder.completion import Completion
from recorder.deliverable import as_told, state_of
from recorder.engine import Engine
from recorder.manifest_writer import ManifestWriter
from recorder.open_chunk import OpenChunk
from recorder.output_maker import OutputMaker
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.result import RecordingResult, State
from recorder.shelf import ChunkShelf
from recorder.spool import Spool
from recorder.tally import Tally, refuse_gone
from recorder.turn_clips import TurnClips
from recorder.waiting import ended, first_of, raise_first
from uploader.context import Context
from uploader.errors import BotRecorderError
from uploader.manifest import LostOwnership, Stored
from uploader.probe import Capabilities


class Delivery:
    """One recording's way into the store.

    Args:
        plan: What is recorded.
        contents: Its chunks.
        context: Store, retries, budget.
        engine: Whose loop and threads this runs on.
        quota: Counts the bytes of chunk files.
        owner: Token of the recording's owner.
        emit: Told what happens.
        spool: Its local folder, if it has one here.
    """

    def __init__(
        self,
        plan: Plan,
        contents: Contents,
        context: Context,
        engine: Engine,
        quota: SpoolQuota,
        owner: str,
        emit: Callable[[events.Event], None],
        spool: Spool | None = None,
    ) -> None:
        self.seal_error: BotRecorderError | None = None
        self.ask: Callable[[], Awaitable[Capabilities]] | None = None
        self.finished = asyncio.Event()
        self.ended = asyncio.Event()
        self.holds: dict[object, int] = {}
        self.account = Account(plan, contents, context, spool.path if spool else None)
        self._contents = contents
        self._context = context
        self._engine = engine
        self._quota = quota
        self._emit = emit
        self._spool = spool
        self._log = logger.bind(recording_id=plan.recording_id)
        self.shelf = ChunkShelf(self.account, quota, emit, self._log)
        self.manifest = ManifestWriter(self.account, self.shelf, owner)
        self._sender = ChunkSender(self.account, self.shelf, engine.in_thread, emit)
        self.reader = self._reader(self.shelf.gone)
        self._pruned = 0
        self._maker = OutputMaker(self.account, self.reader, engine.encoding, quota, emit, spool)
        self._outputs = self.account.outputs
        self._clips = TurnClips(plan, contents.timeline, self._maker.make)
        self.account.clips = self._clips
        self.open_chunk = OpenChunk(self.account, self._is_caught_up, self.manifest.tell_marks)
        self._completion = Completion(
            self.account, self.manifest, self._sender, self._clips, self._make_tally()
        )
        self._afterwards = Afterwards(
            self.account,
            self.manifest,
            self.shelf,
            self.open_chunk,
            engine.in_thread,
            quota,
            emit,
            spool,
            self._unheld,
        )
        self._wake = asyncio.Event()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._adopted = False
        self._released = asyncio.Event()
        self._error: BotRecorderError | None = None

    def _reader(self, gone: Callable[[int], None]) -> ChunkReader:
        contents, in_thread = self._contents, self._engine.in_thread
        return ChunkReader(
            contents.sealed, contents.chunk_path, self._sender.fetch, in_thread, gone
        )

    def _make_tally(self) -> Tally | None:
        if not self.plan.peaks_samples_per_pixel:
            return None
        reader, in_thread = self._reader(refuse_gone), self._engine.in_thread
        tally = Tally(self.account, self.account.spool, reader, in_thread)
        self._sender.note = tally.note
        return tally

    @property
    def plan(self) -> Plan:
        """What is recorded."""
        return self.account.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        """Have it told exactly: before anything but a manifest was sent."""
        self.account.plan = plan
        self._maker.make_anew()

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find out what the store can do, and write the manifest, before any audio.

        Raises:
            KeyTaken: The id is in use in the bucket.
            StoreError: Refused, or not to be had before the deadline.
        """
        if self.ask is not None:
            self._context.capabilities = await self.ask()
        await self.manifest.create()

    async def adopt(
        self, stored: Stored, source: str, load: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Take over what an earlier process, or another host, has begun.

        Args:
            stored: The manifest as it stands; nothing may have been written since.
            source: From what it is recovered, for the manifest.
            load: Finds out what the contents are, once nobody else can change them.

        Raises:
            LostOwnership: Somebody else was quicker.
            StoreError: Refused, or not to be had before the deadline.
        """
        self._adopted = True
        document = stored.document
        self.account.inherit(document, source)
        await self.manifest.take_over(stored)
        if load is not None:
            await load()
        same = _same_chunks(document, self._contents.sealed)
        self.shelf.sent = max(same, self._contents.in_store)
        self.account.noted = self.shelf.sent
        self._maker.add_tracks()
        await self._maker.adopt(document)

    def expect_tracks(self, names: list[str]) -> None:
        """Name the tracks there are from the beginning: their uploads begin with the recording."""
        self._maker.expected = names

    async def run(self) -> None:
        """Deliver until the recording has stopped and is finished; then clean up."""
        beat = asyncio.ensure_future(self.manifest.show_life(self._idle))
        if self._spool is not None:
            self._quota.add(self.shelf)
        try:
            self.wake()  # the uploads begin with the recording
            while not self._stopping:
                await self._wake.wait()
                self._wake.clear()
                if not self._stopping:  # or else all that is left goes at once
                    await self._deliver_or_report()
                if not self._wake.is_set():
                    self._idle.set()
            self._idle.clear()
            result = await self._finish()
            if not result.durable:
                await self._afterwards.note(result)
            await ended(beat)
            self._end(result)
            await self._afterwards.write_vcon(result)
            await self._afterwards.clean_up(thorough=self._adopted)
        finally:
            self._quota.remove(self.shelf)
            beat.cancel()
            for output in self.account.deliverables():
                output.close()
            self._idle.set()
            self.ended.set()

    async def conclude(self) -> RecordingResult:
        """Finish a recording that nobody writes to any more, and clean up."""
        self._stopping = True
        await self.run()
        return self.unfinished()

    async def _deliver_or_report(self) -> None:
        try:
            await self.deliver()
        except Exception as error:  # whatever it is, the next chunk is another try
            self._report(as_told(error))

    def _end(self, result: RecordingResult) -> None:
        self._afterwards.result = result
        # Told first: who waits for the end finds its event delivered.
        self._emit(events.RecordingEnded(result))
        self.finished.set()

    def unfinished(self) -> RecordingResult:
        """Return the result of a recording that is still being delivered, or was cut off."""
        if self._afterwards.result is not None:
            return self._afterwards.result
        going_on = BotRecorderError("the upload is still going on")
        error = self._error or self._context.last_failure or going_on
        return self.account.result(State.PENDING, error)

    def wake(self) -> None:
        """There is something to deliver."""
        self._wake.set()
        self._more.set()
        self._idle.clear()

    def stop(self) -> None:
        """All is sealed: deliver what is left and finish."""
        self._stopping = True
        self.open_chunk.hurry()
        self._wake.set()
        self._more.set()

    async def settled(self) -> None:
        """Wait until everything sealed so far is delivered, or has failed for now."""
        await self._idle.wait()

    def released(self) -> None:
        """Let chunk files go that nobody holds any more."""
        self._released.set()
        self._wake.set()

    async def _unheld(self) -> None:
        """Wait until nobody holds chunk files any more."""
        while self.holds:
            self._released.clear()
            await self._released.wait()

    # -- while recording -----------------------------------------------------------------------

    async def deliver(self) -> None:
        """Bring the store up to what is sealed.

        Raises:
            BotRecorderError: What could not be done; the rest was.
        """
        if self.manifest.usurped is not None:
            return
        await self._begin()
        sealed = self._contents.sealed_samples
        results = await self._send_sealed(sealed)
        if not self._stopping:
            await self.manifest.write(State.RECORDING, if_new=True)
            if "turns" in self.plan.outputs:
                await self._clips.deliver(sealed)
        await self._prune()
        await self._engine.in_thread(self.shelf.restock)
        raise_first(results)

    async def _begin(self) -> None:
        """See to it that there is a manifest, and an output for each track there is by now."""
        if not self.manifest.created:
            await self.open()
        self._maker.add_tracks()

    def _is_caught_up(self) -> bool:
        created = self.manifest.created and self.manifest.usurped is None
        sent = self.shelf.sent == len(self._contents.sealed)
        return created and sent and not self._stopping

    async def _send_sealed(self, sealed: int) -> list[BaseException | None]:
        """Send chunks and whole parts; return what failed and was not reported yet.

        A part that hangs holds up no chunk: those that are sealed meanwhile are sent beside it.
        """
        parts = asyncio.gather(
            *(output.advance(sealed) for output in self._outputs), return_exceptions=True
        )
        refused: Exception | None = None
        try:
            self._more.set()
            while self._more.is_set():
                self._more.clear()
                refused = await self._try_chunks()
                if refused is not None and not parts.done():
                    self._report(as_told(refused))
                    refused = None
                await first_of(parts, self._more)
        finally:
            await ended(parts)
        return [refused, *parts.result()]

    async def _try_chunks(self) -> Exception | None:
        try:
            await self._sender.send()
        except Exception as error:  # whatever it is, the next chunk is another try
            return error
        return None

    async def _prune(self) -> None:
        """Delete the chunk files that are durable in the store and needed for nothing more.

        What no manifest of this owner lists may have come too late: whoever has taken the
        recording over did not see it.
        """
        keep_before = max([0, *(output.part_1_samples() for output in self._outputs)])
        sealed = self._contents.sealed_samples
        needed = [output.needed_from() for output in self._outputs]
        if "turns" in self.plan.outputs:
            needed.append(self._clips.needed_from(sealed))
        needed_from = min([sealed, *needed, *self.holds.values()])
        for chunk in self._contents.sealed[self._pruned : self.account.noted]:
            if chunk.end > needed_from:
                return
            if chunk.first_sample >= keep_before:
                await self._engine.in_thread(self.shelf.retire, chunk)
            self._pruned += 1

    async def make_room(self) -> None:
        """Delete all chunk files that are durable in the store, needed for parts or not."""
        while self.shelf.oldest_copy() is not None:
            await self._engine.in_thread(self.shelf.let_copy_go)

    def _report(self, error: BotRecorderError) -> None:
        self._error = error
        op = getattr(error, "op", "")
        self._log.error("{}: {}", op or "delivery", error)
        self._emit(events.UploadFailed(op, error, retrying=False))

    # -- the end -------------------------------------------------------------------------------

    async def _finish(self) -> RecordingResult:
        if not self._contents.finished:
            error = self.seal_error or BotRecorderError("the recording was cut off before its end")
            return self.account.result(State.PENDING, error)
        try:
            outcome = await self._complete()
        except LostOwnership as error:
            # Not a failure: what is in the spool goes beside what the new owner makes.
            self._report(error)
            return self.account.result(State.PENDING, error)
        except Exception as error:  # whatever it is, it is no success
            told = as_told(error)
            self._report(told)
            return self.account.result(state_of(told), told)
        if outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
            return self.account.result(outcome, None)
        failed = self.account.troubles()
        for reason in failed:
            self._report(reason)
        worst = next((one for one in failed if state_of(one) is outcome), None)
        return self.account.result(outcome, worst)

    async def _complete(self) -> State:
        samples = self._contents.sealed_samples
        if self.manifest.usurped is not None:
            raise self.manifest.usurped
        await self._begin()
        return await self._completion.run(samples, patient=self._adopted)


def _same_chunks(document: dict[str, Any], sealed: list[Chunk]) -> int:
    """Return how many chunks, from the first, a manifest lists just as they are."""
    count = 0
    for told, chunk in zip(document.get("chunks", []), sealed, strict=False):
        if told != chunk.to_dict():
            break
        count += 1
    return count
