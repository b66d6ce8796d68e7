"""All checks, one after the other, and what they come to."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recorder.catalog import POLICY
from recorder.doctor import iam, server
from recorder.doctor.check import Check, Status
from recorder.doctor.cost import Load
from recorder.doctor.machine import check_machine
from recorder.doctor.spool import check_spool
from recorder.doctor.trials import Trials
from recorder.settings import Settings
from recorder.stores import make_store
from uploader.errors import AccessDenied, StoreError
from uploader.retry import Retrier

if TYPE_CHECKING:
    from uploader.s3 import S3Store

AREAS = ("bucket", "lifecycle", "spool", "machine")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        checks: In the order of their areas.
        policy: The IAM policy that allows what is missing; None if nothing is.
    """

    checks: Sequence[Check]
    policy: dict[str, Any] | None

    @property
    def fit(self) -> bool:
        """Whether calls can be recorded."""
        return not self.of(Status.FAIL)

    def of(self, status: Status) -> list[Check]:
        """Return the checks that ended so."""
        return [one for one in self.checks if one.status is status]


async def examine(
    settings: Settings,
    load: Load,
    calls: int,
    areas: Sequence[str] = AREAS,
    on_area: Callable[[str], None] = lambda area: None,
) -> Diagnosis:
    """Try everything that recording needs.

    Args:
        settings: Of the process.
        load: What a call needs.
        calls: How many there are at a time.
        areas: Which of `AREAS` to look at; `lifecycle` goes with `bucket`.
        on_area: Told what is looked at next.
    """
    checks: list[Check] = []
    token = secrets.token_hex(8)
    if "bucket" in areas or "lifecycle" in areas:
        on_area(f"trying {settings.location}")
        checks.extend(await _bucket(settings, token))
        if "lifecycle" not in areas or "bucket" not in areas:
            checks = [one for one in checks if one.area in areas]
    if "spool" in areas:
        on_area(f"trying {settings.spool_dir}")
        checks.extend(check_spool(settings, load, calls, token))
    if "machine" in areas:
        checks.extend(check_machine(settings, calls))
    return Diagnosis(checks, _policy(settings, checks))


def _policy(settings: Settings, checks: Sequence[Check]) -> dict[str, Any] | None:
    grants = [grant for one in checks for grant in one.grants]
    if not grants:
        return None
    place = settings.location
    region, key = settings.aws_region or "", settings.kms_key_id or ""
    return iam.policy(place.bucket, place.prefix, grants, region=region, key=key)


async def _bucket(settings: Settings, token: str) -> list[Check]:
    retrier = Retrier(POLICY)
    try:
        async with make_store(settings) as store:
            trials = Trials(store, settings, retrier, token)
            if settings.location.kind == "file":
                await trials.run()
                return [*trials.checks, *_remains(trials)]
            from uploader.s3 import S3Store  # takes a second to import

            if not isinstance(store, S3Store):
                raise TypeError(f"{type(store).__name__} is no S3 store")
            return await _s3(store, settings, retrier, trials)
    except StoreError as error:
        return [_unreachable(error)]


async def _s3(store: S3Store, settings: Settings, retrier: Retrier, trials: Trials) -> list[Check]:
    from uploader.s3_survey import listening, look_at_bucket

    look = await retrier.call("doctor", lambda: look_at_bucket(store))
    looked = list(server.check_look(look, store))
    if any(one.status is Status.FAIL for one in looked):
        return looked
    with listening(store) as heard:
        await trials.run()
    found = [server.check_credentials(store, trials.refusal), *looked]
    if found[0].status is Status.FAIL:  # everything else is refused for the same reason
        return found
    rules = await server.check_lifecycle(store, settings, retrier, heard)
    stored = server.check_storage_class(settings.storage_class)
    return [*found, *trials.checks, *stored, *_remains(trials), *rules]


def _remains(trials: Trials) -> list[Check]:
    if not trials.left:
        return []
    found = f"could not be removed: {', '.join(trials.left)}"
    return [Check("bucket", "what was tried on", Status.WARN, found, "delete it by hand")]


def _unreachable(error: StoreError) -> Check:
    name = "credentials" if isinstance(error, AccessDenied) else "reachable"
    return Check("bucket", name, Status.FAIL, Exception.__str__(error), error.hint)
