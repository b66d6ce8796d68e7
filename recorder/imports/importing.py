"""Brings a recording made elsewhere into the store, through the same path as one made here.

First the files are brought here, hashed, and decoded to their end: nothing is begun for one that is
broken. Then they are played into a session on a virtual clock. Its id is made of their content, so
that the same files are the same recording, however often they are imported.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loguru import logger

from recorder.catalog import Catalog, NoSuchRecording, Recording
from recorder.imports.arrange import Voice, arrange, speakers
from recorder.imports.audio import Measured, measure
from recorder.imports.discard import discard, left_spool
from recorder.imports.feed import feed
from recorder.imports.library import Fetched, Library, Source
from recorder.imports.providers import Origin, recognise
from recorder.imports.request import ImportRefused, ImportRequest
from recorder.names import check_recording_id, new_recording_id
from recorder.plan import Plan
from recorder.provenance import missing_samples
from recorder.result import RecordingResult
from recorder.service import Recorder
from recorder.settings import Settings
from recorder.spool import SpoolBusy
from recorder.starting import OnEvent
from recorder.stores import make_store
from uploader.clock import VirtualClock
from uploader.errors import BotRecorderError
from uploader.store import Store

FINAL = ("completed", "completed_with_gaps")

OnStep = Callable[[str, float, float], None]
"""Told what is done (`reading`, `checking`, `importing`), how far it is, and of how much."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import.

    Attributes:
        recording_id: The recording's id.
        url: Its folder in the store.
        created: Whether it was made by this import; if not, it was there already, whole.
        imported: Where it comes from, as the manifest has it.
        result: How it came out; None if it was there already.
    """

    recording_id: str
    url: str
    created: bool
    imported: dict[str, Any]
    result: RecordingResult | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """An import, decided on."""

    plan_id: str
    started_at: datetime
    voices: Sequence[Voice]
    outputs: tuple[str, ...]
    sample_rate: int
    imported: dict[str, Any]

    @property
    def seconds(self) -> float:
        return float(max(voice.end for voice in self.voices))


async def import_recording(
    settings: Settings,
    request: ImportRequest,
    *,
    on_event: OnEvent | None = None,
    on_step: OnStep = lambda what, done, total: None,
) -> Imported:
    """Import a recording.

    Cancelled, or failing in the middle, it takes back what it has begun. What is whole but has not
    reached the bucket stays in the spool, and recovery finishes it, as with any recording.

    Args:
        settings: Where it goes, and how buckets are reached.
        request: What is imported.
        on_event: Called with each `recorder.events.Event`.
        on_step: Told how far it is.

    Raises:
        ImportRefused: The sources are not there, contradict each other, or their id is taken.
        UnreadableSource: A file is no audio, damaged, cut off, or empty.
        InvalidName: A name, metadata or tag is not allowed.
        SettingsError: An output or a sample rate that is not allowed.
        SpoolFull: The spool cannot take it.
        StoreError: A bucket refuses, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="bot-recorder-import-") as folder:
        async with Library(settings) as library:
            origin = await _recognised(library, request)
            sources = [hint.source for hint in origin.hints]
            fetched = await _fetch(library, sources, Path(folder), on_step)
        measured = await _measure(fetched, on_step)
        job = _decide(settings, request, origin, list(zip(fetched, measured, strict=True)))
        settings = settings.replace(outputs=job.outputs, sample_rate=job.sample_rate)
        there = await _make_way(settings, job)
        if there is not None:
            return there
        return await _record(settings, request, job, on_event, on_step)


async def _recognised(library: Library, request: ImportRequest) -> Origin:
    sources: dict[str, Source] = {}
    for text in request.sources:
        for source in await library.find(text):
            sources.setdefault(source.url, source)
    if not sources:
        raise ImportRefused("there is nothing to import")
    return await recognise(library, list(sources.values()), request.provider)


