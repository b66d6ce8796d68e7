"""`Recorder`: one per process. Settings, one shared store client, one engine, many sessions."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import partial
from types import TracebackType
from typing import Any, Self

from loguru import logger

from recorder import shutdown
from recorder.backstage import SessionBackstage
from recorder.beginning import Beginning
from recorder.closing import Closing
from recorder.depot import Depot
from recorder.engine import Engine
from recorder.names import check_metadata, check_recording_id, check_tags, new_recording_id
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.recovered import Outcome, Recovered
from recorder.recovery import SpoolRecovery
from recorder.rescue import BucketRescue
from recorder.session import Session
from recorder.settings import Settings
from recorder.speakers import Track, check_tracks
from recorder.spool import spool_bytes
from recorder.starting import Emit, OnEvent, Starting, handing_over
from recorder.store_probe import StoreProbe
from recorder.stores import make_store
from recorder.ticker import Ticker
from uploader.budget import ByteBudget
from uploader.clock import Clock, SystemClock
from uploader.errors import BotRecorderError
from uploader.probe import Capabilities
from uploader.retry import Retrier, RetryPolicy
from uploader.store import Store

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
        self._probe = StoreProbe(self.store, self.settings, required=require_store)
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

    @property
    def store_error(self) -> BotRecorderError | None:
        """Why the store refuses, if it does."""
        return self._probe.error

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do; what is assumed of it, before it has answered."""
        return self._probe.capabilities

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
                await self._probe.certain()
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
        at_once = recording_id is None and (self._probe.is_asking or not self._require_store)
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
        self._probe = StoreProbe(self.store, settings, required=self._require_store)
        self._probing = self._probe.begin(self._retrier)
        ticker = Ticker(self._sessions, self.clock.monotonic, settings.chunk_seconds)
        self._ticker = asyncio.ensure_future(ticker.run())
        self._depot = Depot(
            settings,
            self.clock,
            self.engine,
            self.store,
            self._probe.known,
            self._retrier,
            self._budget,
            self._quota,
        )
        self._spool_recovery = SpoolRecovery(self._depot)
        self._rescue = BucketRescue(self._depot, lambda: secrets.token_hex(8))
        if self._recover and settings.recover_seconds:
            self._recovering = asyncio.ensure_future(self._recover_in_background())
        await self._probe.wait()

    async def _recover_in_background(self) -> None:
        """Finish what is left in the spool; now, and again for as long as the recorder is open."""
        await self._probe.answered.wait()
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
        if self._depot is None:
            raise RuntimeError("the recorder is not open yet")
        begun = await Beginning(
            self.settings,
            self.clock,
            self.engine,
            self.store,
            self._probe,
            self._depot,
            self._quota,
            must_answer=self._require_store,
        ).begin(plan, tracks, began_at, emit, at_once=at_once)
        begun.backstage.begin(begun.session)
        self._sessions.add(begun.backstage)
        await self.engine.in_thread(begun.sealer.set_room_aside)
        return begun.session


async def _cancelled(tasks: Sequence[asyncio.Task[Any] | None]) -> None:
    """Cancel tasks, and wait until they have ended."""
    there = [task for task in tasks if task is not None and task is not asyncio.current_task()]
    for task in there:
        task.cancel()
    await asyncio.gather(*there, return_exceptions=True)


__all__ = ["DEFAULT_TRACKS", "OnEvent", "Recorder", "Starting"]
