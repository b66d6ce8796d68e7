"""Verifies one recording: reads its manifest, then every object that should be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date

from recorder.catalog import Catalog, Details, Document
from recorder.names import check_recording_id
from recorder.verification.claims import Claims, Continuation
from recorder.verification.examination import Examiner
from recorder.verification.files import Heard, heard_of, prove_files
from recorder.verification.manifest import read_claims
from recorder.verification.objects import Objects, Step
from recorder.verification.others import look_for_others, look_for_uploads
from recorder.verification.rendering import Rendering
from recorder.verification.report import Finding, Ledger, Proof, Report
from recorder.verification.scan import Scan, Wanted
from uploader.errors import BotRecorderError
from uploader.manifest import MANIFEST, parse
from uploader.store import ObjectInfo, Store

MAX_PARALLEL_OBJECTS = 4
"""Objects read at a time: each holds up to three pieces of 8 MiB."""


class UnreadableManifest(BotRecorderError):
    """A recording's manifest is none, so that there is nothing to compare with."""


async def verify(
    store: Store,
    recording_id: str,
    *,
    day: date | None = None,
    progress: Callable[[Step], None] = lambda step: None,
) -> Report:
    """Read a recording's objects back and compare them with its manifest.

    Every byte of every object is read once, in pieces; nothing is written.

    Args:
        store: Open.
        recording_id: Which.
        day: Of which day, for an id that was used on several; the newest if None.
        progress: Told how far it is.

    Raises:
        InvalidName: `recording_id` is none.
        NoSuchRecording: There is none.
        UnreadableManifest: Its manifest is none.
        StoreError: The store refuses, or does not answer.
    """
    details = await Catalog(store).find(check_recording_id(recording_id), day)
    if details.recording.problem:
        raise UnreadableManifest(details.recording.problem)
    return await _Verification(store, details, progress).run()


