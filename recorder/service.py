"""`Recorder`: one per process. Settings, one shared store client, one engine, many sessions."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from loguru import logger

from recorder import shutdown
from recorder.backstage import SessionBackstage
from recorder.closing import Closing
from recorder.delivery import Delivery
from recorder.depot import Depot
from recorder.engine import Engine
from recorder.events import Event, UploadFailed
from recorder.journal import JournalWriter
from recorder.names import check_metadata, check_recording_id, check_tags, new_recording_id
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.recovered import Outcome, Recovered
from recorder.recovery import SpoolRecovery
from recorder.rescue import BucketRescue
from recorder.sealer import Sealer
from recorder.session import Session
from recorder.settings import Settings
from recorder.speakers import Track, check_tracks
from recorder.spool import RecordingExists, Spool, spool_bytes
from recorder.starting import Emit, OnEvent, Starting, handing_over
from recorder.stores import make_store
from recorder.ticker import Ticker
from uploader.budget import ByteBudget
from uploader.clock import Clock, SystemClock
from uploader.errors import BotRecorderError, StoreError, TransientError
from uploader.manifest import KeyTaken
from uploader.probe import Capabilities, probe
from uploader.retry import AttemptFailed, Deadline, Retrier, RetryPolicy
from uploader.store import Store

TELL_AFTER_ATTEMPTS = 3
"""Failed attempts in a row at one request before the user is told; every one is logged."""

ASSUMED = Capabilities(conditional_writes=True, checksums=True, deletes=True, head=True)
"""What is taken for granted of a store that cannot be asked yet."""

MISSING = {
    "conditional_writes": "has no conditional writes: only the recording's id guards its objects",
    "checksums": "tells no checksum of what it holds: objects are verified by size alone",
    "deletes": "does not allow deletes: chunk objects stay beside the outputs",
    "head": "does not allow looking at objects: what Complete answers is believed",
}
"""What it means for recordings when a store lacks a capability."""

LAST_SECONDS = 10.0
"""How long a drain may take beyond `drain_seconds`: what is cancelled then ends at once."""

DEFAULT_TRACKS = (Track("user", "capture"), Track("bot", "playout"))


class Recorder:
    """Records calls. Open it once in a process, with `async with`, and start sessions from it.

    Args:
        settings: Read from the environment if None.
        clock: Where time comes from; the system's clocks if None.
        store: Where recordings go, instead of the settings' bucket; opened and closed here.
        require_store: Whether a bucket that does not exist or may not be written to is an error
            here and at `start`. If not, it is logged and reported, and recording goes on into
            the spool.
        recover: Whether to finish, in the background, what earlier processes left in the spool,
            and what this one could not finish: now, and every `recover_seconds`.
        on_recovered: Called with each recording that was recovered so, on the event loop that
            opened the recorder.

    Raises:
        SettingsError: The environment is not right.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Clock | None = None,
        store: Store | None = None,
        require_store: bool = True,
        recover: bool = True,
        on_recovered: Callable[[Recovered], None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.clock: Clock = clock or SystemClock()
        self.store = store or make_store(self.settings)
        self.store_error: BotRecorderError | None = None
        self.capabilities = ASSUMED
        self._require_store = require_store
        self._engine: Engine | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._recover = recover
        self._on_recovered = on_recovered
        self._sessions: set[SessionBackstage] = set()
        self._depot: Depot | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._beginning: set[asyncio.Task[Any]] = set()
        self._closing: Closing | None = None

    # -- life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the engine and find out what the bucket can do.

        An endpoint that is down is no error: recording goes on into the spool until it is back.

        Raises:
            StoreError: The bucket is not there or may not be written to.
        """
        if self._engine is not None:
            raise RuntimeError("this recorder is open already")
        self._engine = engine = Engine()
        self._closing = None
        self._tell_recovered = handing_over(self._on_recovered)
        try:
            await engine.run(self._open())
        except BaseException:
            await self._close(0)
            raise
        shutdown.watch(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all sessions, wait up to `drain_seconds` for their uploads, and close."""
        await self.close()

    async def close(self, *, wait_seconds: float | None = None) -> None:
        """Do what leaving `async with` does. Idempotent.

        A cancel ends the waiting only: the recorder goes on closing. Called again after that, it
        leaves what is not uploaded yet in the spool, and closes at once.

        Args:
            wait_seconds: How long to wait for uploads; the settings' `drain_seconds` if None.
        """
        await self._close(self.settings.drain_seconds if wait_seconds is None else wait_seconds)

    async def _close(self, seconds: float) -> None:
        if (closing := self._end(seconds)) is not None:
            closing.begin()
        if self._closing is not None:
            await self._closing.wait()

    def drain(self) -> None:
        """End all sessions and close, waiting for it: where no event loop will run any more.

        Waits up to `drain_seconds`; what is left then stays in the spool, for recovery. Idempotent.
        """
        seconds = self.settings.drain_seconds
        if (closing := self._end(seconds)) is not None:
            closing.run()
        elif self._closing is not None:
            self._closing.join(seconds + LAST_SECONDS)

    def _end(self, seconds: float) -> Closing | None:
        """Return what closes the recorder, for who is the first to want it."""
        engine, self._engine = self._engine, None
        if engine is None:
            return None
        shutdown.forget(self)

        def close() -> None:
            engine.submit(self._shut(seconds)).result()
            engine.close()

        def hurry() -> None:
            for backstage in list(self._sessions):
                backstage.hurry()

        self._closing = Closing(close, lambda: engine.wake(hurry))
        return self._closing

    async def recover(
        self,
        *,
        bucket: bool = False,
        stale_after: float | None = None,
        wait: bool = True,
        dry_run: bool = False,
        unfenced: bool = False,
        on_recovered: Callable[[Recovered], None] | None = None,
        on_wait: Callable[[tuple[int, float]], None] | None = None,
    ) -> list[Recovered]:
        """Finish what dead processes left in the spool, and what lost hosts left in the bucket.

        A recording with a live owner is never touched. Any number of recorders, on any hosts, may
        do this at once: each recording is done once.

        Args:
            bucket: Look through the bucket, too, for recordings whose hosts are lost.
            stale_after: Seconds without a change, between two looks, after which the owner of a
                recording in the bucket counts as gone; three chunk lengths, and no less than
                15 s, if None.
            wait: Wait until every unfinished recording in the bucket has changed or is stale.
                If not, take over those that have not changed since an earlier call.
            dry_run: Only say what would be done.
            unfenced: Also take over where the bucket has no conditional writes and cannot tell
                two owners apart: only when the owners are gone for sure.
            on_recovered: Called with each recording as soon as it is done, on this event loop.
            on_wait: Called, before each wait for another look, with how many recordings it is for
                and how many seconds it takes; on this event loop.

        Returns:
            What was found and done; recordings that need nothing are not in it.

        Raises:
            StoreError: The bucket does not answer, or refuses.
            OSError: The spool cannot be read.
        """
        tell, tell_wait = handing_over(on_recovered), handing_over(on_wait)

        async def work() -> list[Recovered]:
            spool = self._spool_recovery
            found = await spool.run(
                stale_after if bucket else None, dry_run=dry_run, patient=not wait, tell=tell
            )
            if bucket:
                await self._asked()
                found += await self._rescue.sweep(
                    stale_after,
                    wait=wait,
                    dry_run=dry_run,
                    unfenced=unfenced,
                    tell=tell,
                    on_wait=tell_wait,
                )
            if bucket and wait:
                again = await spool.outwait(
                    found, stale_after, dry_run=dry_run, tell=tell, on_wait=tell_wait
                )
                anew = {one.recording_id for one in again}
                found = [one for one in found if one.recording_id not in anew] + again
            return found

        return await self.engine.run(work())

    def start(
        self,
        recording_id: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        tracks: Sequence[Track | str] = DEFAULT_TRACKS,
        outputs: Sequence[str] | None = None,
        sample_rate: int | None = None,
        began_at: float | None = None,
        imported: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
    ) -> Starting:
        """Start a recording: `async with recorder.start() as call`, or `call = await ...`.

        Args:
            recording_id: 1 to 100 of A-Z a-z 0-9 . _ -, unique; made from the time if None.
            metadata: User metadata of all objects, beside the settings' own.
            tags: Object tags, beside the settings' own.
            tracks: The tracks there are from the beginning; others join with their first frame.
            outputs: Which outputs, instead of the settings'.
            sample_rate: Hz, instead of the settings'.
            began_at: The clock's time of sample 0, seconds, if it lies before now: for frames
                that are handed over only once the recording has started, within a second, with
                the times at which they arrived (`at`). Now, if None.
            imported: Where the audio comes from, if it was recorded elsewhere: plain JSON types,
                which the manifest carries as they are.
            on_event: Called with each `recorder.events.Event`, on this event loop.

        Raises:
            InvalidName: A name, metadata or tag is not allowed.
            SettingsError: An output or a sample rate that is not allowed.
            RecordingExists: The id is in use in the spool or in the bucket.
            StoreError: The bucket refuses; not with `require_store=False`.
            SpoolFull: The spool cannot be written.
        """
        settings = self.settings
        if outputs is not None:
            settings = settings.replace(outputs=tuple(outputs))
        if sample_rate is not None:
            settings = settings.replace(sample_rate=sample_rate)
        now = self.clock.utc()
        name = new_recording_id(now) if recording_id is None else check_recording_id(recording_id)
        speakers = check_tracks(tracks)
        plan = Plan(
            recording_id=name,
            sample_rate=settings.sample_rate,
            chunk_samples=settings.chunk_samples,
            outputs=settings.outputs,
            format=settings.format,
            opus_bitrate=settings.opus_bitrate,
            part_bytes=settings.part_bytes,
            pre_roll_seconds=settings.pre_roll_seconds,
            keep_chunks=settings.keep_chunks,
            storage_class=settings.storage_class,
            metadata=check_metadata({**settings.metadata, **(metadata or {})}),
            tags=check_tags({**settings.tags, **(tags or {})}),
            day=f"{now.astimezone(UTC):%Y-%m-%d}",
            started_at=now.astimezone(UTC),
            location=str(settings.location),
            hold_back_seconds=settings.hold_back_seconds,
            stall_seconds=settings.stall_seconds,
            tracks=tuple(track.name for track in speakers),
            token=secrets.token_hex(8),
            peaks_samples_per_pixel=settings.peaks_samples_per_pixel if settings.peaks else 0,
            imported=dict(imported or {}),
            vcon=settings.vcon,
            web_url=(settings.web_url or "") if settings.vcon else "",
        )
        # A made id cannot be taken: where refusals are no error, or the store has not answered
        # at all yet, there is nothing to wait for.
        unheard_of = self._probing is not None and not self._probing.done()
        at_once = recording_id is None and (unheard_of or not self._require_store)
        begin = partial(self._begin, plan, speakers, began_at, at_once=at_once)
        return Starting(lambda: self.engine, begin, on_event)

    # -- on the engine ---------------------------------------------------------------------------

    async def _open(self) -> None:
        self._opening = asyncio.current_task()
        settings = self.settings
        self._retrier = Retrier(
            RetryPolicy(
                base_seconds=settings.retry_base_seconds,
                max_wait_seconds=settings.retry_max_wait_seconds,
                deadline_seconds=settings.retry_deadline_seconds,
                attempt_timeout_seconds=settings.attempt_timeout_seconds,
            )
        )
        self._budget = ByteBudget(settings.inflight_bytes)
        used = await self.engine.in_thread(spool_bytes, settings.spool_dir)
        self._quota = SpoolQuota(
            settings.spool_max_bytes, used, drop_oldest=settings.spool_full == "drop_oldest"
        )
        await self.store.__aenter__()
        self._probed = asyncio.Event()
        self._probing = asyncio.ensure_future(self._probe())
        ticker = Ticker(self._sessions, self.clock.monotonic, settings.chunk_seconds)
        self._ticker = asyncio.ensure_future(ticker.run())
        self._depot = Depot(
            settings,
            self.clock,
            self.engine,
            self.store,
            self._known,
            self._retrier,
            self._budget,
            self._quota,
        )
        self._spool_recovery = SpoolRecovery(self._depot)
        self._rescue = BucketRescue(self._depot, lambda: secrets.token_hex(8))
        if self._recover and settings.recover_seconds:
            self._recovering = asyncio.ensure_future(self._recover_in_background())
        if not self._require_store:
            return
        await asyncio.wait({self._probing}, timeout=settings.start_timeout_seconds)
        if self.store_error is not None:
            raise self.store_error
        if not self._probed.is_set():
            logger.warning("{} does not answer: recording into the spool", settings.location)

    async def _probe(self) -> None:
        """Find out what the store can do, for as long as that takes."""
        patient = Retrier(replace(self._retrier.policy, deadline_seconds=None))
        try:
            self.capabilities = await probe(self.store, patient, secrets.token_hex(8))
        except StoreError as error:
            self.store_error = error
            if not self._require_store:  # or else it is raised
                logger.error("{}: {}", self.settings.location, error)
        finally:
            self._probed.set()
        for name, meaning in MISSING.items():
            if not getattr(self.capabilities, name):
                logger.warning("{} {}", self.settings.location, meaning)

    async def _asked(self) -> None:
        """Wait until the store has said what it can do: to take over by what is assumed is rash.

        Raises:
            TransientError: It does not answer.
        """
        try:
            async with asyncio.timeout(self.settings.retry_deadline_seconds):
                await self._probed.wait()
        except TimeoutError:
            problem = f"{self.settings.location} does not answer"
            raise TransientError(problem, op="probe", code="Timeout") from None

    async def _known(self) -> Capabilities:
        """Return what the store can do; what is assumed of it, if it does not answer in time."""
        if not self._require_store:  # or else opening has waited already
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.start_timeout_seconds):
                    await self._probed.wait()
        return self.capabilities

    async def _recover_in_background(self) -> None:
        """Finish what is left in the spool; now, and again for as long as the recorder is open."""
        await self._probed.wait()
        logged: dict[str, Recovered] = {}
        while True:
            try:
                tell = self._tell_recovered
                for recovered in await self._spool_recovery.run(patient=True, tell=tell):
                    said = logged.get(recovered.recording_id)
                    logged[recovered.recording_id] = recovered
                    if recovered.outcome is not Outcome.ALIVE and recovered is not said:
                        logger.log(
                            "ERROR" if recovered.outcome is Outcome.FAILED else "INFO",
                            "recording {} from the spool: {} {}",
                            recovered.recording_id,
                            recovered.outcome,
                            recovered.reason,
                        )
                await self._correct_quota()
            except Exception as error:  # the next look is another try
                logger.error("the spool cannot be recovered: {}", error)
            seconds = self.settings.recover_seconds
            await asyncio.sleep(seconds * random.uniform(0.75, 1.25))  # noqa: S311 - no secret

    async def _correct_quota(self) -> None:
        """Count what the spool holds anew: other processes use it, and finish what was left."""
        counted = self._quota.used
        found = await self.engine.in_thread(spool_bytes, self.settings.spool_dir)
        if self._quota.used == counted:  # or else the next look is another try
            self._quota.correct(found - counted)

    async def _shut(self, seconds: float) -> None:
        # What is opening or starting just now belongs to nobody any more, whose cancel led here.
        # The ticker closes what has ended: two that close a session get in each other's way.
        await _cancelled([self._opening, self._ticker, *self._beginning])
        sessions = list(self._sessions)
        for backstage in sessions:
            backstage.end_session()
        await asyncio.gather(*(backstage.close(seconds) for backstage in sessions))
        await _cancelled([self._probing, self._recovering])
        if self._depot is not None:
            await self._depot.close()
        await self.store.__aexit__(None, None, None)

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RuntimeError: The recorder is not open.
        """
        if self._engine is None:
            raise RuntimeError("open the recorder first: async with Recorder() as recorder")
        return self._engine

    async def _begin(
        self,
        plan: Plan,
        tracks: Sequence[Track],
        began_at: float | None,
        emit: Emit,
        *,
        at_once: bool,
    ) -> Session:
        task = asyncio.current_task()
        if task is not None:
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        settings, engine, depot = self.settings, self.engine, self._depot
        if depot is None:
            raise RuntimeError("the recorder is not open yet")
        spool = await self._make_spool(plan)
        asked = created = False
        journal: JournalWriter | None = None
        deadline = Deadline(time.monotonic() + settings.start_timeout_seconds)
        try:
            sealer = Sealer(spool, self._quota, plan)
            context = depot.context(
                plan.recording_id,
                self.store,
                self.capabilities,
                deadline,
                lambda failed: self._tell(failed, emit),
            )
            delivery = Delivery(plan, sealer, context, engine, self._quota, plan.token, emit, spool)
            delivery.expect_tracks([track.name for track in tracks])
            delivery.ask = self._known
            delivery.shelf.droppable = True
            delivery.shelf.reserve = sealer.reserve
            # Before the manifest: a start that finds no room leaves nothing behind in the store.
            journal = await engine.in_thread(
                JournalWriter, spool.journal, self._quota, sealer.mapped
            )
            if not at_once:
                asked = True
                await self._open_manifest(delivery, emit)
                created = delivery.manifest.created
            deadline.move(None)
            backstage = SessionBackstage(settings, engine, spool, sealer, delivery, deadline)
            zero, started_at = self.clock.monotonic(), self.clock.utc().astimezone(UTC)
            if began_at is not None:
                started_at -= timedelta(seconds=zero - began_at)
                zero = began_at
            delivery.plan = replace(plan, started_at=started_at, started_monotonic=zero)
            try:
                spool.write_json("recording.json", delivery.plan.to_dict())
            except OSError as error:  # what is there is of some moments before: enough to finish it
                context.log.warning("the recording's exact start is not in its spool: {}", error)
            session = Session(
                plan.recording_id,
                journal,
                self.clock,
                zero,
                tracks,
                plan.sample_rate,
                backstage,
                emit,
                late=began_at is not None,
            )
        except BaseException as error:
            if journal is not None:  # what is mapped would hold its room on the disk
                journal.close()
                sealer.close()
            # With a manifest in the store, or maybe, recovery finishes what has not even begun.
            keep = created or (asked and isinstance(error, asyncio.CancelledError))
            await engine.in_thread(spool.release if keep else partial(spool.remove, self._quota))
            raise
        backstage.begin(session)
        self._sessions.add(backstage)
        await engine.in_thread(sealer.set_room_aside)
        return session

    async def _make_spool(self, plan: Plan) -> Spool:
        """Return a recording's folder; one that is made in spite of a cancel is removed again."""
        root, engine = self.settings.spool_dir, self.engine
        making = asyncio.ensure_future(
            engine.in_thread(Spool.create, root, plan.recording_id, plan.to_dict())
        )
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            with contextlib.suppress(BotRecorderError):
                spool = await making
                await engine.in_thread(spool.remove, self._quota)
            raise

    async def _open_manifest(self, delivery: Delivery, emit: Callable[[Event], None]) -> None:
        try:
            await delivery.open()
        except KeyTaken as error:
            raise RecordingExists(str(error.args[0]), hint=error.hint) from error
        except StoreError as error:
            if not error.retryable and self._require_store:
                raise
            logger.bind(recording_id=delivery.plan.recording_id).warning(
                "the store is not to be had; recording into the spool until it is: {}", error
            )
            emit(UploadFailed(error.op, error, retrying=error.retryable))

    @staticmethod
    def _tell(failed: AttemptFailed, emit: Callable[[Event], None]) -> None:
        if failed.attempt == TELL_AFTER_ATTEMPTS:
            emit(UploadFailed(failed.op, failed.error, retrying=True))


async def _cancelled(tasks: Sequence[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks, and wait until they have ended."""
    there = [task for task in tasks if task is not None and task is not asyncio.current_task()]
    for task in there:
        task.cancel()
    await asyncio.gather(*there, return_exceptions=True)


__all__ = ["DEFAULT_TRACKS", "OnEvent", "Recorder", "Starting"]
