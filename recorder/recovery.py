"""Finishes what dead processes left in the spool: the same objects they would have made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from loguru import logger

from recorder.chunks import Contents
from recorder.clean_up import CleanUp
from recorder.continuation import Slice, continuation_of, list_continuation
from recorder.delivery import Delivery
from recorder.depot import Depot
from recorder.journal_reader import JournalReader
from recorder.plan import Plan
from recorder.quota import SpoolFull
from recorder.recovered import Outcome, Recovered, failed, finished
from recorder.result import RecordingResult, State
from recorder.sealer import Sealer
from recorder.spool import PLAN, Spool, SpoolBusy, recordings_in, remove_abandoned
from recorder.timeline import NS
from uploader.clock import Clock
from uploader.context import Context
from uploader.errors import BotRecorderError
from uploader.manifest import KeyTaken, LostOwnership, ManifestFile, Stored

MAX_AT_ONCE = 16
"""Recordings: each waits for one small request after the other, most of the time."""

MAX_BESIDE_CALLS = 4
"""The same where live recordings want the budget and the threads, too."""

DURABLE = (State.COMPLETED, State.COMPLETED_WITH_GAPS)
TURNS = 3
"""How often one recording is looked at again where somebody else changed it meanwhile."""

FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 60.0, 3600.0
"""How long a recording that failed is left alone by who is patient: doubled each time."""

STALE_CHUNKS = 3
MIN_STALE_SECONDS = 15.0


def stale_seconds(chunk_seconds: float) -> float:
    """Return after how long without a sign of life a recording's owner counts as gone.

    Three chunk lengths, and no less than 15 s: chunks shorter than that are sealed, sent and
    noted with delays that do not shrink with them.
    """
    return max(STALE_CHUNKS * chunk_seconds, MIN_STALE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long a recording that failed is left alone."""

    failed: Recovered
    until: float
    seconds: float


