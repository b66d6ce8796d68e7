"""What a step of post-processing is, and what it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import aiohttp

from recorder.catalog import Document
from recorder.postprocess.subject import Subject
from recorder.settings import Settings
from recorder.settings_values import StepName
from uploader.errors import BotRecorderError
from uploader.retry import Retrier
from uploader.store import Store

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")


class StepFailed(BotRecorderError):
    """A step cannot do its work, and will not be able to until somebody does something."""


@dataclass(frozen=True, slots=True)
class Job:
    """A step's work on one recording.

    Attributes:
        subject: The recording; complete.
        store: Open.
        settings: Of the process.
        retrier: For requests to the store.
        http: For requests to others.
        log: Bound to the recording.
        steps: What the record says of the other steps, as far as it is of the same content.
    """

    subject: Subject
    store: Store
    settings: Settings
    retrier: Retrier
    http: aiohttp.ClientSession
    log: Logger
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def manifest(self) -> Document:
        """The recording's manifest."""
        return self.subject.manifest

    @property
    def folder(self) -> str:
        """Key prefix of everything of the recording."""
        return self.subject.place.folder

    async def call(self, op: str, request: Callable[[], Awaitable[T]]) -> T:
        """Make one request to the store through the retry layer; see `Retrier.call`."""
        return await self.retrier.call(op, request, log=self.log)


class Step(ABC):
    """One thing that is done with a recording. Doing it twice must do no harm.

    A step is done once for each content of a recording, and again when `parameters` change. It may
    be cancelled at any await, and run beside another of its kind if that is thought dead.

    Attributes:
        name: Its name, in settings and in the record.
        makes: Whether it writes objects.
        of_all: Whether it is about all objects, and so is to be done after each that makes some.
        last: Whether it waits for steps before it that are to be tried again.
    """

    name: ClassVar[StepName]
    makes: ClassVar[bool] = False
    of_all: ClassVar[bool] = False
    last: ClassVar[bool] = False

    def parameters(self, settings: Settings) -> str:
        """Return what, beside the recording, the result depends on; no secret."""
        return ""

    @abstractmethod
    async def run(self, job: Job) -> dict[str, Any]:
        """Do it.

        Returns:
            What came of it, as plain JSON types: kept in the record.

        Raises:
            StepFailed: It cannot be done, for good.
            StoreError: A retryable one: later. Another one: refused.
        """
