"""What a manifest says of a waveform and of exports, and whether they are that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from recorder.catalog import Document
from recorder.export import EXPORTS
from recorder.outputs import mixed_layout
from recorder.plan import PEAKS
from recorder.verification.claims import Claims, Reading, WantedFile, texts
from recorder.verification.objects import Objects, pieces
from recorder.verification.report import Ledger, Proof
from recorder.waveform import BITS, InvalidWaveform, Parsed, Shape, Waveform
from uploader.checksum import crc64nvme, encode
from uploader.store import ObjectInfo

MAX_PEAKS_BYTES = 64 * 1024**2
"""A waveform that is larger is not read as one: an hour has less than a hundredth of it."""


def read_files(reading: Reading) -> None:
    """Enter what is said of the waveform and of exports, and take note of what should be there."""
    _read_peaks(reading)
    _read_exports(reading)


def _read_peaks(reading: Reading) -> None:
    claims, told = reading.claims, reading.manifest.values.get("peaks")
    if not isinstance(told, dict):
        return
    peaks, key = Document(told), claims.folder + PEAKS
    claims.named.add(key)
    reading.equal("peaks, key", key, peaks.text("key"))
    if peaks.text("state") != "completed":
        reading.ledger.notes.append(
            f"there is no waveform: {peaks.text('reason') or 'nobody knows why'}; "
            "`recorder peaks` makes it"
        )
        return
    layout = mixed_layout(texts(reading.manifest, "outputs_asked"))
    per_pixel = peaks.count("samples_per_pixel")
    channels = 1 if layout == "mono" else 2
    reading.equal("peaks, layout", layout, peaks.text("layout"))
    reading.equal("peaks, channels", channels, peaks.count("channels"))
    reading.equal("peaks, bits", BITS, peaks.count("bits"))
    if not reading.holds(per_pixel > 0, "peaks, samples_per_pixel", "1 or more", str(per_pixel)):
        return
    shape = Shape(claims.sample_rate, channels, per_pixel, claims.samples)
    reading.equal("peaks, length", shape.pixels, peaks.count("length"))
    checksum = reading.checksum("peaks, checksum", peaks.text("checksum"))
    size = peaks.count("bytes")
    claims.files.append(
        WantedFile("peaks", key, size, checksum, claims.samples, claims.sample_rate, shape)
    )


def _read_exports(reading: Reading) -> None:
    claims, listed = reading.claims, reading.manifest.items("exports")
    reading.once("export", (one.text("key") for one in listed))
    for one in listed:
        key, below = one.text("key"), claims.folder + EXPORTS
        good = key.startswith(below) and ".." not in key and key != below
        if not reading.holds(good, "export, key", f"{below}...", repr(key)) or key in claims.named:
            continue
        claims.named.add(key)
        what = f"export {key.removeprefix(below)}, "
        first, samples = one.count("first_sample"), one.count("samples")
        inside = f"inside samples 0 to {claims.end}"
        good = first >= 0 and samples > 0 and first + samples <= claims.end
        reading.holds(good, f"{what}range", inside, f"{first} to {first + samples}")
        reading.seconds(f"{what}duration_seconds", samples, one.number("duration_seconds"))
        checksum = reading.checksum(f"{what}checksum", one.text("checksum"))
        size = one.count("bytes")
        claims.files.append(WantedFile("export", key, size, checksum, samples, claims.sample_rate))


@dataclass(slots=True)
class Heard:
    """The waveform of the mixed output, as that was read; `proved` if it is what was recorded."""

    key: str
    waveform: Waveform
    proved: bool = False


def heard_of(claims: Claims) -> Heard | None:
    """Return a waveform to be filled while the output that it is of is read; None if none is."""
    for wanted in claims.files:
        for made in claims.objects:
            if wanted.shape is not None and made.spec is not None and made.kind == "output":
                layout = "mono" if wanted.shape.channels == 1 else "stereo"
                same = made.spec.layout == layout and made.samples == wanted.shape.samples
                exact = made.codec is None or made.codec.lossless
                if (
                    same
                    and exact
                    and 2 * wanted.shape.channels * wanted.shape.pixels <= MAX_PEAKS_BYTES
                ):
                    return Heard(made.key, Waveform(wanted.shape))
    return None


async def prove_files(
    claims: Claims,
    objects: Objects,
    listed: Mapping[str, ObjectInfo],
    ledger: Ledger,
    heard: Heard | None,
) -> Sequence[Proof]:
    """Read the waveform and the exports, and enter whether they are what they should be.

    Args:
        claims: What should be there.
        objects: Reads them.
        listed: What is there.
        ledger: Where comparisons are entered.
        heard: What the waveform should show, if its output was read.

    Raises:
        StoreError: The store refuses, or does not answer.
    """
    proofs = []
    for wanted in claims.files:
        proof = await _prove(wanted, objects, listed.get(wanted.key), ledger, heard)
        if proof is not None:
            proofs.append(proof)
    return proofs


async def _prove(
    wanted: WantedFile,
    objects: Objects,
    info: ObjectInfo | None,
    ledger: Ledger,
    heard: Heard | None,
) -> Proof | None:
    key = wanted.key
    expected = f"an object of {wanted.bytes} bytes"
    if info is None:
        ledger.holds(False, key, "object", expected, "no object")
        return None
    if not ledger.equal(key, "size", wanted.bytes, info.size, "bytes"):
        return None
    checksum, read, body = 0, 0, b""
    keep = wanted.kind == "peaks" and info.size <= MAX_PEAKS_BYTES
    async with aclosing(objects.stream(pieces(key, info.size))) as stream:
        async for _, data in stream:
            checksum, read = crc64nvme(data, checksum), read + len(data)
            body += data if keep else b""
    good = ledger.equal(key, "bytes read", info.size, read)
    if wanted.checksum is not None:
        good &= ledger.equal(key, "checksum", encode(wanted.checksum), encode(checksum))
    if good and wanted.shape is not None:
        heard = heard if heard is not None and heard.proved else None
        good = _is_shaped(key, wanted.shape, body, ledger, heard)
    if not good:
        return None
    return Proof(
        key=key,
        kind=wanted.kind,
        bytes=read,
        samples=wanted.samples,
        sample_rate=wanted.sample_rate,
        checksum=encode(checksum),
        compared=wanted.checksum is not None,
        rendered=wanted.shape is not None and heard is not None,
    )


def _is_shaped(key: str, shape: Shape, body: bytes, ledger: Ledger, heard: Heard | None) -> bool:
    """Enter whether a waveform says what the manifest says of it, and shows what was recorded."""
    try:
        found = Parsed.from_json(body)
    except InvalidWaveform as error:
        return ledger.holds(False, key, "format", "waveform data of version 2", str(error))
    good = ledger.equal(key, "sample_rate", shape.sample_rate, found.sample_rate)
    good &= ledger.equal(key, "channels", shape.channels, found.channels)
    good &= ledger.equal(key, "samples_per_pixel", shape.samples_per_pixel, found.samples_per_pixel)
    good &= ledger.equal(key, "bits", BITS, found.bits)
    good &= ledger.equal(key, "length", shape.pixels, found.length)
    if good and heard is not None:
        differ = (found.values != heard.waveform.values).any(axis=(1, 2))
        at = int(differ.argmax()) if differ.any() else -1
        good = ledger.holds(at < 0, key, "points", "those of the audio", f"another at point {at}")
    return good
