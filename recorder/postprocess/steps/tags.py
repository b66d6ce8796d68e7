"""Step `tags`: gives all objects of a recording tags, by which lifecycle rules can find them.

A lifecycle rule that expires by tag (Amazon S3 User Guide, "Lifecycle configuration elements",
filters) leaves alone what has no tag: so all objects get them, the manifest included.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from recorder.names import MAX_TAGS
from recorder.postprocess.steps.base import Job, Step, StepFailed
from recorder.settings import Settings
from recorder.settings_values import StepName
from uploader.errors import NoSuchObject, Unsupported
from uploader.store import ObjectInfo

MAX_PARALLEL = 8


class TagStep(Step):
    """Adds `RECORDER_POSTPROCESS_TAGS` to what tags there are; of one name, the new one counts."""

    name: ClassVar[StepName] = "tags"
    of_all: ClassVar[bool] = True

    def parameters(self, settings: Settings) -> str:
        """See `Step.parameters`."""
        return json.dumps(settings.postprocess_tags, sort_keys=True)

    async def run(self, job: Job) -> dict[str, Any]:
        """See `Step.run`."""
        if not (tags := job.settings.postprocess_tags):
            raise StepFailed("there are no tags to add", hint="set RECORDER_POSTPROCESS_TAGS")

        async def listed() -> list[ObjectInfo]:
            return [info async for info in job.store.list_objects(job.folder)]

        keys = [info.key for info in await job.call("list_objects", listed)]
        todo, changed = iter(keys), 0

        async def work() -> None:
            nonlocal changed
            for key in todo:
                was_changed = await _tag(job, key, tags)
                changed += was_changed

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(MAX_PARALLEL):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return {"objects": len(keys), "changed": changed}


async def _tag(job: Job, key: str, tags: dict[str, str]) -> bool:
    """Give an object the tags, if it does not have them; return whether it was changed."""
    try:
        found = await job.call("tags", lambda: job.store.tags(key))
        wanted = {**found, **tags}
        if wanted == found:
            return False
        if len(wanted) > MAX_TAGS:
            raise StepFailed(
                f"{key} would have {len(wanted)} tags, and S3 allows {MAX_TAGS}",
                hint="use names that it has already, or fewer tags",
            )
        await job.call("tag", lambda: job.store.tag(key, wanted))
    except NoSuchObject:  # deleted since it was listed: chunks are, when all is complete
        return False
    except Unsupported as error:
        raise StepFailed("the bucket's server has no object tags") from error
    return True