class _Verification:
    """One recording's, with the late audio that is attached to it."""

    def __init__(self, store: Store, details: Details, progress: Callable[[Step], None]) -> None:
        self._store = store
        self._details = details
        self._ledger = Ledger()
        self._objects = Objects(store, self._ledger.counts, progress)
        self._proofs: list[Proof] = []
        self._slots = asyncio.Semaphore(MAX_PARALLEL_OBJECTS)

    async def run(self) -> Report:
        """Verify, and return what came of it."""
        recording, ledger = self._details.recording, self._ledger
        folder, manifest = recording.folder, recording.manifest
        claims = read_claims(manifest, folder, ledger, recording.recording_id)
        late = [await self._late(one, claims) for one in claims.continuations]
        everything = [claims, *(one for one in late if one is not None)]
        look_for_others(everything, self._details.objects, ledger)
        look_for_uploads(everything, self._details, ledger)
        wanted = [one for claim in everything for one in _readable(claim)]
        listed = self._details.objects
        read = [*(one.key for one in wanted), *(one.key for c in everything for one in c.files)]
        self._objects.total = sum(listed[key].size for key in read if key in listed)
        like = {one.checksum: one.key for one in wanted if one.checksum is not None}
        examiner = Examiner(self._objects, ledger, listed.keys(), like)
        for claim in everything:
            heard = heard_of(claim)
            await self._prove(claim, examiner, heard)
            self._proofs += await prove_files(claim, self._objects, listed, ledger, heard)
        return Report(
            recording_id=recording.recording_id,
            folder=folder,
            url=self._store.url(folder),
            state=recording.state,
            samples=claims.samples,
            sample_rate=claims.sample_rate,
            duration_seconds=manifest.number("duration_seconds"),
            findings=tuple(sorted(ledger.findings, key=_manifests_first)),
            proofs=tuple(sorted(self._proofs, key=_outputs_first)),
            gaps=tuple(gap for claim in everything for gap in claim.gaps),
            notes=tuple(ledger.notes),
            continuations=tuple(claim.folder for claim in everything[1:]),
            other_days=tuple(self._details.other_days),
            counts=ledger.counts,
        )

    async def _late(self, said: Continuation, claims: Claims) -> Claims | None:
        """Return what the manifest of a continuation claims, or None if it cannot be read."""
        key, ledger = said.folder + MANIFEST, self._ledger
        if not ledger.holds(key in self._details.objects, key, "object", "a manifest", "no object"):
            return None
        body, _ = await self._objects.call("get_manifest", lambda: self._store.read(key))
        try:
            document = Document(parse(body, key))
        except (BotRecorderError, TypeError, RecursionError) as error:
            ledger.holds(False, key, "object", "a manifest", str(error) or "something else")
            return None
        late = read_claims(document, said.folder, ledger, claims.recording_id)
        ledger.equal(key, "first_sample", said.first_sample, late.first_sample)
        if said.samples is not None:
            ledger.equal(key, "samples", said.samples, late.samples)
        nested = ", ".join(one.folder for one in late.continuations)
        ledger.holds(not nested, key, "continuations", "none of a continuation", nested)
        return late

    async def _prove(self, claims: Claims, examiner: Examiner, heard: Heard | None) -> None:
        infos = await examiner.heads(claims.objects)
        there = [one for one in claims.objects if one.key in infos]
        rendering = Rendering(claims, self._objects, examiner)
        if claims.kept:
            await rendering.run(there)
            self._proofs += rendering.proofs
            lossy = [one for one in there if one.codec is not None and not one.codec.lossless]
            if len(there) > len(lossy) and not rendering.made and claims.chunks:
                note = "not all chunks are as they should be: outputs were not compared with them"
                self._ledger.notes.append(note)
            if lossy:
                note = f"{claims.form.name} changes samples: they cannot be compared with chunks"
                self._ledger.notes.append(note)
        await asyncio.gather(
            *(self._prove_one(one, infos[one.key], examiner, rendering, heard) for one in there)
        )
        if bare := sum(one.checksum is None for one in there):
            note = (
                f"the manifest has no checksums of {bare} clips: only their headers were compared"
            )
            self._ledger.notes.append(note)

    async def _prove_one(
        self,
        wanted: Wanted,
        info: ObjectInfo,
        examiner: Examiner,
        rendering: Rendering,
        heard: Heard | None,
    ) -> None:
        heard = heard if heard is not None and heard.key == wanted.key else None
        async with self._slots:
            scan = await examiner.scan(wanted, info, heard.waveform if heard else None)
            try:
                await self._prove_scanned(wanted, info, scan, examiner, rendering, heard)
            finally:
                scan.close()

    async def _prove_scanned(
        self,
        wanted: Wanted,
        info: ObjectInfo,
        scan: Scan,
        examiner: Examiner,
        rendering: Rendering,
        heard: Heard | None,
    ) -> None:
        rendition, where = rendering.made.get(wanted.key), ""
        read = rendition is not None and scan.size == info.size
        if rendition and read and not scan.holds(rendition.checksum, rendition.length):
            where = await rendering.difference(wanted, scan)
        damaged = wanted.checksum not in (None, scan.checksum)
        good = examiner.judge(wanted, info, scan, where)
        if rendition is not None and not damaged:
            there = "those of its chunks"
            good &= self._ledger.holds(not where, wanted.key, "samples", there, where)
        if heard is not None:
            heard.proved = good
        if good:
            self._proofs.append(scan.proof(wanted, rendered=rendition is not None))


def _readable(claims: Claims) -> list[Wanted]:
    """Return the objects that are to be read."""
    chunks = [chunk.wanted for chunk in claims.chunks if claims.kept and not chunk.lost]
    return [*claims.objects, *chunks]


def _manifests_first(finding: Finding) -> tuple[bool, str]:
    return not finding.key.endswith(MANIFEST), finding.key


def _outputs_first(proof: Proof) -> tuple[int, str]:
    return ("output", "turn", "chunk", "peaks", "export").index(proof.kind), proof.key