class Rests:
    """Recordings that are left alone for a while because they failed: longer each time.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rests: dict[str, _Rest] = {}

    def failure(self, name: str) -> Recovered | None:
        """Return what a recording failed with that is to be left alone now; None if it is not."""
        rest = self._rests.get(name)
        return None if rest is None or self._clock.monotonic() >= rest.until else rest.failed

    def note(self, name: str, recovered: Recovered | None) -> None:
        """Take note of what an attempt came to."""
        if recovered is None or recovered.outcome is not Outcome.FAILED:
            self._rests.pop(name, None)
            return
        before = self._rests.get(name)
        seconds = FIRST_REST_SECONDS if before is None else 2 * before.seconds
        seconds = min(seconds, LONGEST_REST_SECONDS)
        self._rests[name] = _Rest(recovered, self._clock.monotonic() + seconds, seconds)


class SpoolRecovery:
    """Recovers the recordings of one spool folder whose owners are dead.

    Args:
        depot: Stores, threads, settings.
    """

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._root = depot.settings.spool_dir
        self._foreign: dict[str, tuple[str, float]] = {}
        self._due: dict[str, float] = {}
        self._rests = Rests(depot.clock)

    async def run(
        self,
        stale_after: float | None = None,
        *,
        dry_run: bool = False,
        patient: bool = False,
        tell: Callable[[Recovered], None] = lambda one: None,
    ) -> list[Recovered]:
        """Look through the spool once, and finish what can be finished.

        Args:
            stale_after: Seconds without a change after which who has taken a recording over counts
                as gone, too; by its chunk length, if None.
            dry_run: Only say what would be done.
            patient: Leave a recording that failed alone for a while, longer each time; meanwhile
                its failure is told again, as the same object.
            tell: Told of each recording at once.

        Raises:
            OSError: The spool cannot be read.
        """
        in_thread = self._depot.engine.in_thread
        if not dry_run:
            await in_thread(remove_abandoned, self._root)
        slots = asyncio.Semaphore(MAX_BESIDE_CALLS if patient else MAX_AT_ONCE)
        found: list[Recovered] = []

        async def one(name: str) -> None:
            recovered = self._rests.failure(name) if patient else None
            if recovered is None:
                async with slots:
                    recovered = await self._one(name, stale_after, dry_run=dry_run)
                self._rests.note(name, recovered)
            if recovered is not None:
                found.append(recovered)
                tell(recovered)

        names = await in_thread(recordings_in, self._root)
        await asyncio.gather(*(one(name) for name in names))
        return found

    async def outwait(
        self,
        found: list[Recovered],
        stale_after: float | None = None,
        *,
        dry_run: bool = False,
        tell: Callable[[Recovered], None] = lambda one: None,
        on_wait: Callable[[tuple[int, float]], None] = lambda what: None,
    ) -> list[Recovered]:
        """Look again at what others have taken over, when they must have shown that they live.

        Args:
            found: By `run`.
            stale_after: See `run`.
            dry_run: See `run`.
            tell: See `run`.
            on_wait: Told, before the wait, for how many recordings it is and how many seconds.
        """
        taken = [one.recording_id for one in found if one.outcome is Outcome.TAKEN]
        due = {name: self._due[name] for name in taken if name in self._due}
        if not due:
            return []
        seconds = max(due.values()) - self._depot.clock.monotonic()
        if seconds > 0:
            on_wait((len(due), seconds))
            await asyncio.sleep(seconds)
        again = []
        for name in due:
            if (recovered := await self._one(name, stale_after, dry_run=dry_run)) is not None:
                again.append(recovered)
                tell(recovered)
        return again

    async def _one(
        self, name: str, stale_after: float | None, *, dry_run: bool
    ) -> Recovered | None:
        try:
            # Not in a thread: a cancel there would leave a lock nobody knows of.
            spool = Spool.open(self._root, name)
        except SpoolBusy:
            return Recovered(name, "spool", Outcome.ALIVE, reason="it is being recorded")
        except FileNotFoundError:
            return None  # finished by somebody else just now
        except OSError as error:
            return failed(name, "spool", error)
        try:
            return await self._recover(spool, name, stale_after, dry_run=dry_run)
        except Exception as error:  # one recording's trouble must not stop all others
            recovered = failed(name, "spool", error)
            logger.bind(recording_id=name).info("not recovered: {}", error)
            return recovered
        finally:
            spool.release()

    async def _recover(
        self, spool: Spool, name: str, stale_after: float | None, *, dry_run: bool
    ) -> Recovered:
        depot = self._depot
        judge = partial(self._judge, stale_after)
        document = spool.read_json(PLAN)
        plan = Plan.from_dict(document or {})
        if plan.recording_id != name:
            raise BotRecorderError(f"{spool.path} is of recording {plan.recording_id!r}")
        store, capabilities = await depot.reach(plan.location)
        context = depot.context(name, store, capabilities)
        sealer = Sealer(spool, depot.quota, plan)
        try:
            await depot.engine.in_thread(sealer.restore)
            attempt = _Attempt(depot, spool, plan, context, sealer, judge)
            for _ in range(TURNS):
                stored = await attempt.manifest.read()
                if (verdict := judge(plan, stored)) is not None:
                    return verdict
                if dry_run:
                    accepted = await depot.engine.in_thread(_accepted_samples, spool, plan)
                    return _plan_of(plan, stored, sealer, accepted)
                try:
                    recovered = await attempt.go_on(stored)
                except LostOwnership:
                    continue
                if recovered is not None:
                    return recovered
            return Recovered(name, "spool", Outcome.TAKEN, reason="it is being changed by others")
        finally:
            await depot.engine.in_thread(sealer.close)

    def _judge(
        self, stale_after: float | None, plan: Plan, stored: Stored | None
    ) -> Recovered | None:
        """Return why a recording is none of this process's business now; None if it is."""
        name = plan.recording_id
        if stored is None:
            return None
        document = stored.document
        if document.get("token") != plan.token:
            raise KeyTaken(
                f"another recording with this id exists at {plan.location}/{plan.folder}",
                hint="move one of them away; the audio of this one is kept in the spool",
            )
        if document["owner"] == plan.token or document["state"] in DURABLE:
            self._foreign.pop(plan.manifest_key, None)
            self._due.pop(name, None)
            return None
        now = self._depot.clock.monotonic()
        etag, since = self._foreign.get(plan.manifest_key, ("", now))
        if etag != stored.etag:
            since = now
            self._foreign[plan.manifest_key] = stored.etag, now
        patience = stale_after
        if patience is None:
            patience = stale_seconds(plan.seconds(plan.chunk_samples))
        if now - since >= patience:
            return None
        self._due[name] = since + patience
        reason = "another process took it over and is finishing it"
        hint = (
            "look again later: what this spool has beyond it will be attached. If that process is "
            "lost, too, --bucket finishes it"
        )
        return Recovered(name, "spool", Outcome.TAKEN, reason=reason, hint=hint)


