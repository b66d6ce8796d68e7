"""Step `vcon`: the recording's vCon beside it, as `recorder vcon --write`."""

from __future__ import annotations

from typing import Any, ClassVar

from recorder.postprocess.steps.base import Job, Step
from recorder.settings import Settings
from recorder.settings_values import StepName
from recorder.vcon import write_vcon


class VconStep(Step):
    """Its links are the bucket's own, or lead below `RECORDER_WEB_URL`."""

    name: ClassVar[StepName] = "vcon"
    makes: ClassVar[bool] = True

    def parameters(self, settings: Settings) -> str:
        """See `Step.parameters`."""
        return settings.web_url or ""

    async def run(self, job: Job) -> dict[str, Any]:
        """See `Step.run`."""
        web_url = job.settings.web_url
        made = await write_vcon(job.store, job.manifest.values, base_url=web_url)
        return {"key": made.key, "uuid": made.document.get("uuid"), "written": made.written}
