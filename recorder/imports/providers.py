"""Who made a recording, as the names of its files tell, or what its provider wrote beside them.

Sources of the formats:

* Daily, raw-tracks: `<start>-<participant>-<track>-<track start>[.webm]`, times in milliseconds
  since 1970, the track `cam-audio`, `screen-audio` or one of video: Readme, "notes", of
  kwindla/python-raw-tracks-align, and daily-co/raw-tracks-tools.
* Daily, cloud: a key that ends with the start in milliseconds, as in Daily's documentation,
  "Storing Daily call recordings in a custom Amazon S3 bucket".
* Twilio: Twilio documentation, "Recordings resource": a recording's `sid` is `RE` and 32 digits. Of
  two channels the first is what Twilio received, the caller, and the second what it played.
* LiveKit: livekit/egress, pkg/config/manifest.go: a JSON object beside the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from recorder.catalog import Document
from recorder.imports.library import Library, Source
from recorder.imports.request import ImportRefused, Provider
from recorder.names import as_participant, shown

_RAW_TRACK = re.compile(
    r"(?P<start>\d{13})-(?P<who>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"-(?P<media>[a-z][a-z0-9-]*)-(?P<track>\d{13})(?:\.[a-z0-9]+)?"
)
_CLOUD = re.compile(r"(?P<start>\d{13})(?:\.(?:mp4|m4a|mp3|webm))?")
_TWILIO = re.compile(r"(RE[0-9a-f]{32})", re.ASCII)
_MANIFEST_BYTES = 1024 * 1024
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known of a file before it is opened.

    Attributes:
        source: The file.
        offset: Where it begins on the recording's clock, seconds.
        participant: Whose it is, if it is one participant's alone.
        media: What of the participant: empty for the microphone.
        session_clock: Whether times in the file may count from the recording's start.
    """

    source: Source
    offset: float = 0.0
    participant: str | None = None
    media: str = ""
    session_clock: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from.

    Attributes:
        provider: Who made them.
        provider_id: What the provider calls the recording; empty if it is not known.
        started_at: When it began; None if it is not known.
        hints: The files, in order.
    """

    provider: Provider
    provider_id: str
    started_at: datetime | None
    hints: tuple[Hint, ...]


async def recognise(
    library: Library, sources: Sequence[Source], provider: Provider | None
) -> Origin:
    """Return where files come from.

    Raises:
        ImportRefused: They are not of the provider that was named, or of several recordings.
        StoreError: A bucket refuses, or does not answer.
    """
    if provider in (None, "livekit"):
        manifests = [one for one in sources if one.name.endswith(".json")]
        if manifests or provider:
            return await _livekit(library, sources, manifests)
    if provider in (None, "daily"):
        raw = [_RAW_TRACK.fullmatch(one.name) for one in sources]
        if any(raw):
            return _raw_tracks(sources, raw)
        cloud = _CLOUD.fullmatch(sources[0].name)
        if len(sources) == 1 and cloud:
            return Origin("daily", cloud["start"], _ms(cloud["start"]), (Hint(sources[0]),))
        if provider:
            _refuse(sources, provider, "a raw track, or a name that is its start in milliseconds")
    if provider in (None, "twilio"):
        sid = _TWILIO.search(sources[0].name)
        if len(sources) == 1 and (sid or provider):
            return Origin("twilio", sid[1] if sid else "", None, (Hint(sources[0]),))
        if provider:
            _refuse(sources, provider, "one recording: RE and 32 digits")
    return Origin("file", "", None, tuple(map(Hint, sources)))


def _refuse(sources: Sequence[Source], provider: Provider, expected: str) -> None:
    names = ", ".join(shown(one.name) for one in sources[:3])
    raise ImportRefused(
        f"{names}: not what {provider} calls its recordings",
        hint=f"expected is {expected}; leave --provider out, or say `file`",
    )


def _raw_tracks(sources: Sequence[Source], found: Sequence[re.Match[str] | None]) -> Origin:
    starts = {match["start"] for match in found if match}
    if len(starts) > 1:
        raise ImportRefused(
            f"raw tracks of {len(starts)} recordings, which began at {', '.join(sorted(starts))}",
            hint="name one recording's: s3://bucket/.../" + min(starts) + "-*",
        )
    start = starts.pop()
    hints = []
    for source, match in zip(sources, found, strict=True):
        if match is None or not match["media"].endswith("audio"):
            continue  # video, an event log, a playlist
        media = match["media"].removesuffix("audio").rstrip("-")
        offset = max(0, int(match["track"]) - int(start)) / 1000
        media = "" if media == "cam" else media
        hints.append(Hint(source, offset, match["who"], media, session_clock=True))
    if not hints:
        raise ImportRefused(f"no audio among {len(sources)} raw tracks")
    hints.sort(key=lambda one: (one.offset, one.source.name))
    return Origin("daily", start, _ms(start), tuple(hints))


def _ms(text: str) -> datetime:
    return datetime.fromtimestamp(int(text) / 1000, UTC)


async def _livekit(
    library: Library, sources: Sequence[Source], manifests: Sequence[Source]
) -> Origin:
    if not manifests:
        return Origin("livekit", "", None, tuple(map(Hint, sources)))
    given = {one.name: one for one in sources if one not in manifests}
    read: list[tuple[int, Document, Source]] = []
    for manifest in manifests:
        body = await library.text(manifest, _MANIFEST_BYTES)
        try:
            values = json.loads(body)
        except ValueError:
            values = None
        document = Document(values if isinstance(values, dict) else {})
        if not document.text("egress_id"):
            raise ImportRefused(
                f"{manifest.url} is no manifest of LiveKit's Egress",
                hint="it is a JSON object with egress_id, started_at and files",
            )
        if document.text("track_kind") == "VIDEO":
            continue
        files = [one.text("filename").rpartition("/")[2] for one in document.items("files")]
        if not files:  # before there was a list, the manifest had the file's name and .json
            files = [manifest.name.removesuffix(".json")]
        for name in files:
            source = given.pop(name, None) or await library.sibling(manifest, name)
            if source is None:
                raise ImportRefused(f"{manifest.url} names {shown(name)}, which is not beside it")
            read.append((document.count("started_at"), document, source))
    if given:
        names = ", ".join(map(shown, given))
        raise ImportRefused(f"no manifest names {names}", hint="leave one or the other out")
    if not read:
        raise ImportRefused("the manifests are all of video")
    read.sort(key=lambda one: (one[0], one[2].name))
    rooms = {document.text("room_id") for _, document, _ in read}
    if len(rooms) > 1:
        raise ImportRefused(f"egresses of {len(rooms)} rooms: {', '.join(sorted(rooms))}")
    zero = read[0][0]
    hints = []
    for started, document, source in read:
        who = as_participant(document.text("publisher_identity"))
        source_kind = document.text("track_source").upper()
        media = "screen" if "SCREEN" in source_kind else ""
        hints.append(Hint(source, (started - zero) / _NS if started else 0.0, who, media))
    ids = list(dict.fromkeys(document.text("egress_id") for _, document, _ in read))
    began = datetime.fromtimestamp(zero / _NS, UTC) if zero > 0 else None
    return Origin("livekit", ",".join(ids), began, tuple(hints))