class _Attempt:
    """One attempt at one recording, its spool locked."""

    def __init__(
        self,
        depot: Depot,
        spool: Spool,
        plan: Plan,
        context: Context,
        sealer: Sealer,
        judge: Callable[[Plan, Stored | None], Recovered | None],
    ) -> None:
        self._judge = judge
        self.manifest = ManifestFile(context, plan.manifest_key, plan.token)
        self._depot = depot
        self._spool = spool
        self._plan = plan
        self._context = context
        self._sealer = sealer

    async def go_on(self, stored: Stored | None) -> Recovered | None:
        """Do what the manifest says is next; None if there is more to do after it.

        Raises:
            LostOwnership: Somebody else was quicker; look again.
            BotRecorderError: It could not be done.
        """
        if stored is not None and stored.document["state"] in DURABLE:
            await self._seal_all(None)
            end = _end_of(stored)
            if self._sealer.sealed_samples > end:
                return await self._continue(end)
            return await self._clean()
        contents: Contents = self._sealer
        if stored is not None and stored.document.get("sealed") is True:
            # Its length is final, and may be in a finished object already.
            await self._seal_all(None)
            listed = stored.document.get("chunks", [])
            contents = Slice(self._sealer, 0, _end_of(stored), listed)
        whole = contents.sealed_samples == self._sealer.sealed_samples
        delivery = self._delivery(self._plan, contents, self._spool if whole else None)
        if stored is not None:
            await delivery.adopt(stored, "spool")
        if contents is self._sealer:
            await self._seal_all(delivery)
        result = await delivery.conclude()
        if delivery.manifest.usurped is not None:
            raise delivery.manifest.usurped
        if result.durable and not whole:
            return None  # what is left is a continuation
        return finished(self._plan.recording_id, "spool", result)

    async def _seal_all(self, delivery: Delivery | None) -> None:
        """Seal all there is; where the disk is full, what is sealed goes first.

        Raises:
            SpoolFull: There is no room, and none to be made.
        """
        while True:
            sealed = len(self._sealer.sealed)
            try:
                await self._depot.engine.in_thread(self._sealer.seal_all)
                return
            except SpoolFull:
                used = self._depot.quota.used
                if delivery is not None:
                    await delivery.deliver()
                    await delivery.make_room()
                if len(self._sealer.sealed) == sealed and self._depot.quota.used >= used:
                    raise

    async def _continue(self, end: int) -> Recovered:
        """Attach what lies behind the end of the finished recording, as one or more of its own."""
        plans: list[Plan] = []
        start, result = end, None
        while start < self._sealer.sealed_samples:
            plan = continuation_of(self._plan, len(plans) + 1, start)
            plans.append(plan)
            manifest = ManifestFile(self._context, plan.manifest_key, plan.token)
            stored = await manifest.read()
            if stored is None or stored.document["state"] not in DURABLE:
                if stored is not None and (verdict := self._judge(plan, stored)) is not None:
                    return verdict
                result = await self._finish(plan, stored)
                if not result.durable:
                    return finished(plan.recording_id, "spool", result)
                samples = result.samples
            else:
                samples = _end_of(stored)
            await list_continuation(self._context, plan, samples, plan.token)
            start += samples
        if (cleaned := await self._clean(*plans)).outcome is not Outcome.CLEANED:
            return cleaned
        seconds = self._plan.seconds(start - end)
        reason = f"late audio was attached: {seconds:.3f} s in {plans[0].folder}"
        return Recovered(self._plan.recording_id, "spool", Outcome.CONTINUED, result, reason)

    async def _finish(self, plan: Plan, stored: Stored | None) -> RecordingResult:
        """Finish one continuation, as far as its length is not final yet."""
        end = None
        if stored is not None and stored.document.get("sealed") is True:
            end = plan.first_sample + _end_of(stored)
        delivery = self._delivery(plan, Slice(self._sealer, plan.first_sample, end), None)
        if stored is None:
            await delivery.open()
        else:
            await delivery.adopt(stored, "spool")
        await list_continuation(self._context, plan, None, plan.token)
        result = await delivery.conclude()
        if delivery.manifest.usurped is not None:
            raise delivery.manifest.usurped
        return result

    async def _clean(self, *continuations: Plan) -> Recovered:
        """Delete what a recording that is finished has left behind, here and in the store."""
        outcome, reason = Outcome.CLEANED, "it was finished already"
        cleaned = True
        for plan in (self._plan, *continuations):
            clean_up = CleanUp(plan, self._context)
            cleaned = await clean_up.run(self._sealer.sealed, (), thorough=True) and cleaned
            await clean_up.list_leftovers(plan.token)
        if cleaned:
            await self._depot.engine.in_thread(self._spool.remove, self._depot.quota)
        else:
            outcome, reason = Outcome.PENDING, "it is finished, but leftovers could not be deleted"
        return Recovered(self._plan.recording_id, "spool", outcome, reason=reason)

    def _delivery(self, plan: Plan, contents: Contents, spool: Spool | None) -> Delivery:
        return Delivery(
            plan,
            contents,
            replace_context(self._context),
            self._depot.engine,
            self._depot.quota,
            plan.token,
            lambda event: None,
            spool,
        )


