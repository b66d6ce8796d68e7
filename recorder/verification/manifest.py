"""Reads what a manifest claims, and whether it contradicts itself. Pure; nothing is believed."""

from __future__ import annotations

from recorder.catalog import Document
from recorder.chunks import CHUNKS, chunk_number
from recorder.containers import output_format
from recorder.names import POSTPROCESS_RECORD
from recorder.provenance import missing_samples
from recorder.vcon_document import VCON
from recorder.verification.claims import (
    FINAL,
    WAV,
    Claims,
    Continuation,
    ListedChunk,
    Reading,
    texts,
)
from recorder.verification.files import read_files
from recorder.verification.made import read_outputs, read_turns
from recorder.verification.report import Ledger, MissingAudio
from recorder.verification.scan import Wanted
from uploader.completion import RECORDING_ID


def read_claims(manifest: Document, folder: str, ledger: Ledger, recording_id: str) -> Claims:
    """Return what a manifest says, after entering whether it agrees with itself.

    Args:
        manifest: Its content.
        folder: Where it lies.
        ledger: Where comparisons are entered.
        recording_id: Whose it must be.
    """
    claims = Claims(folder, recording_id)
    reading = Reading(manifest, claims, ledger)
    _read_head(reading)
    _read_chunks(reading)
    _read_gaps(reading)
    read_outputs(reading)
    read_turns(reading)
    read_files(reading)
    _read_continuations(reading)
    return claims


def _read_head(reading: Reading) -> None:
    claims, manifest = reading.claims, reading.manifest
    state = manifest.text("state")
    claims.final = state in FINAL
    found = f"{state}, so that there is nothing final to prove"
    reading.holds(claims.final, "state", " or ".join(FINAL), found)
    if claims.final and "sealed" in manifest.values:
        reading.holds(manifest.flag("sealed"), "sealed", "true, as it is complete", "not true")
    day, _, below = claims.folder.removeprefix("dt=").partition("/")
    late = below.removeprefix(f"{claims.recording_id}/").rstrip("/")
    reading.equal("recording_id", claims.recording_id, manifest.text("recording_id"))
    reading.equal("day", day, manifest.text("day"))
    reading.equal("continuation", late, manifest.text("continuation"))
    claims.sample_rate = rate = manifest.count("sample_rate")
    reading.holds(rate > 0, "sample_rate", "1 or more", str(rate))
    claims.first_sample = manifest.count("first_sample")
    if not late:
        reading.equal("first_sample", 0, claims.first_sample)
    claims.samples = manifest.count("samples")
    reading.seconds("duration_seconds", claims.samples, manifest.number("duration_seconds"))
    longest = manifest.count("chunk_samples")
    reading.holds(longest > 0, "chunk_samples", "1 or more", str(longest))
    reading.seconds("chunk_seconds", longest, manifest.number("chunk_seconds"))
    if missing := missing_samples(manifest):
        whole = str(claims.samples + missing)
        reading.holds(not claims.final, "samples, as were imported", whole, str(claims.samples))
    claims.tracks = tuple(track.text("name") for track in manifest.items("tracks"))
    reading.once("track", claims.tracks)
    kept = "chunks_kept" if "chunks_kept" in manifest.values else "keep_chunks"
    claims.kept = manifest.flag(kept) or not claims.final
    claims.leftovers = frozenset(texts(manifest, "leftovers"))
    claims.named.add(claims.manifest_key)
    claims.named.add(claims.folder + POSTPROCESS_RECORD)
    claims.named.add(claims.folder + VCON)  # made of the manifest, and told by its own hashes
    try:
        claims.form = output_format(manifest.text("format"))
    except ValueError as error:
        reading.holds(False, "format", "a format", str(error))


def _read_chunks(reading: Reading) -> None:
    claims, listed = reading.claims, reading.manifest.items("chunks")
    before = len(reading.ledger.findings)
    number, position, tracks = 1, claims.first_sample, tuple[str, ...]()
    if listed and claims.first_sample:
        # Late audio keeps the chunks it had: their numbers, and where the first begins.
        number = max(1, listed[0].count("number"))
        position = min(position, max(0, listed[0].count("first_sample")))
    for index, chunk in enumerate(listed):
        what = f"chunk {number}, "
        reading.equal(f"{what}number", number, chunk.count("number"))
        reading.equal(f"{what}first_sample", position, chunk.count("first_sample"))
        read = _chunk(reading, chunk, number, position, what)
        longest = reading.manifest.count("chunk_samples")
        if index < len(listed) - 1:
            reading.equal(f"{what}samples", longest, read.samples)
        else:
            good = 0 < read.samples <= longest
            reading.holds(good, f"{what}samples", f"1 to {longest}", str(read.samples))
        if not read.lost:
            joined, known = ", ".join(read.tracks) or "none", ", ".join(tracks) or "none"
            good = read.tracks[: len(tracks)] == tracks
            reading.holds(good, f"{what}tracks", f"first those before, {known}", joined)
            tracks = read.tracks
        number, position = number + 1, read.end
        claims.chunks.append(read)
    total = max(0, position - claims.first_sample)
    reading.equal("samples, as the sum of all chunks", total, claims.samples)
    known = ", ".join(claims.tracks[: len(tracks)])
    reading.equal("tracks, as in the last chunk", ", ".join(tracks), known)
    claims.whole = len(reading.ledger.findings) == before