async def _fetch(
    library: Library, sources: Sequence[Source], folder: Path, on_step: OnStep
) -> list[Fetched]:
    total, done = sum(source.size for source in sources), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        on_step("reading", done, total)

    return [await library.fetch(source, folder, told) for source in sources]


async def _measure(files: Sequence[Fetched], on_step: OnStep) -> list[Measured]:
    found = []
    for index, file in enumerate(files):
        on_step("checking", index, len(files))
        found.append(await asyncio.to_thread(measure, file.path, file.source.url))
    return found


def _decide(
    settings: Settings,
    request: ImportRequest,
    origin: Origin,
    files: Sequence[tuple[Fetched, Measured]],
) -> _Job:
    voices = arrange(origin, files, request)
    started_at, said_by = _started_at(request, origin, files)
    tracks = speakers(voices)
    outputs = request.outputs
    if outputs is None:
        # Stereo of one voice is half silence.
        outputs = tuple(
            dict.fromkeys(
                "mono" if one == "stereo" and len(tracks) == 1 else one for one in settings.outputs
            )
        )
    rate = request.sample_rate or max(measured.sample_rate for _, measured in files)
    digest = _digest(voices)
    if request.recording_id is not None:
        name = check_recording_id(request.recording_id)
    elif said_by == "modified":  # of a copy, another time: the content alone says which it is
        name = f"import-{digest[:20]}"
    else:
        name = new_recording_id(started_at, digest[:12])
    end = max(voice.end for voice in voices)
    imported = {
        "provider": origin.provider,
        "provider_id": origin.provider_id,
        "sha256": digest,
        "samples": int(end * rate),
        "started_at_from": said_by,
        "files": [
            {
                "url": voice.file.source.url,
                "bytes": voice.file.source.size,
                "sha256": voice.file.sha256,
                "etag": voice.file.source.etag,
                "codec": voice.measured.codec,
                "sample_rate": voice.measured.sample_rate,
                "channels": voice.measured.channels,
                "samples": voice.measured.samples,
                "offset_seconds": round(float(voice.offset), 6),
                "tracks": list(voice.tracks),
            }
            for voice in voices
        ],
    }
    return _Job(name, started_at, voices, outputs, rate, imported)


def _digest(voices: Sequence[Voice]) -> str:
    """Return a SHA-256 that names the content: the file's own; of several, of their list."""
    if len(voices) == 1:
        return voices[0].file.sha256
    lines = sorted(f"{voice.file.sha256} {float(voice.offset):.6f}" for voice in voices)
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def _started_at(
    request: ImportRequest, origin: Origin, files: Sequence[tuple[Fetched, Measured]]
) -> tuple[datetime, str]:
    """Return when the recording began, and who says so."""
    if request.started_at is not None:
        return request.started_at.astimezone(UTC), "option"
    if origin.started_at is not None:
        return origin.started_at, "provider"
    for _, measured in files:
        if measured.created is not None:
            return measured.created.astimezone(UTC), "file"
    ends = [
        (fetched.source.modified - timedelta(seconds=measured.seconds))
        for fetched, measured in files
        if fetched.source.modified is not None
    ]
    return (min(ends) if ends else datetime.now(UTC)).astimezone(UTC), "modified"


