"""Step `verify`: proves the recording's objects against its manifest, by reading them back."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

from recorder import verification
from recorder.postprocess.steps.base import Job, Step, StepFailed
from recorder.settings_values import StepName

MAX_TOLD = 3
"""Findings in the reason of a failure; `recorder verify` shows all."""


class VerifyStep(Step):
    """As `recorder verify` does."""

    name: ClassVar[StepName] = "verify"

    async def run(self, job: Job) -> dict[str, Any]:
        """See `Step.run`."""
        place = job.subject.place
        report = await verification.verify(
            job.store, place.recording_id, day=date.fromisoformat(place.day)
        )
        if not report.ok:
            told = "; ".join(map(str, report.findings[:MAX_TOLD]))
            more = len(report.findings) - MAX_TOLD
            raise StepFailed(
                told + (f"; and {more} more" if more > 0 else ""),
                hint=f"`recorder verify {place.recording_id}` shows all",
            )
        counts = report.counts
        return {"objects": counts.objects, "bytes": counts.bytes, "comparisons": counts.checks}
