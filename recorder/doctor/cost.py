"""What recording needs and costs, by the settings: requests, bytes, spool. Pure.

The arithmetic is the recorder's own: chunks by `Settings.chunk_samples`, outputs and their parts by
`recorder.outputs` and `uploader.parts`. Requests that are repeated because they failed are not in
it, nor are those of recovery.

Prices are arguments. The defaults are Amazon's list prices for the region US East (N. Virginia) as
the page "Amazon S3 pricing" (https://aws.amazon.com/s3/pricing/) had them in 2025, first 50 TB of a
month, without tax. Other regions cost up to twice as much; other providers have prices of their
own. DELETE requests, and data that is sent to S3, cost nothing there. A GB is 2**30 bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recorder.chunks import Chunk
from recorder.containers import codec, output_format
from recorder.containers.wav import WAV
from recorder.journal_format import SEGMENT_BYTES
from recorder.outputs import OutputSpec, mixed_outputs, track_output
from recorder.settings import Settings
from recorder.verification.objects import pieces
from uploader.parts import part_count

GB = 2**30
HOUR = 3600.0
SAMPLE_BYTES = 2

SEGMENTS = 2
"""Of the journal, a live recording has at most so many mapped beside what is not sealed yet."""

PRICES_OF = "US East (N. Virginia), list prices of 2025"


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars.

    Attributes:
        put: Of 1,000 PUT, COPY, POST or LIST requests.
        get: Of 1,000 GET or HEAD requests.
        storage: Of a GB for a month.
    """

    put: float
    get: float
    storage: float


LIST_PRICES: Mapping[str, Prices] = {
    "STANDARD": Prices(0.005, 0.0004, 0.023),
    "INTELLIGENT_TIERING": Prices(0.005, 0.0004, 0.023),
    "STANDARD_IA": Prices(0.01, 0.001, 0.0125),
    "ONEZONE_IA": Prices(0.01, 0.001, 0.01),
    "GLACIER_IR": Prices(0.02, 0.01, 0.004),
    "GLACIER": Prices(0.03, 0.0004, 0.0036),
    "DEEP_ARCHIVE": Prices(0.05, 0.0004, 0.00099),
}
"""By storage class; see the module for where from and when. Classes that are not here are taken as
`STANDARD`. Infrequent and archive classes have minimum sizes and times, and prices of retrieval."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls are like.

    Attributes:
        call_seconds: Length of a call.
        tracks: Speakers of a call.
        turns_per_minute: Speaking turns, of all speakers together.
    """

    call_seconds: float = 600.0
    tracks: int = 2
    turns_per_minute: float = 8.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one call needs.

    Attributes:
        seconds: Its length.
        chunks: Chunks.
        open_chunks: Halves of chunks that are sent while those are open.
        puts: PUT-class requests for chunks, manifests, waveform and vCon, in the bucket's storage
            class.
        output_puts: PUT-class requests for outputs.
        gets: GET-class requests.
        deletes: Objects deleted.
        manifests: Writes of the manifest among `puts`, at most.
        parts: Parts among `output_puts`.
        sent_bytes: All that is sent.
        read_bytes: All that is read back, for the hashes of a vCon.
        stored_bytes: What stays in the bucket.
        spool_bytes_per_second: What the spool takes while the bucket is away.
        spool_bytes_at_once: What it takes of a live call in any case.
    """

    seconds: float
    chunks: int
    open_chunks: int
    puts: int
    output_puts: int
    gets: int
    deletes: int
    manifests: int
    parts: int
    sent_bytes: int
    read_bytes: int
    stored_bytes: int
    spool_bytes_per_second: float
    spool_bytes_at_once: int

    def outage_seconds(self, room: float, calls: int) -> float:
        """Return how long `calls` calls can go on in so many bytes while the bucket is away."""
        left = room - calls * self.spool_bytes_at_once
        return max(0.0, left / (calls * self.spool_bytes_per_second))

    def outage_bytes(self, seconds: float, calls: int) -> int:
        """Return what the spool has to hold of `calls` calls for so long an outage."""
        each = self.spool_bytes_at_once + seconds * self.spool_bytes_per_second
        return math.ceil(calls * each)


@dataclass(frozen=True, slots=True)
class Cost:
    """What an hour of recorded calls costs, US dollars.

    Attributes:
        requests: Of the hour, once.
        storage_month: Of each month that it is kept.
    """

    requests: float
    storage_month: float


def load_of(settings: Settings, usage: Usage) -> Load:
    """Return what one call needs."""
    rate, chunk = settings.sample_rate, settings.chunk_samples
    samples = round(usage.call_seconds * rate)
    chunks = max(1, math.ceil(samples / chunk))
    chunk_bytes = chunks * WAV.header_bytes + samples * SAMPLE_BYTES * usage.tracks
    # The open chunk's first half goes by itself once it is settled, if the call lasts that long.
    settled = chunk // 2 + settings.hold_back_seconds * rate
    halves = sum(number * chunk + settled <= samples for number in range(chunks))
    half_bytes = halves * (WAV.header_bytes + chunk // 2 * SAMPLE_BYTES * usage.tracks)
    outputs = _Outputs(settings, usage, samples)
    # Begin, uploads begun, final length, end; one with each chunk, and one with each half of a
    # chunk where turns are to be told of.
    manifests = 4 + chunks + halves
    manifest_bytes = _manifest_bytes(usage.tracks, rate, chunk, chunks)
    kept = chunk_bytes if settings.keep_chunks else 0
    # A vCon: a look whether it is there, and each output that it refers to, looked at and read.
    hashed = outputs.of_vcon() if settings.vcon else []
    vcon_gets = 1 + sum(1 + len(list(pieces("", size))) for size in hashed) if hashed else 0
    return Load(
        seconds=usage.call_seconds,
        chunks=chunks,
        open_chunks=halves,
        puts=chunks + halves + manifests + (1 if hashed else 0) + settings.peaks,
        output_puts=2 * outputs.count + outputs.parts,  # create and complete
        gets=outputs.count + vcon_gets,  # a HEAD of each
        deletes=(0 if settings.keep_chunks else chunks) + (1 if halves else 0),
        manifests=manifests,
        parts=outputs.parts,
        sent_bytes=chunk_bytes + half_bytes + outputs.bytes + manifests * manifest_bytes // 2,
        read_bytes=sum(hashed),
        stored_bytes=outputs.bytes + kept + manifest_bytes,
        spool_bytes_per_second=rate * SAMPLE_BYTES * usage.tracks + WAV.header_bytes * rate / chunk,
        spool_bytes_at_once=_live_bytes(settings, usage) + outputs.kept,
    )


class _Outputs:
    """The outputs of one call: how many, parts, bytes; and what the spool has of them."""

    def __init__(self, settings: Settings, usage: Usage, samples: int) -> None:
        form = output_format(settings.format)
        self._settings = settings
        self._part_bytes = settings.part_bytes
        self.count = self.parts = self.bytes = 0
        self.kept = 0
        self._sizes: dict[str, list[int]] = {}
        self._names = settings.outputs
        specs = mixed_outputs(settings.outputs, form)
        if "tracks" in settings.outputs:
            specs += [track_output(f"track-{number}", form) for number in range(usage.tracks)]
        for spec in specs:
            size = self._add(spec, samples)
            if codec(settings.format) is not None:  # part 1, and what is not sent yet
                self.kept += min(size, 2 * self._part_bytes)
        if "turns" in settings.outputs:
            turns = round(usage.turns_per_minute * usage.call_seconds / 60)
            # Somebody speaks all the time, one at a time; half of the turns are users'.
            pre_roll = settings.pre_roll_seconds * settings.sample_rate / 2
            for number in range(turns):
                spec = track_output(f"turn-{number}", form)
                self._add(spec, round(samples / turns + pre_roll))

    def _size(self, spec: OutputSpec, samples: int) -> int:
        """Return an output's bytes; about, where it is compressed."""
        settings = self._settings
        if (form := codec(settings.format)) is None:
            return WAV.header_bytes + samples * SAMPLE_BYTES * spec.channels
        rate, bitrate = settings.sample_rate, settings.opus_bitrate
        return form.typical_bytes(samples, rate, spec.channels, bitrate)

    def _add(self, spec: OutputSpec, samples: int) -> int:
        size = self._size(spec, samples)
        self.count += 1
        self.parts += part_count(size, self._part_bytes)
        self.bytes += size
        self._sizes.setdefault(spec.layout, []).append(size)
        return size

    def of_vcon(self) -> list[int]:
        """Return the sizes of the outputs that a vCon refers to; see `vcon_document`."""
        tracks = self._sizes.get("track", []) if "tracks" in self._names else []
        return self._sizes.get("stereo") or tracks or self._sizes.get("mono", [])