def replace_context(context: Context) -> Context:
    """Return the same with counts of its own."""
    return replace(context, counts=type(context.counts)(), last_failure=None)


def _end_of(stored: Stored) -> int:
    """Return how many samples a stored recording, or a continuation, has."""
    samples = stored.document.get("samples")
    return samples if type(samples) is int else 0


def _accepted_samples(spool: Spool, plan: Plan) -> int:
    """Return how far a journal reaches on the recording's clock."""
    segments = sorted(int(path.stem) for path in spool.journal.glob("*.journal"))
    reader = JournalReader(spool.journal, *segments[:1])
    written_ns = 0
    try:
        for rows in reader.batches():
            written_ns = max(written_ns, int(rows["written_ns"].max()))
    except ValueError:  # as far as it can be read
        pass
    finally:
        reader.close()
    return written_ns * plan.sample_rate // NS


def _plan_of(plan: Plan, stored: Stored | None, sealer: Sealer, accepted: int) -> Recovered:
    """Return what would be done, as far as that can be said without doing it."""
    if stored is None or stored.document["state"] not in DURABLE:
        chunks = len(sealer.sealed)
        reason = f"would be finished from {chunks} sealed chunks and the journal"
        return Recovered(plan.recording_id, "spool", Outcome.RECOVERED, reason=reason)
    if max(sealer.sealed_samples, accepted) > _end_of(stored):
        reason = "would be attached as a continuation"
        return Recovered(plan.recording_id, "spool", Outcome.CONTINUED, reason=reason)
    reason = "is finished: leftovers would be deleted"
    return Recovered(plan.recording_id, "spool", Outcome.CLEANED, reason=reason)
