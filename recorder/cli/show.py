"""`recorder show`: everything the store has of one recording."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recorder.catalog import Catalog, Details, Document
from recorder.chunks import CHUNKS, OPEN_CHUNK
from recorder.cli import options, output, runtime
from recorder.names import shown
from recorder.provenance import imported_from, missing_samples
from uploader.store import ObjectInfo, Store

_DONE = ("completed", "completed_with_gaps")


def show(
    recording_id: options.RecordingId,
    bucket: options.Bucket = None,
    day: options.Day = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Show one recording: its state, chunks, outputs, uploads in progress, turns and gaps."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        name, chosen = options.one_recording(recording_id, day)
        async with options.open_store(bucket) as store:
            details = await Catalog(store).find(name, chosen)
            if as_json:
                output.print_json(_plain(details, store))
            else:
                _print(output.stdout(), details, store)
        return runtime.SUCCESS

    runtime.run(work, console, verbose)


def _plain(details: Details, store: Store) -> dict[str, Any]:
    recording = details.recording
    uploads = None
    if recording.uploads is not None:
        uploads = [
            {
                "key": upload.key,
                "upload_id": upload.upload_id,
                "initiated": upload.initiated.isoformat() if upload.initiated else None,
                "parts": [{"number": part.number, "bytes": part.size} for part in parts or ()],
            }
            for upload, parts in zip(recording.uploads, details.parts, strict=True)
        ]
    return {
        "recording_id": recording.recording_id,
        "state": recording.state,
        "url": store.url(recording.folder),
        "problem": recording.problem,
        "written_at": recording.written.isoformat() if recording.written else None,
        "other_days": details.other_days,
        "manifest": recording.manifest.values,
        "objects": [
            {
                "key": info.key,
                "url": store.url(info.key),
                "bytes": info.size,
                "modified": info.modified.isoformat() if info.modified else None,
            }
            for info in details.objects.values()
        ],
        "uploads": uploads,
    }


def _print(console: Console, details: Details, store: Store) -> None:
    _print_head(console, details, store)
    manifest, folder = details.recording.manifest, details.recording.folder
    _print_outputs(console, manifest, details.objects, folder)
    _print_files(console, manifest, details.objects, folder)
    _print_chunks(console, details)
    _print_uploads(console, details)
    _print_turns(console, manifest)
    _print_gaps(console, manifest)
    _print_continuations(console, manifest, folder)
    _print_leftovers(console, details)


def _print_head(console: Console, details: Details, store: Store) -> None:
    recording = details.recording
    manifest, now = recording.manifest, datetime.now(UTC)
    head = output.table("", "")
    head.show_header = False
    written = output.ago(recording.written, now)
    rate = manifest.count("sample_rate")
    length = output.seconds(manifest.number("duration_seconds"))
    tracks = ", ".join(_track(one) for one in manifest.items("tracks"))
    ownership = f"epoch {manifest.count('epoch')}, revision {manifest.count('revision')}"
    rows: list[tuple[str, object]] = [
        ("recording", recording.recording_id),
        ("state", output.state_text(recording.state)),
        ("problem", recording.problem),
        ("at", store.url(recording.folder)),
        ("also on", ", ".join(details.other_days)),
        ("started", f"{output.moment(recording.started_at)} UTC"),
        ("length", f"{length} ({manifest.count('samples'):,} samples at {rate} Hz)"),
        ("tracks", tracks),
        ("imported", _imported(manifest)),
        ("metadata", _pairs(manifest.pairs("metadata"))),
        ("tags", _pairs(manifest.pairs("tags"))),
        ("manifest", f"{ownership}" + (f", written {written}" if written else "")),
        ("recovered", Text("\n".join(_taken_over(one) for one in manifest.items("recovered")))),
    ]
    for name, value in rows:
        if value:
            output.add_row(head, (name, value))
    console.print(head)


def _track(one: Document) -> str:
    participant = f", {shown(one.text('participant'))}" if one.text("participant") else ""
    return f"{one.text('name')} ({one.text('source')}{participant})"


def _imported(manifest: Document) -> Text | str:
    """Return who made it, of which files, and what did not come."""
    imported = imported_from(manifest)
    if imported is None:
        return ""
    who = " ".join(filter(None, (imported.text("provider"), imported.text("provider_id"))))
    files = [output.clean(one.text("url")) for one in imported.items("files")]
    lines = [f"from {output.clean(who)}", *files]
    if (missing := missing_samples(manifest)) and manifest.text("state") in _DONE:
        short = output.seconds(missing / max(1, manifest.count("sample_rate")))
        lines.append(f"cut off, the last {short} are missing: import it again")
    return Text("\n".join(lines))


def _taken_over(one: Document) -> str:
    at = one.time("at")
    when = f", {output.moment(at)} UTC" if at else ""
    return f"from the {output.clean(one.text('from')) or '?'}{when}, epoch {one.count('epoch')}"


def _pairs(found: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.items())


def _print_outputs(
    console: Console, manifest: Document, objects: dict[str, ObjectInfo], folder: str
) -> None:
    outputs = manifest.items("outputs")
    clips = [turn for turn in manifest.items("turns") if turn.text("key")]
    if not outputs and not clips:
        return
    table = output.table("output", "object", "state", "size>", "length>", "parts>", "crc64nvme")
    for made in outputs:
        key, state = made.text("key"), made.text("state")
        output.add_row(
            table,
            (
                made.text("name"),
                key.removeprefix(folder),
                output.state_text(state, _object_problem(made, objects, state)),
                output.size(made.count("bytes")) if made.count("bytes") else "",
                output.seconds(made.number("duration_seconds")) if made.count("bytes") else "",
                made.count("parts") or "",
                made.text("checksum"),
            ),
        )
    for turn in clips:
        info = objects.get(turn.text("key"))
        stored: str | Text = output.state_text("missing") if info is None else "stored"
        name = turn.text("key").removeprefix(folder)
        amount = "" if info is None else output.size(info.size)
        output.add_row(table, ("turn", name, stored, amount, "", "", ""))
    console.print()
    console.print(table)
    for made in outputs:
        if reason := made.text("reason"):
            output.print_note(console, f"{made.text('name')}: {reason}")


def _print_files(
    console: Console, manifest: Document, objects: dict[str, ObjectInfo], folder: str
) -> None:
    """Print what was made of the recording beside its outputs: waveform, exports."""
    told = manifest.values.get("peaks")
    peaks = Document(told) if isinstance(told, dict) else None
    exports = manifest.items("exports")
    if peaks is None and not exports:
        return
    table = output.table("file", "state", "size>", "of")
    if peaks is not None:
        shape = f"{peaks.count('length'):,} points of {peaks.count('samples_per_pixel'):,} samples"
        good = peaks.text("state") == "completed"
        _add_file(table, peaks, objects, folder, shape if good else "")
    for one in exports:
        begin, rate = one.count("first_sample"), manifest.count("sample_rate")
        start = f", from {output.seconds(begin / rate)}" if begin and rate > 0 else ""
        length = output.seconds(one.number("duration_seconds"))
        lossy = ", from Opus" if one.values.get("lossy_source") is True else ""
        _add_file(table, one, objects, folder, f"{one.text('layout')}, {length}{start}{lossy}")
    console.print()
    console.print(table)
    if peaks is not None and (reason := peaks.text("reason")):
        output.print_note(console, f"waveform: {reason}")


def _add_file(
    table: Table, told: Document, objects: dict[str, ObjectInfo], folder: str, of: str
) -> None:
    state = told.text("state") or "completed"
    text = output.state_text(state, _object_problem(told, objects, state))
    size = output.size(told.count("bytes")) if told.count("bytes") else ""
    output.add_row(table, (told.text("key").removeprefix(folder), text, size, of))


def _object_problem(made: Document, objects: dict[str, ObjectInfo], state: str) -> str:
    if state != "completed":
        return ""
    info = objects.get(made.text("key"))
    if info is None:
        return ", but the object is missing"
    if info.size != made.count("bytes"):
        return f", but the object has {info.size} bytes"
    return ""


def _print_chunks(console: Console, details: Details) -> None:
    manifest, folder = details.recording.manifest, f"{details.recording.folder}{CHUNKS}"
    chunks = manifest.items("chunks")
    stored = {key.removeprefix(folder) for key in details.objects if key.startswith(folder)}
    done = details.recording.state in _DONE and not manifest.flag("chunks_kept")
    console.print()
    if not chunks and not stored:
        console.print("no chunks yet")
        return
    table = output.table("chunk>", "first sample>", "samples>", "size>", "object")
    for chunk in chunks:
        file = chunk.text("file") or f"{chunk.count('number'):06d}.wav"
        if chunk.flag("lost"):
            there: str | Text = output.state_text("lost", ", outputs are silent there")
        elif file in stored:
            there = "stored"
        else:
            there = "removed, outputs are complete" if done else output.state_text("missing")
        output.add_row(
            table,
            (
                chunk.count("number"),
                f"{chunk.count('first_sample'):,}",
                f"{chunk.count('samples'):,}",
                output.size(chunk.count("bytes")),
                there,
            ),
        )
        stored.discard(file)
    console.print(table)
    if OPEN_CHUNK in stored:
        stored.discard(OPEN_CHUNK)
        console.print(f"{OPEN_CHUNK}: the beginning of the chunk that is still open")
    if stored:
        console.print(f"{len(stored)} more stored that the manifest does not list yet")


def _print_uploads(console: Console, details: Details) -> None:
    recording = details.recording
    if recording.uploads is None:
        console.print("\nuploads in progress: no permission to list them")
        return
    if not recording.uploads:
        return
    table = output.table("upload in progress", "begun (UTC)", "parts>", "size>", "part numbers")
    for upload, parts in zip(recording.uploads, details.parts, strict=True):
        known = parts or []
        output.add_row(
            table,
            (
                upload.key.removeprefix(recording.folder),
                output.moment(upload.initiated),
                len(known) if parts is not None else "ended",
                output.size(sum(part.size for part in known)),
                ", ".join(f"{part.number} ({output.size(part.size)})" for part in known),
            ),
        )
    console.print()
    console.print(table)


def _print_turns(console: Console, manifest: Document) -> None:
    turns, rate = manifest.items("turns"), manifest.count("sample_rate")
    if not turns or rate <= 0:
        return
    table = output.table("turn>", "speaker", "from>", "to>", "")
    for turn in turns:
        goes_on = turn.values.get("end") is None
        output.add_row(
            table,
            (
                turn.count("number"),
                turn.text("track"),
                output.seconds(turn.count("start") / rate),
                "goes on" if goes_on else output.seconds(turn.count("end") / rate),
                "interrupted" if turn.flag("interrupted") else "",
            ),
        )
    console.print()
    console.print(table)


def _print_gaps(console: Console, manifest: Document) -> None:
    gaps = manifest.items("gaps")
    if not gaps:
        return
    table = output.table("gap in", "from sample>", "to sample>", "reason")
    for gap in gaps:
        start = f"{gap.count('start'):,}"
        end = "unknown" if gap.values.get("end") is None else f"{gap.count('end'):,}"
        output.add_row(table, (gap.text("track"), start, end, gap.text("reason")))
    console.print()
    console.print(table)


def _print_continuations(console: Console, manifest: Document, folder: str) -> None:
    """Print what was attached to a recording that another host had finished already."""
    continuations, rate = manifest.items("continuations"), manifest.count("sample_rate")
    if not continuations:
        return
    table = output.table("late audio in", "first sample>", "samples>", "length>")
    for one in continuations:
        samples, known = one.count("samples"), one.values.get("samples") is not None
        output.add_row(
            table,
            (
                one.text("folder").removeprefix(folder),
                f"{one.count('first_sample'):,}",
                f"{samples:,}" if known else "not finished",
                output.seconds(samples / rate) if known and rate > 0 else "",
            ),
        )
    console.print()
    console.print(table)


def has_peaks(manifest: Document) -> bool:
    """Return whether a manifest tells of a waveform."""
    told = manifest.values.get("peaks")
    return isinstance(told, dict) and told.get("state") == "completed"


def leftovers(manifest: Document) -> list[str]:
    """Return the keys of the objects that should be gone and could not be deleted."""
    listed = manifest.values.get("leftovers")
    return [key for key in listed if isinstance(key, str)] if isinstance(listed, list) else []


def _print_leftovers(console: Console, details: Details) -> None:
    """Print which superfluous objects the bucket did not let go."""
    keys = leftovers(details.recording.manifest)
    if not keys:
        return
    console.print()
    console.print(f"{output.many(len(keys), 'object')} left over that could not be deleted:")
    for key in keys:
        gone = "" if key in details.objects else " (gone by now)"
        name = key.removeprefix(details.recording.folder)
        console.print(output.clean(f"  {name}{gone}"), soft_wrap=True)
