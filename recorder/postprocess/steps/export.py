"""Step `export`: the recording in other formats, below `exports/`, as `recorder export`."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

from recorder.export import export
from recorder.postprocess.steps.base import Job, Step
from recorder.settings import Settings
from recorder.settings_values import StepName
from recorder.stored_audio import LayoutName


class ExportStep(Step):
    """Makes `RECORDER_POSTPROCESS_EXPORT_FORMATS`; what is there by their names is replaced."""

    name: ClassVar[StepName] = "export"
    makes: ClassVar[bool] = True

    def parameters(self, settings: Settings) -> str:
        """See `Step.parameters`."""
        return ",".join(settings.postprocess_export_formats)

    async def run(self, job: Job) -> dict[str, Any]:
        """See `Step.run`."""
        place = job.subject.place
        layouts = {output.text("layout") for output in job.manifest.items("outputs")}
        layout: LayoutName = "mono" if "mono" in layouts and "stereo" not in layouts else "stereo"
        exported = []
        for form in job.settings.postprocess_export_formats:
            made = await export(
                job.store,
                place.recording_id,
                format=form,
                layout=layout,
                day=date.fromisoformat(place.day),
                overwrite=True,
            )
            exported.append({"key": made.key, "format": made.format, "bytes": made.bytes})
        return {"exports": exported}
