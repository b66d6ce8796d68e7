"""All steps, in the order in which they are done; that of `recorder.settings_values.STEP_NAMES`."""

from __future__ import annotations

from recorder.postprocess.steps.base import Step
from recorder.postprocess.steps.tags import TagStep
from recorder.postprocess.steps.verify import VerifyStep
from recorder.postprocess.steps.webhook import WebhookStep

STEPS: dict[str, Step] = {step.name: step for step in (VerifyStep(), TagStep(), WebhookStep())}
