"""Carries one recording from its chunks to the store: chunks, outputs, manifest, in a safe order.

Runs on the engine's loop. One task per recording does it all, each step from what is there: the
manifest before any audio, chunk objects oldest first, whole parts as they come, and when the
recording has stopped, the tail and part 1, the manifest that says the length is final, Complete,
the check, `completed`, and only then deletes. A step that fails for good is reported and tried
again with the next chunk, or at the stop.

Nobody completes an object before a manifest that was won by compare-and-swap fixes its length: an
owner that was taken over cannot complete any more, and whoever goes on makes the same bytes.

A stop, a restart after a crash and a rescue by another host are the same code: the latter two
`adopt` what is there already, and finish.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger

from recorder import events
from recorder.account import Account
from recorder.buffers import buffer
from recorder.chunk_reader import ChunkReader, DamagedChunk
from recorder.chunks import Chunk, Contents
from recorder.clean_up import CleanUp
from recorder.deliverable import Deliverable, as_told, state_of
from recorder.encoded_parts import EncodedParts
from recorder.engine import Engine
from recorder.open_chunk import OpenChunk
from recorder.outputs import OutputSpec, mixed_outputs, track_output
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.result import RecordingResult, State
from recorder.shelf import ChunkShelf
from recorder.spool import Spool
from recorder.tally import Tally, refuse_gone
from recorder.turn_clips import TurnClips
from uploader.checksum import crc64nvme
from uploader.context import Context
from uploader.errors import BotRecorderError, NoSuchObject, StoreError, TransientError
from uploader.manifest import LostOwnership, ManifestFile, Stored
from uploader.probe import Capabilities
from uploader.store import Body

QUIET_CHUNKS = 1.5
"""Chunk lengths without a write of the manifest after which its owner shows that it is alive."""

LONGEST_QUIET_SECONDS = 60.0
"""However long chunks are: who goes on after this owner knows only what the manifest says."""


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
        self.result: RecordingResult | None = None
        self.seal_error: BotRecorderError | None = None
        self.usurped: LostOwnership | None = None
        self.ask: Callable[[], Awaitable[Capabilities]] | None = None
        self.finished = asyncio.Event()
        self.ended = asyncio.Event()
        self.holds: dict[object, int] = {}
        self.manifest = ManifestFile(context, plan.manifest_key, owner)
        self.account = Account(plan, contents, context, spool.path if spool else None)
        self._contents = contents
        self._context = context
        self._engine = engine
        self._quota = quota
        self._emit = emit
        self._spool = spool
        self._log = logger.bind(recording_id=plan.recording_id)
        self.shelf = ChunkShelf(self.account, quota, emit, self._log)
        self.reader = ChunkReader(
            contents.sealed,
            contents.chunk_path,
            self._fetch_chunk,
            engine.in_thread,
            self.shelf.gone,
        )
        self._tally: Tally | None = None
        if plan.peaks_samples_per_pixel:
            reader = ChunkReader(
                contents.sealed,
                contents.chunk_path,
                self._fetch_chunk,
                engine.in_thread,
                refuse_gone,
            )
            folder = spool.path if spool else None
            self._tally = Tally(self.account, folder, reader, engine.in_thread)
        self._expected: list[str] = []
        self._pruned = 0
        self._outputs = self.account.outputs
        for spec in mixed_outputs(plan.outputs, plan.output_format, plan.first_sample, plan.tracks):
            self._outputs.append(self._deliverable(spec))
        self._clips = TurnClips(plan, contents.timeline, self._deliverable)
        self.account.clips = self._clips
        self.open_chunk = OpenChunk(self.account, self._is_caught_up, self._tell_marks)
        self._marks: object = None
        self._writing = asyncio.Lock()
        self._written_at = 0.0
        self._wake = asyncio.Event()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._adopted = False
        self._concluded = False
        self._released = asyncio.Event()
        self._error: BotRecorderError | None = None

    @property
    def plan(self) -> Plan:
        """What is recorded."""
        return self.account.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        """Have it told exactly: before anything but a manifest was sent."""
        self.account.plan = plan
        self._outputs[:] = [self._deliverable(output.spec) for output in self._outputs]

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find out what the store can do, and write the manifest, before any audio.

        Raises:
            KeyTaken: The id is in use in the bucket.
            StoreError: Refused, or not to be had before the deadline.
        """
        if self.ask is not None:
            self._context.capabilities = await self.ask()
        await self.manifest.create(self.account.document(State.RECORDING, 0))
        self._written_at = time.monotonic()

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
        await self.manifest.take_over(stored, {"recovered": self.account.recovered})
        if load is not None:
            await load()
        same = _same_chunks(document, self._contents.sealed)
        self.shelf.sent = max(same, self._contents.in_store)
        self.account.noted = self.shelf.sent
        self._add_track_outputs()
        by_name = {output.spec.name: output for output in self._outputs}
        for told in document.get("outputs", []):
            output = by_name.get(told.get("name"))
            if output is not None:
                await output.adopt(told)

    def expect_tracks(self, names: list[str]) -> None:
        """Name the tracks there are from the beginning: their uploads begin with the recording."""
        self._expected = names

    async def run(self) -> None:
        """Deliver until the recording has stopped and is finished; then clean up."""
        beat = asyncio.ensure_future(self._show_life())
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
            await _ended(beat)
            self._end(result)
            await self._write_vcon(result)
            await self._clean_up()
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
        self.result = result
        # Told first: who waits for the end finds its event delivered.
        self._emit(events.RecordingEnded(result))
        self.finished.set()

    def unfinished(self) -> RecordingResult:
        """Return the result of a recording that is still being delivered, or was cut off."""
        if self.result is not None:
            return self.result
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

    # -- while recording -----------------------------------------------------------------------

    async def deliver(self) -> None:
        """Bring the store up to what is sealed.

        Raises:
            BotRecorderError: What could not be done; the rest was.
        """
        if self.usurped is not None:
            return
        if not self.manifest.created:
            await self.open()
        self._add_track_outputs()
        sealed = self._contents.sealed_samples
        results = await self._send_sealed(sealed)
        if not self._stopping:
            await self._write_manifest(State.RECORDING, if_new=True)
            if "turns" in self.plan.outputs:
                await self._clips.deliver(sealed)
        await self._prune()
        await self._engine.in_thread(self.shelf.restock)
        _raise_first(results)

    async def _write_manifest(self, state: State, *, if_new: bool = False) -> None:
        """Say in the store how things stand.

        Args:
            state: Of the recording.
            if_new: Not where it has been said already.

        Raises:
            LostOwnership: Somebody else has taken the recording over: nothing is sent any more.
            StoreError: Refused, or not to be had before the deadline.
        """
        if self.usurped is not None:
            raise self.usurped
        async with self._writing:
            if state is State.RECORDING and self._concluded:
                return  # a sign of life that comes late must not take back what was said
            self._concluded = state is not State.RECORDING
            uploaded, marks = self.shelf.sent, self.account.marks()
            try:
                document = self.account.document(state, uploaded)
                written = await self.manifest.write(document, if_new=if_new)
            except LostOwnership as error:
                self.usurped = error
                raise
            self.account.noted = uploaded
            self._marks = marks
            if written:
                self._written_at = time.monotonic()

    def _is_caught_up(self) -> bool:
        created = self.manifest.created and self.usurped is None
        sent = self.shelf.sent == len(self._contents.sealed)
        return created and sent and not self._stopping

    async def _tell_marks(self) -> None:
        """Write the manifest if it does not tell of all turns, gaps and tracks there are by now."""
        if self.account.marks() != self._marks:
            await self._write_manifest(State.RECORDING)

    async def _show_life(self) -> None:
        """Write the manifest where sending takes long: who does not is taken over at some time."""
        seconds = self.plan.seconds(self.plan.chunk_samples)
        longest = min(QUIET_CHUNKS * seconds, LONGEST_QUIET_SECONDS)
        while True:
            await asyncio.sleep(longest / 3)
            quiet = time.monotonic() - self._written_at
            if self.manifest.created and not self._idle.is_set() and quiet > longest:
                with suppress(BotRecorderError):  # what it means is found by who sends
                    await self._write_manifest(State.RECORDING)

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
                await _first_of(parts, self._more)
        finally:
            await _ended(parts)
        return [refused, *parts.result()]

    async def _try_chunks(self) -> Exception | None:
        try:
            await self._send_chunks()
        except Exception as error:  # whatever it is, the next chunk is another try
            return error
        return None

    async def _send_chunks(self) -> None:
        sealed = self._contents.sealed
        while self.shelf.sent < len(sealed):
            async with self._context.budget.reserve(sealed[self.shelf.sent].bytes):
                with self.shelf.sending() as chunk:
                    if chunk is not None:
                        await self._send_chunk(chunk)

    async def _send_chunk(self, chunk: Chunk) -> None:
        context, key = self._context, self.plan.chunk_key(chunk)
        attributes = self.plan.chunk_attributes(chunk)
        path = self._contents.chunk_path(chunk)
        try:
            body = await self._engine.in_thread(self._read_and_note, path, chunk)
        except (FileNotFoundError, NotADirectoryError):
            if not await self._is_stored(chunk):
                self.shelf.gone(chunk.number)
        else:
            await context.call(
                "put_chunk",
                lambda: context.store.put(key, body, attributes, checksum=chunk.checksum),
            )
            self._emit(events.ChunkUploaded(chunk, key, context.store.url(key)))

    def _read_and_note(self, path: Path, chunk: Chunk) -> Body:
        body = _read_chunk(path, chunk)
        if self._tally is not None:
            self._tally.note(chunk, body)
        return body

    async def _is_stored(self, chunk: Chunk) -> bool:
        """Return whether the store has a chunk that no manifest lists yet, and no file here."""
        try:
            return crc64nvme(await self._fetch_chunk(chunk)) == chunk.checksum
        except NoSuchObject:
            return False

    async def _fetch_chunk(self, chunk: Chunk) -> bytes:
        key, context = self.plan.chunk_key(chunk), self._context
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

    def _add_track_outputs(self) -> None:
        if "tracks" not in self.plan.outputs:
            return
        there = {output.spec.name for output in self._outputs}
        joined_later = [state.name for state in self._contents.timeline.tracks]
        for name in dict.fromkeys([*self._expected, *joined_later]):
            if name not in there:
                spec = track_output(name, self.plan.output_format, self.plan.first_sample)
                self._outputs.append(self._deliverable(spec))

    def _deliverable(self, spec: OutputSpec) -> Deliverable:
        return Deliverable(
            spec,
            self.plan,
            self._context,
            self.reader,
            self._emit,
            self._keep,
            self._engine.encoding,
        )

    def _keep(self, file: str) -> EncodedParts:
        folder = None if self._spool is None else self._spool.encoded
        return EncodedParts(folder, file, self._quota)

    def _report(self, error: BotRecorderError) -> None:
        self._error = error
        op = getattr(error, "op", "")
        self._log.error("{}: {}", op or "delivery", error)
        self._emit(events.UploadFailed(op, error, retrying=False))

    # -- the end -------------------------------------------------------------------------------

    async def _finish(self) -> RecordingResult:
        if not self._contents.finished:
            error = self.seal_error or BotRecorderError("the recording was cut off before its end")
            return await self._kept(self.account.result(State.PENDING, error))
        try:
            outcome = await self._complete()
        except LostOwnership as error:
            # Not a failure: what is in the spool goes beside what the new owner makes.
            self._report(error)
            return await self._kept(self.account.result(State.PENDING, error))
        except Exception as error:  # whatever it is, it is no success
            told = as_told(error)
            self._report(told)
            return await self._kept(self.account.result(state_of(told), told))
        if outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
            return self.account.result(outcome, None)
        failed = self._troubles()
        for reason in failed:
            self._report(reason)
        worst = next((one for one in failed if state_of(one) is outcome), None)
        return await self._kept(self.account.result(outcome, worst))

    def _troubles(self) -> list[BotRecorderError]:
        return [one.error for one in self.account.deliverables() if one.error is not None]

    async def _complete(self) -> State:
        """Send what is left, complete all outputs, and return what came of it.

        Raises:
            BotRecorderError: It could not be done; nothing was deleted.
        """
        samples = self._contents.sealed_samples
        if self.usurped is not None:
            raise self.usurped
        if not self.manifest.created:
            await self.open()
        self._add_track_outputs()
        parts = asyncio.gather(
            *(output.prepare(samples) for output in self._outputs), return_exceptions=True
        )
        try:
            await self._fix_length()
        except StoreError as error:  # maybe for want of the time that an output's trouble took
            await parts
            raise next(iter(self._troubles()), error) from error
        except BaseException:  # who was taken over sends nothing more
            await _ended(parts)
            raise
        _raise_first(await parts)
        steps = [output.finish(samples) for output in self._outputs]
        if "turns" in self.plan.outputs:
            steps.append(self._clips.deliver(samples))
        if self._tally is not None:  # its bytes are fixed, too, by now: whoever puts them
            self._tally.begin()
        try:
            _raise_first(await asyncio.gather(*steps, return_exceptions=True))
            outcome = self.account.outcome()
            if self._tally is not None and outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
                await self._tally.end(patient=self._adopted)
        finally:
            if self._tally is not None:
                await self._tally.drop()
        try:
            await self._write_manifest(outcome)
        except StoreError:
            # The outputs' own trouble says more: there may have been no time left for this.
            if outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
                raise
        return outcome

    async def _fix_length(self) -> None:
        """Send the chunks that are left, then say that there are no more: the fence.

        Parts are on their way meanwhile: who goes on from here compares what the store has of them.
        """
        await self._send_chunks()
        self.account.sealed = True
        await self._write_manifest(State.RECORDING)

    async def _kept(self, result: RecordingResult) -> RecordingResult:
        """Say in the spool, too, why the recording is still there."""
        spool = self._spool
        if spool is None:
            return result

        def note() -> None:
            try:
                spool.write_json("result.json", result.to_dict())
            except OSError as error:
                self._log.error("cannot note the result in the spool: {}", error)

        await self._engine.in_thread(note)
        return result

    async def _write_vcon(self, result: RecordingResult) -> None:
        """Put a vCon beside a complete recording, if that was asked for; who stopped waits not."""
        plan = self.plan
        if not (plan.vcon and result.durable) or plan.continuation:
            return
        from recorder.vcon import write_vcon  # takes a while to import: only who uses it waits

        document = self.account.document(result.state, len(self._contents.sealed))
        try:
            await write_vcon(self._context.store, document, base_url=plan.web_url or None)
        except BotRecorderError as error:
            self._log.error("no vCon was written: {}", error)
            self._emit(events.UploadFailed("put_vcon", error, retrying=False))

    async def _clean_up(self) -> None:
        """Delete what the completed outputs make superfluous: chunk objects, then the spool."""
        if self.result is None or not self.result.durable:
            return
        clean_up = CleanUp(self.plan, self._context)
        await self.open_chunk.idle.wait()
        done = await clean_up.run(
            self._contents.sealed,
            self._outputs,
            thorough=self._adopted,
            also=[self.plan.open_chunk_key] if self.open_chunk.there else [],
        )
        if not set(self.result.leftovers).issuperset(clean_up.leftovers):
            self.result = self.account.with_leftovers(self.result, clean_up.leftovers)
            with suppress(BotRecorderError):  # it is said in the result and logged, too
                await self._write_manifest(self.result.state)
        while self.holds:
            self._released.clear()
            await self._released.wait()
        if done and self._spool is not None:
            await self._engine.in_thread(self._remove_spool, self._spool)

    def _remove_spool(self, spool: Spool) -> None:
        for chunk in self._contents.sealed:
            self.shelf.delete(chunk)
        spool.remove(self._quota)


def _read_chunk(path: Path, chunk: Chunk) -> Body:
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


def _same_chunks(document: dict[str, Any], sealed: list[Chunk]) -> int:
    """Return how many chunks, from the first, a manifest lists just as they are."""
    count = 0
    for told, chunk in zip(document.get("chunks", []), sealed, strict=False):
        if told != chunk.to_dict():
            break
        count += 1
    return count


def _raise_first(results: list[BaseException | None]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _first_of(future: asyncio.Future[Any], event: asyncio.Event) -> None:
    """Wait for either."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([future, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _ended(work: asyncio.Future[Any]) -> None:
    """Cancel work, and wait until it has ended."""
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # seen, or else it is complained of
