"""How a recording begins: folder, journal, manifest; and nothing of them where it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from functools import partial

from loguru import logger

from recorder.backstage import SessionBackstage
from recorder.delivery import Delivery
from recorder.depot import Depot
from recorder.engine import Engine
from recorder.events import Event, UploadFailed
from recorder.journal import JournalWriter
from recorder.plan import Plan
from recorder.quota import SpoolQuota
from recorder.sealer import Sealer
from recorder.session import Session
from recorder.settings import Settings
from recorder.speakers import Track
from recorder.spool import RecordingExists, Spool
from recorder.starting import Emit
from recorder.store_probe import StoreProbe
from uploader.clock import Clock
from uploader.errors import BotRecorderError, StoreError
from uploader.manifest import KeyTaken
from uploader.retry import AttemptFailed, Deadline
from uploader.store import Store

TELL_AFTER_ATTEMPTS = 3
"""Failed attempts in a row at one request before the user is told; every one is logged."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A recording that has begun.

    Attributes:
        session: The recording as the bot sees it.
        backstage: What goes on behind it; not begun yet.
        sealer: Its sealer.
    """

    session: Session
    backstage: SessionBackstage
    sealer: Sealer


class Beginning:
    """Has recordings begin. Runs on the engine.

    Args:
        settings: Of the recorder.
        clock: Likewise.
        engine: Likewise.
        store: Likewise.
        probe: Knows what the store can do.
        depot: What recordings share.
        quota: Counts the spool's bytes.
        must_answer: Whether a store that refuses is an error.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        engine: Engine,
        store: Store,
        probe: StoreProbe,
        depot: Depot,
        quota: SpoolQuota,
        *,
        must_answer: bool,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._engine = engine
        self._store = store
        self._probe = probe
        self._depot = depot
        self._quota = quota
        self._must_answer = must_answer

    async def begin(
        self,
        plan: Plan,
        tracks: Sequence[Track],
        began_at: float | None,
        emit: Emit,
        *,
        at_once: bool,
    ) -> Begun:
        """Begin a recording.

        Args:
            plan: What is recorded.
            tracks: The tracks there are from the beginning.
            began_at: The clock's time of sample 0, seconds; now, if None.
            emit: Told what happens.
            at_once: Whether the manifest can wait.

        Raises:
            RecordingExists: The id is in use in the spool or in the bucket.
            StoreError: The bucket refuses, and must not.
            SpoolFull: The spool cannot be written.
        """
        settings, engine = self._settings, self._engine
        spool = await self._make_spool(plan)
        asked = created = False
        journal: JournalWriter | None = None
        deadline = Deadline(time.monotonic() + settings.start_timeout_seconds)
        try:
            sealer = Sealer(spool, self._quota, plan)
            context = self._depot.context(
                plan.recording_id,
                self._store,
                self._probe.capabilities,
                deadline,
                lambda failed: _tell(failed, emit),
            )
            delivery = Delivery(plan, sealer, context, engine, self._quota, plan.token, emit, spool)
            delivery.expect_tracks([track.name for track in tracks])
            delivery.ask = self._probe.known
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
            zero, started_at = self._clock.monotonic(), self._clock.utc().astimezone(UTC)
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
                self._clock,
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
        return Begun(session, backstage, sealer)

    async def _make_spool(self, plan: Plan) -> Spool:
        """Return a recording's folder; one that is made in spite of a cancel is removed again."""
        root, engine = self._settings.spool_dir, self._engine
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
            if not error.retryable and self._must_answer:
                raise
            logger.bind(recording_id=delivery.plan.recording_id).warning(
                "the store is not to be had; recording into the spool until it is: {}", error
            )
            emit(UploadFailed(error.op, error, retrying=error.retryable))


def _tell(failed: AttemptFailed, emit: Callable[[Event], None]) -> None:
    if failed.attempt == TELL_AFTER_ATTEMPTS:
        emit(UploadFailed(failed.op, failed.error, retrying=True))
