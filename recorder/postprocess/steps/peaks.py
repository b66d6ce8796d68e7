"""Step `peaks`: the waveform beside the recording, where it has none yet, as `recorder peaks`."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

from recorder.peaks import write_peaks
from recorder.postprocess.steps.base import Job, Step
from recorder.settings_values import StepName


class PeaksStep(Step):
    """Leaves alone what the recorder, or somebody, has made."""

    name: ClassVar[StepName] = "peaks"
    makes: ClassVar[bool] = True

    async def run(self, job: Job) -> dict[str, Any]:
        """See `Step.run`."""
        place = job.subject.place
        day = date.fromisoformat(place.day)
        made = await write_peaks(job.store, place.recording_id, day=day)
        return {
            "key": made.key,
            "bytes": made.bytes,
            "samples_per_pixel": made.samples_per_pixel,
            "written": made.written,
        }