async def _make_way(settings: Settings, job: _Job) -> Imported | None:
    """Return the import that is there already, whole; take back one that is not."""
    name = job.plan_id
    try:
        spool = await asyncio.to_thread(left_spool, settings.spool_dir, name)
    except SpoolBusy:
        raise ImportRefused(f"{name} is being imported, or recovered, just now") from None
    try:
        if spool is not None:
            _check_same(job, (spool.read_json("recording.json") or {}).get("imported"), "the spool")
        async with make_store(settings) as store:
            recording = await _found(store, name)
            if recording is None and spool is not None:
                plan = Plan.from_dict(spool.read_json("recording.json") or {})
                await discard(store, plan.folder, spool)
                spool = None
            if recording is None:
                return None
            url = store.url(recording.folder)
            manifest = recording.manifest
            _check_same(job, manifest.values.get("imported"), url)
            final = recording.state in FINAL
            if final and not missing_samples(manifest):
                _check_alike(job, recording, url)
                return Imported(name, url, created=False, imported=job.imported)
            if not final and spool is None:
                raise ImportRefused(
                    f"{url} is being imported by another host, or was cut off there",
                    hint="`recorder recover --bucket` finishes what there is of it; then import "
                    "it again, which replaces it",
                )
            logger.warning("an earlier import of {} was cut off: it is made anew", name)
            await discard(store, recording.folder, spool)
            spool = None
            return None
    finally:
        if spool is not None:
            spool.release()


def _check_same(job: _Job, imported: object, where: str) -> None:
    known = imported.get("sha256") if isinstance(imported, dict) else None
    if known != job.imported["sha256"]:
        raise ImportRefused(
            f"recording id {job.plan_id!r} is in use, by something else: {where}",
            hint="give another --id, or none to have one made",
        )


def _check_alike(job: _Job, recording: Recording, url: str) -> None:
    """Refuse to call another rendition of the same files the one that was asked for."""
    plan = recording.manifest
    tracks = [track.text("name") for track in plan.items("tracks")]
    asked = plan.values.get("outputs_asked")
    for what, has, wants in (
        ("tracks", ", ".join(tracks), ", ".join(one.name for one in speakers(job.voices))),
        (
            "outputs",
            ", ".join(map(str, asked)) if isinstance(asked, list) else "",
            ", ".join(job.outputs),
        ),
        ("sample rate", str(plan.count("sample_rate")), str(job.sample_rate)),
    ):
        if has != wants:
            raise ImportRefused(
                f"the same was imported already with other {what}, {has} and not {wants}: {url}",
                hint="for a second one, give it an --id of its own",
            )


async def _found(store: Store, recording_id: str) -> Recording | None:
    try:
        return (await Catalog(store).find(recording_id)).recording
    except NoSuchRecording:
        return None


async def _record(
    settings: Settings,
    request: ImportRequest,
    job: _Job,
    on_event: OnEvent | None,
    on_step: OnStep,
) -> Imported:
    clock = VirtualClock(utc=job.started_at)
    recorder = Recorder(settings, clock=clock, recover=False)
    whole = False
    try:
        async with recorder:
            call = await recorder.start(
                job.plan_id,
                metadata=request.metadata,
                tags=request.tags,
                tracks=speakers(job.voices),
                imported=job.imported,
                on_event=on_event,
            )
            try:
                await feed(
                    call,
                    clock,
                    job.voices,
                    flush_seconds=settings.chunk_seconds,
                    mark_turns="turns" in settings.outputs,
                    on_progress=lambda seconds: on_step("importing", seconds, job.seconds),
                )
            except BaseException:
                await recorder.close(wait_seconds=0)
                raise
            call.end()
            whole = True
    except BaseException:
        if not whole:
            await _take_back(settings, job)
        raise
    result = call.result
    if result is None:
        raise RuntimeError("a recording that was ended has no result")
    return Imported(job.plan_id, result.url, created=True, imported=job.imported, result=result)


async def _take_back(settings: Settings, job: _Job) -> None:
    """Remove what was begun; what cannot be removed now, the next import of the same finds."""
    try:
        spool = await asyncio.to_thread(left_spool, settings.spool_dir, job.plan_id)
        if spool is None:
            return
        try:
            plan = Plan.from_dict(spool.read_json("recording.json") or {})
            _check_same(job, plan.imported, str(spool.path))
            async with make_store(settings) as store:
                await discard(store, plan.folder, spool)
        finally:
            spool.release()
    except (BotRecorderError, OSError) as error:
        logger.error("what was begun of {} is still there: {}", job.plan_id, error)