def _manifest_bytes(tracks: int, rate: int, chunk: int, chunks: int) -> int:
    """Return how long the list of chunks makes the last manifest."""
    names = tuple(f"track-{number}" for number in range(tracks))
    size = WAV.header_bytes + chunk * SAMPLE_BYTES * tracks
    one = Chunk(chunks, (chunks - 1) * chunk, chunk, names, size, 2**63)
    return chunks * len(json.dumps(one.to_dict()))


def _live_bytes(settings: Settings, usage: Usage) -> int:
    """Return what the spool has of a live call in any case: journal, reserve, part 1's chunks."""
    per_second = settings.sample_rate * SAMPLE_BYTES * usage.tracks
    chunk = settings.chunk_samples * SAMPLE_BYTES * usage.tracks
    open_seconds = settings.chunk_seconds + settings.hold_back_seconds + settings.stall_seconds
    journal = SEGMENTS * SEGMENT_BYTES + math.ceil(open_seconds * per_second)
    return journal + chunk


def cost_of(load: Load, storage_class: str | None, prices: Prices | None = None) -> Cost:
    """Return what an hour of such calls costs.

    Args:
        load: Of one call.
        storage_class: Of the outputs; None for the bucket's, taken as `STANDARD`.
        prices: Of everything; those of Amazon's list for the storage class if None.
    """
    standard = prices or LIST_PRICES["STANDARD"]
    outputs = prices or LIST_PRICES.get(storage_class or "STANDARD", standard)
    hour = HOUR / load.seconds
    requests = load.puts * standard.put + load.output_puts * outputs.put + load.gets * outputs.get
    return Cost(
        requests=hour * requests / 1000,
        storage_month=hour * load.stored_bytes / GB * outputs.storage,
    )


def per_hour(load: Load) -> dict[str, Any]:
    """Return a load's numbers for an hour of such calls, as plain JSON types."""
    hour = HOUR / load.seconds
    skipped = ("seconds", "spool_bytes_per_second", "spool_bytes_at_once")
    return {
        name: round(hour * value, 1) for name, value in asdict(load).items() if name not in skipped
    }
