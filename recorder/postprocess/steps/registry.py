"""All steps, in the order in which they are done; that of `recorder.settings_values.STEP_NAMES`.

First what proves the recording, then what makes something of it, then the tags, which are given to
all there is, and last the webhook, which tells of all that.
"""

from __future__ import annotations

from recorder.postprocess.steps.base import Step
from recorder.postprocess.steps.export import ExportStep
from recorder.postprocess.steps.peaks import PeaksStep
from recorder.postprocess.steps.tags import TagStep
from recorder.postprocess.steps.vcon import VconStep
from recorder.postprocess.steps.verify import VerifyStep
from recorder.postprocess.steps.webhook import WebhookStep

STEPS: dict[str, Step] = {
    step.name: step
    for step in (VerifyStep(), PeaksStep(), ExportStep(), VconStep(), TagStep(), WebhookStep())
}