def _chunk(
    reading: Reading, chunk: Document, number: int, first_sample: int, what: str
) -> ListedChunk:
    claims, samples = reading.claims, max(0, chunk.count("samples"))
    tracks, lost = texts(chunk, "tracks"), chunk.flag("lost")
    channels = max(1, len(tracks))  # of no tracks, a silent one
    checksum = None
    if not lost:
        size = WAV.header_bytes + 2 * channels * samples
        reading.equal(f"{what}bytes", size, chunk.count("bytes"))
        checksum = reading.checksum(f"{what}checksum", chunk.text("checksum"))
    name = chunk.text("file") or f"{number:06d}.wav"
    good = chunk_number(CHUNKS + name) == number
    reading.holds(good, f"{what}file", f"one of chunk {number}", repr(name))
    wanted = Wanted(
        kind="chunk",
        key=f"{claims.folder}{CHUNKS}{name}",
        bytes=chunk.count("bytes"),
        checksum=checksum,
        samples=samples,
        channels=channels,
        sample_rate=claims.sample_rate,
        metadata={
            RECORDING_ID: claims.recording_id,
            "recorder-sequence": str(number),
            "recorder-first-sample": str(first_sample),
            "recorder-samples": str(samples),
            "recorder-channels": str(len(tracks)),
            "recorder-sample-rate": str(claims.sample_rate),
        },
    )
    return ListedChunk(wanted, number, first_sample, samples, tracks, lost)


def _read_gaps(reading: Reading) -> None:
    claims, listed = reading.claims, reading.manifest.items("gaps")
    known = ", ".join(claims.tracks) or "none"
    for number, gap in enumerate(listed, 1):
        track, start = gap.text("track"), gap.count("start")
        end = None if gap.values.get("end") is None else gap.count("end")
        claims.gaps.append(MissingAudio(claims.folder, track, start, end, gap.text("reason")))
        good = 0 <= start <= (claims.end if end is None else end) <= claims.end
        found = f"{start} to {'no known end' if end is None else end}"
        inside = f"inside samples 0 to {claims.end}"
        reading.holds(good, f"gap {number}, range", inside, found)
        reading.holds(track in claims.tracks, f"gap {number}, track", f"of {known}", track)
    if claims.final:
        state = FINAL[1] if listed else FINAL[0]
        reading.equal(f"state with {len(listed)} gaps", state, reading.manifest.text("state"))
    for chunk in claims.chunks:
        if chunk.lost:
            inside = f"samples {chunk.first_sample} to {chunk.end} in gaps"
            covered = _covered(claims, chunk.first_sample, chunk.end)
            reading.holds(covered, f"chunk {chunk.number}, lost", inside, "not all of them")


def _covered(claims: Claims, start: int, end: int) -> bool:
    """Return whether gaps, of whatever tracks, cover samples [start, end)."""
    ranges = [(gap.start, claims.end if gap.end is None else gap.end) for gap in claims.gaps]
    for first, last in sorted(ranges):
        if first <= start < last:
            start = last
    return start >= end


def _read_continuations(reading: Reading) -> None:
    claims, listed = reading.claims, reading.manifest.items("continuations")
    reading.once("continuation", (one.text("folder") for one in listed))
    for one in listed:
        folder = one.text("folder")
        name = folder.removeprefix(claims.folder)
        good = folder.startswith(claims.folder) and name.startswith("continuation-")
        good = good and name.endswith("/") and name.count("/") == 1
        expected = f"{claims.folder}continuation-.../"
        if reading.holds(good, "continuation, folder", expected, repr(folder)):
            samples = None if one.values.get("samples") is None else one.count("samples")
            late = Continuation(folder, one.count("first_sample"), samples)
            if late.folder not in {other.folder for other in claims.continuations}:
                claims.continuations.append(late)
