"""Carries one recording from its spool to the store: chunks, outputs, manifest, in a safe order.

Runs on the engine's loop. One task per recording does it all, each step from what is there: the
manifest before any audio, chunk objects oldest first, whole parts as they come, and when the
recording has stopped, the tail, part 1, Complete, the check, `completed`, and only then deletes.
A step that fails for good is reported and tried again with the next chunk, or at the stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from loguru import logger

from recorder import events
from recorder.chunk_reader import ChunkReader, Planes, joined
from recorder.deliverable import Deliverable, as_told, said, state_of
from recorder.engine import Engine
from recorder.outputs import OutputSpec, mixed_outputs, track_output
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.records import Record
from recorder.result import Gap, OutputResult, RecordingResult, State
from recorder.sealer import Chunk, Sealer
from recorder.spool import Spool
from recorder.turn_clips import TurnClips
from uploader.errors import BotRecorderError
from uploader.manifest import ManifestFile
from uploader.probe import Capabilities
from uploader.upload import Context

MAX_PARALLEL_DELETES = 8


class Delivery:
    """One recording's way into the store.

    Args:
        plan: What is recorded.
        spool: Its folder.
        sealer: Makes its chunks.
        context: Store, retries, budget.
        engine: Whose loop and threads this runs on.
        quota: Counts the bytes of chunk files.
        owner: Token of the recording's owner: this very session, not only this process.
        emit: Told what happens.
    """

    def __init__(
        self,
        plan: Plan,
        spool: Spool,
        sealer: Sealer,
        context: Context,
        engine: Engine,
        quota: SpoolQuota,
        owner: str,
        emit: Callable[[events.Event], None],
    ) -> None:
        self.plan = plan
        self.result: RecordingResult | None = None
        self.seal_error: BotRecorderError | None = None
        self.ask: Callable[[], Awaitable[Capabilities]] | None = None
        self.finished = asyncio.Event()
        self.ended = asyncio.Event()
        self.holds: dict[object, int] = {}
        self._spool = spool
        self._sealer = sealer
        self._context = context
        self._engine = engine
        self._quota = quota
        self._emit = emit
        self._manifest = ManifestFile(context, plan.manifest_key, owner)
        self.reader = ChunkReader(
            sealer.sealed, sealer.chunk_path, self._fetch_chunk, engine.in_thread
        )
        self._expected: list[str] = []
        self._uploaded = 0
        self._pruned = 0
        self._outputs: list[Deliverable] = [
            self._deliverable(spec) for spec in mixed_outputs(plan.outputs, plan.container)
        ]
        self._clips = TurnClips(plan, sealer.timeline, self._deliverable)
        self._sealing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._released = asyncio.Event()
        self._error: BotRecorderError | None = None
        self._log = logger.bind(recording_id=plan.recording_id)

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find out what the store can do, and write the manifest, before any audio.

        Raises:
            KeyTaken: The id is in use in the bucket.
            StoreError: Refused, or not to be had before the deadline.
        """
        if self.ask is not None:
            self._context.capabilities = await self.ask()
        await self._manifest.create(self._document(State.RECORDING))

    def expect_tracks(self, names: list[str]) -> None:
        """Name the tracks there are from the beginning: their uploads begin with the recording."""
        self._expected = names

    async def run(self) -> None:
        """Deliver until the recording has stopped and is finished; then clean up."""
        try:
            self._wake.set()  # the uploads begin with the recording
            self._idle.clear()
            while not self._stopping:
                await self._wake.wait()
                self._wake.clear()
                await self._deliver_or_report()
                if not self._wake.is_set():
                    self._idle.set()
            self._end(await self._finish())
            await self._clean_up()
        finally:
            self._idle.set()
            self.ended.set()

    async def _deliver_or_report(self) -> None:
        try:
            await self._deliver()
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
        return self._result(State.PENDING, self._error or self._context.last_failure or going_on)

    async def seal(
        self, now_ns: int, *, final: bool = False, rest: Sequence[tuple[Record, object]] = ()
    ) -> None:
        """Seal what is due and have it delivered.

        Args:
            now_ns: Now, ns after the recording's start.
            final: Nothing more will be written.
            rest: Records that no longer fit into the journal.

        Raises:
            SpoolFull: No room for a chunk; the next call tries again.
        """
        async with self._sealing:
            chunks = await self._engine.in_thread(self._step, now_ns, final, rest)
        if chunks or final:
            self._wake.set()
            self._idle.clear()

    def stop(self) -> None:
        """All is sealed: deliver what is left and finish."""
        self._stopping = True
        self._wake.set()

    async def settled(self) -> None:
        """Wait until everything sealed so far is delivered, or has failed for now."""
        await self._idle.wait()

    async def read(self, start: int, end: int, now_ns: int) -> Planes:
        """Return samples [start, end) of all tracks, sealed or not, as things stand at `now_ns`."""
        async with self._sealing:
            sealed = min(end, max(start, self._sealer.sealed_samples))
            preview = self._sealer.preview
            fresh = Planes(*await self._engine.in_thread(preview, sealed, end, now_ns))
        if start >= sealed:
            return fresh
        older = await self.reader.read(start, sealed)
        return joined(older, fresh)

    def released(self) -> None:
        """Let chunk files go that nobody holds any more."""
        self._released.set()
        self._wake.set()

    # -- while recording -----------------------------------------------------------------------

    def _step(self, now_ns: int, final: bool, rest: Sequence[tuple[Record, object]]) -> list[Chunk]:
        return self._sealer.step(now_ns, final=final, rest=rest)

    async def _deliver(self) -> None:
        """Bring the store up to what is sealed.

        Raises:
            BotRecorderError: What could not be done; the rest was.
        """
        if not self._manifest.created:
            await self.open()
        self._add_track_outputs()
        sealed = self._sealer.sealed_samples
        steps = [self._send_chunks(), *(output.advance(sealed) for output in self._outputs)]
        if "turns" in self.plan.outputs:
            steps.append(self._clips.deliver(sealed))
        results = await asyncio.gather(*steps, return_exceptions=True)
        await self._prune()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if not self._stopping:
            await self._manifest.write(self._document(State.RECORDING))

    async def _send_chunks(self) -> None:
        while self._uploaded < len(self._sealer.sealed):
            await self._send_chunk(self._sealer.sealed[self._uploaded])
            self._uploaded += 1

    async def _send_chunk(self, chunk: Chunk) -> None:
        context, key = self._context, self.plan.chunk_key(chunk.number)
        attributes = self.plan.chunk_attributes(chunk)
        async with context.budget.reserve(chunk.bytes):
            path = self._sealer.chunk_path(chunk.number)
            body = await self._engine.in_thread(path.read_bytes)
            await context.call(
                "put_chunk",
                lambda: context.store.put(key, body, attributes, checksum=chunk.checksum),
            )
        self._emit(events.ChunkUploaded(chunk, key, context.store.url(key)))

    async def _fetch_chunk(self, chunk: Chunk) -> bytes:
        key = self.plan.chunk_key(chunk.number)
        return await self._context.call("get_chunk", lambda: self._context.store.get(key))

    async def _prune(self) -> None:
        """Delete the chunk files that are durable in the store and needed for nothing more."""
        keep_before = max([0, *(output.part_1_samples() for output in self._outputs)])
        sealed = self._sealer.sealed_samples
        needed = [output.needed_from() for output in self._outputs]
        if "turns" in self.plan.outputs:
            needed.append(self._clips.needed_from(sealed))
        needed_from = min([sealed, *needed, *self.holds.values()])
        for chunk in self._sealer.sealed[self._pruned : self._uploaded]:
            if chunk.end > needed_from:
                return
            if chunk.first_sample >= keep_before:
                await self._engine.in_thread(self._drop_file, chunk)
            self._pruned = chunk.number

    def _drop_file(self, chunk: Chunk) -> None:
        self._sealer.chunk_path(chunk.number).unlink(missing_ok=True)
        self._quota.give(chunk.bytes)

    def _add_track_outputs(self) -> None:
        if "tracks" not in self.plan.outputs:
            return
        there = {output.spec.name for output in self._outputs}
        joined_later = [state.name for state in self._sealer.timeline.tracks]
        for name in dict.fromkeys([*self._expected, *joined_later]):
            if name not in there:
                self._outputs.append(self._deliverable(track_output(name, self.plan.container)))

    def _deliverable(self, spec: OutputSpec) -> Deliverable:
        return Deliverable(spec, self.plan, self._context, self.reader, self._emit)

    def _report(self, error: BotRecorderError) -> None:
        self._error = error
        op = getattr(error, "op", "")
        self._log.error("{}: {}", op or "delivery", error)
        self._emit(events.UploadFailed(op, error, retrying=False))

    # -- the end -------------------------------------------------------------------------------

    async def _finish(self) -> RecordingResult:
        if not self._sealer.finished:
            error = self.seal_error or BotRecorderError("the recording was cut off before its end")
            return await self._kept(self._result(State.PENDING, error))
        samples = self._sealer.sealed_samples
        try:
            if not self._manifest.created:
                await self.open()
            self._add_track_outputs()
            steps = [self._send_chunks(), *(output.finish(samples) for output in self._outputs)]
            if "turns" in self.plan.outputs:
                steps.append(self._clips.deliver(samples))
            results = await asyncio.gather(*steps, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            outcome = self._outcome()
            await self._manifest.write(self._document(outcome))
        except Exception as error:  # whatever it is, it is no success
            told = as_told(error)
            self._report(told)
            return await self._kept(self._result(state_of(told), told))
        if outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
            return self._result(outcome, None)
        failed = [output.error for output in self._all_outputs() if output.error is not None]
        for reason in failed:
            self._report(reason)
        return await self._kept(self._result(outcome, failed[0]))

    def _all_outputs(self) -> list[Deliverable]:
        return [*self._outputs, *self._clips.clips]

    def _outcome(self) -> State:
        states = {output.result().state for output in self._all_outputs()}
        for worst in (State.FAILED, State.PENDING):
            if worst in states:
                return worst
        return State.COMPLETED_WITH_GAPS if self._sealer.timeline.lost else State.COMPLETED

    async def _kept(self, result: RecordingResult) -> RecordingResult:
        """Say in the spool, too, why the recording is still there."""

        def note() -> None:
            try:
                self._spool.write_json("result.json", result.to_dict())
            except OSError as error:
                self._log.error("cannot note the result in the spool: {}", error)

        await self._engine.in_thread(note)
        return result

    async def _clean_up(self) -> None:
        """Delete what the completed outputs make superfluous: chunk objects, then the spool."""
        if self.result is None or not self.result.durable:
            return
        if not self.plan.keep_chunks and self._context.capabilities.deletes:
            slots = asyncio.Semaphore(MAX_PARALLEL_DELETES)
            numbers = [chunk.number for chunk in self._sealer.sealed]
            results = await asyncio.gather(
                *(self._delete_chunk(number, slots) for number in numbers), return_exceptions=True
            )
            failed = [result for result in results if isinstance(result, BaseException)]
            if failed:
                self._log.warning(
                    "{} chunk objects could not be deleted: {}", len(failed), failed[0]
                )
        while self.holds:
            self._released.clear()
            await self._released.wait()
        await self._engine.in_thread(self._remove_spool)

    async def _delete_chunk(self, number: int, slots: asyncio.Semaphore) -> None:
        key = self.plan.chunk_key(number)
        async with slots:
            await self._context.call("delete", lambda: self._context.store.delete(key))

    def _remove_spool(self) -> None:
        for chunk in self._sealer.sealed:
            if self._sealer.chunk_path(chunk.number).exists():
                self._drop_file(chunk)
        self._sealer.discard()
        self._spool.remove()

    # -- what is said of it ----------------------------------------------------------------------

    def _gaps(self) -> list[Gap]:
        timeline = self._sealer.timeline
        return [Gap(lost.track, lost.start, lost.end, lost.reason) for lost in list(timeline.lost)]

    def _result(self, state: State, error: BotRecorderError | None) -> RecordingResult:
        samples = self._sealer.sealed_samples
        reason, hint = said(error)
        outputs: list[OutputResult] = []
        for output in self._all_outputs():
            one = output.result()
            if one.state is not State.COMPLETED and not one.reason:
                one = replace(one, reason=reason, hint=hint)
            outputs.append(one)
        durable = state in (State.COMPLETED, State.COMPLETED_WITH_GAPS)
        return RecordingResult(
            recording_id=self.plan.recording_id,
            state=state,
            url=self._context.store.url(self.plan.folder),
            duration_seconds=self.plan.seconds(samples),
            samples=samples,
            sample_rate=self.plan.sample_rate,
            chunks=len(self._sealer.sealed),
            outputs=tuple(outputs),
            gaps=tuple(self._gaps()),
            spool=None if durable else str(self._spool.path),
            reason=reason,
            hint=hint,
            counts=dict(self._context.counts),
        )

    def _document(self, state: State) -> dict[str, Any]:
        """Return the manifest's content."""
        timeline, sealed = self._sealer.timeline, self._sealer.sealed[: self._uploaded]
        samples = sealed[-1].end if sealed else 0
        return {
            "state": str(state),
            **self.plan.to_dict(),
            "samples": samples,
            "duration_seconds": self.plan.seconds(samples),
            "tracks": [
                {"name": track.name, "source": track.source} for track in list(timeline.tracks)
            ],
            "chunks": [chunk.to_dict() for chunk in sealed],
            "chunks_kept": self.plan.keep_chunks or not self._context.capabilities.deletes,
            "outputs": [output.to_dict() for output in self._outputs],
            "turns": self._clips.to_list(),
            "pauses": [list(pause) for pause in timeline.pauses],
            "gaps": [
                {"track": gap.track, "start": gap.start, "end": gap.end, "reason": gap.reason}
                for gap in self._gaps()
            ],
            "conditional_writes": self._context.capabilities.conditional_writes,
        }
