"""Puts the demo together: server, recorder, conversation, watching, and copies to listen to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recorder.catalog import Catalog
from recorder.demo.script import SCRIPT, Line
from recorder.demo.watch import Sighting, Watcher
from recorder.embedded import EmbeddedS3, find_weed
from recorder.events import ChunkUploaded, Event, OutputCompleted, PartUploaded
from recorder.names import new_recording_id
from recorder.result import RecordingResult
from recorder.service import OnEvent, Recorder, Starting
from recorder.settings import Settings
from uploader.errors import BotRecorderError
from uploader.store import MIN_PART_BYTES, ObjectInfo

BUCKET = "calls"
CHUNK_SECONDS = 3.0
OUTPUTS = ("stereo", "tracks", "turns")
INSTALL = "pip install 'bot-recorder[demo]'"

_BEYOND_SECONDS = 90.0
"""How much longer than the conversation the pipeline may take before something is wrong."""
_LONGEST_SCRIPT_SECONDS = 60.0


class _Observed(Recorder):
    """A recorder whose recordings' events are seen by the demo, too."""

    observer: OnEvent

    def start(
        self,
        recording_id: str | None = None,
        *,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> Starting:
        """See `Recorder.start`."""

        def both(event: Event) -> None:
            self.observer(event)
            if on_event is not None:
                on_event(event)

        return super().start(recording_id, on_event=both, **options)


class DemoError(BotRecorderError):
    """The demo cannot go on."""


@dataclass(slots=True)
class DemoReport:
    """What came of it.

    Attributes:
        recording_id: The recording's id.
        url: Its folder in the bucket.
        result: What the recorder says.
        sightings: What appeared in the bucket, and when.
        lines: What was said, and when.
        objects: What the bucket holds of it in the end.
        files: The copies: outputs and manifest.
        chunk_seconds: Length of a chunk.
    """

    recording_id: str
    url: str
    result: RecordingResult | None = None
    sightings: list[Sighting] = field(default_factory=list)
    lines: list[tuple[float, Line]] = field(default_factory=list)
    objects: list[ObjectInfo] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    chunk_seconds: float = CHUNK_SECONDS


class Demo:
    """One run.

    Args:
        data_dir: For the server's data, the spool and the copies; made if it is not there.
        seconds: Length of the call; as long as the script takes if None.
        on_step: Told what is being done, a phrase.
        on_line: Told of each line, with its time.
        on_sighting: Told of what appears in the bucket.

    Raises:
        DemoError: Something that the demo needs is not installed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        seconds: float | None = None,
        on_step: Callable[[str], None] = lambda text: None,
        on_line: Callable[[float, Line], None] = lambda at, line: None,
        on_sighting: Callable[[Sighting], None] = lambda sighting: None,
    ) -> None:
        if find_spec("pipecat") is None:
            raise DemoError("Pipecat is not installed", hint=INSTALL)
        find_weed()
        self._data_dir = data_dir.absolute()
        self._seconds = seconds
        self._on_step = on_step
        self._on_line = on_line
        self._on_sighting = on_sighting
        self._hang_up = asyncio.Event()
        self._calling = False
        self._task: asyncio.Task[Any] | None = None

    def stop(self) -> None:
        """Hang up; before the call has begun, end everything."""
        if self._calling:
            self._hang_up.set()
        elif self._task is not None:
            self._task.cancel()

    async def run(self) -> DemoReport:
        """Do it all. However it ends, the server has been stopped.

        Raises:
            EmbeddedServerError: The server did not come up.
            DemoError: The conversation did not come to its end.
        """
        self._task = asyncio.current_task()
        self._on_step("starting an S3 server")
        self._make_data_dir()
        async with EmbeddedS3(self._data_dir / "s3", bucket=BUCKET) as server:
            self._on_step(f"SeaweedFS answers at {server.endpoint_url}, bucket {BUCKET}")
            settings = self._settings(server)
            self._on_step(
                f"chunks of {settings.chunk_seconds:g} s, each sealed "
                f"{settings.hold_back_seconds:g} s after its end, because audio may come late"
            )
            name = new_recording_id(datetime.now(UTC))
            async with _Observed(settings) as recorder:
                report = await self._record(recorder, server, name)
            self._on_step("copying the recording out of the bucket")
            await self._copy(server, report)
        return report

    def _make_data_dir(self) -> None:
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DemoError(f"cannot make {self._data_dir}: {error.strerror}") from error

    def _settings(self, server: EmbeddedS3) -> Settings:
        return Settings(
            _env_file=None,
            bucket=BUCKET,
            prefix="",
            chunk_seconds=CHUNK_SECONDS,
            sample_rate=24_000,
            outputs=OUTPUTS,
            format="wav",
            part_bytes=MIN_PART_BYTES,
            spool_dir=self._data_dir / "spool",
            keep_chunks=False,
            metadata={"demo": "yes"},
            tags={},
            aws_region=server.region,
            aws_endpoint_url_s3=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        ).replace(storage_class=None, kms_key_id=None)

    async def _record(self, recorder: _Observed, server: EmbeddedS3, name: str) -> DemoReport:
        # Imported here: it takes a second, and Pipecat is an extra of its own.
        from recorder.demo.pipeline import converse
        from recorder.pipecat import RecorderProcessor

        processor = RecorderProcessor(
            recorder=recorder, recording_id=name, auto_start_recording=True
        )

        folder = f"dt={datetime.now(UTC):%Y-%m-%d}/{name}/"
        async with server.store() as store:
            report = DemoReport(name, store.url(folder))

            def tell(sighting: Sighting) -> None:
                report.sightings.append(sighting)
                self._on_sighting(sighting)

            watcher = Watcher(store, folder, tell)

            def observe(event: Event) -> None:
                match event:
                    case ChunkUploaded():
                        watcher.note_object(event.key, event.chunk.bytes)
                    case PartUploaded():
                        watcher.note_part(event.key, event.number, event.bytes)
                    case OutputCompleted():
                        watcher.note_object(event.key, event.bytes)

            recorder.observer = observe

            def say(line: Line) -> None:
                at = watcher.elapsed()
                report.lines.append((at, line))
                self._on_line(at, line)

            async with _watching(watcher):
                self._on_step("calling")
                self._calling = True
                limit = (self._seconds or _LONGEST_SCRIPT_SECONDS) + _BEYOND_SECONDS
                try:
                    async with asyncio.timeout(limit):
                        await converse(
                            processor,
                            SCRIPT,
                            hang_up=self._hang_up,
                            seconds=self._seconds,
                            on_start=watcher.restart,
                            on_line=say,
                        )
                except TimeoutError:
                    raise DemoError(f"the call has not ended after {limit:g} s") from None
                report.result = processor.result
                await recorder.close()  # which waits for the chunks to be removed
        return report

    async def _copy(self, server: EmbeddedS3, report: DemoReport) -> None:
        target = self._data_dir / report.recording_id
        async with server.store() as store:
            details = await Catalog(store).find(report.recording_id)
            report.objects = list(details.objects.values())
            for info in report.objects:
                name = info.key.removeprefix(details.recording.folder)
                if name.startswith("chunks/"):
                    continue
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(await store.get(info.key))
                report.files.append(path)


@contextlib.asynccontextmanager
async def _watching(watcher: Watcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await watcher.look()
