"""The settings of post-processing, as a part of `recorder.settings.Settings`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import BaseSettings

from recorder import settings_values as values
from recorder.export_formats import FORMAT_NAMES, FormatName
from recorder.names import check_tags
from recorder.settings_text import seconds, setting


class PostprocessSettings(BaseSettings):
    """What is done with a recording that is complete, and how."""

    postprocess_steps: Annotated[
        tuple[values.StepName, ...], BeforeValidator(partial(values.listed, values.STEP_NAMES))
    ] = setting("What is done with a complete recording", values.STEPS_RULE, ("verify",))
    postprocess_export_formats: Annotated[
        tuple[FormatName, ...],
        BeforeValidator(partial(values.listed, FORMAT_NAMES, what="format")),
    ] = setting(
        "Formats that step `export` makes",
        f"one or more of {', '.join(FORMAT_NAMES)}, separated by commas, each once",
        ("mp3",),
    )
    postprocess_tags: Annotated[
        dict[str, str], BeforeValidator(partial(values.pairs, check_tags))
    ] = setting("Object tags that step `tags` adds, e.g. for retention", values.PAIRS_RULE, dict)
    postprocess_concurrency: int = setting(
        "Recordings processed at a time", "a whole number from 1 to 256", 4, ge=1, le=256
    )
    postprocess_claim_seconds: float = seconds(
        "How long a recording stays claimed by a process that died over it", 60.0, 1, 3600
    )
    postprocess_queue_url: Annotated[str | None, BeforeValidator(values.queue_url)] = setting(
        "SQS queue that `recorder worker` reads", values.QUEUE_RULE, None
    )
    webhook_url: Annotated[SecretStr | None, BeforeValidator(values.webhook_url)] = setting(
        "Where step `webhook` posts to", values.WEBHOOK_RULE, None
    )
    webhook_secret: Annotated[SecretStr | None, BeforeValidator(values.webhook_secret)] = setting(
        "What its posts are signed with", values.WEBHOOK_KEY_RULE, None
    )
    webhook_timeout_seconds: float = seconds("How long one post may take", 10.0, 0.1, 300)
    webhook_retry_seconds: float = seconds(
        "How long a post is retried before the step is put off; 0 is not at all", 60.0, 0, 3600
    )
    aws_endpoint_url_sqs: Annotated[str | None, BeforeValidator(values.endpoint)] = setting(
        "Address of another SQS implementation",
        values.ENDPOINT_RULE,
        None,
        variables=("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"),
        shows="Amazon's",
    )

    def postprocess_contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the field of each value that does not go with another, and why."""
        steps = self.postprocess_steps
        if "webhook" in steps:
            for name in ("webhook_url", "webhook_secret"):
                if getattr(self, name) is None:
                    yield "postprocess_steps", f"webhook needs RECORDER_{name.upper()}"
                    break
        if "tags" in steps and not self.postprocess_tags:
            yield "postprocess_steps", "tags needs RECORDER_POSTPROCESS_TAGS"
