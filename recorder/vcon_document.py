"""A recording as a vCon: the IETF's container of a conversation, for whoever analyses it.

By draft-ietf-vcon-vcon-core-03, "The JSON format for vCon - Conversation Data Container". Sections
are named below as that document names them. The parameter `vcon`, a version, is deprecated there
and left out: no revision of the format that knows it as optional refuses a document without.

What becomes what:

| in the manifest | in the vCon |
|---|---|
| a track, and whose it is | a Party Object |
| an output object | a Dialog Object of type `recording`; several form a `recording-set` |
| when a speaker joined | `party_history` |
| turns | an Analysis Object of type `report`, schema `TURNS_SCHEMA` |
| missing audio | another one, schema `GAPS_SCHEMA` |
"""

from __future__ import annotations

import hashlib
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from recorder.catalog import Document
from recorder.layouts import BOT, stereo_sides
from uploader.errors import BotRecorderError

VCON = "vcon.json"
"""The object's name in the recording's folder."""

VENDOR = "bot-recorder"
TURNS_SCHEMA = "bot-recorder-turns-1"
GAPS_SCHEMA = "bot-recorder-gaps-1"
ORIGINATOR = "originator"
"""The recording's metadata that names the track of who called."""

FINAL = ("completed", "completed_with_gaps")

#: Section "mediatype" of the Dialog Object lists these names; others are told as they are.
_MEDIA_TYPES = {"wav": "audio/x-wav", "mp3": "audio/x-mp3", "ogg": "audio/ogg", "opus": "audio/ogg"}


class NoVcon(BotRecorderError, ValueError):
    """There is nothing that a vCon could be made of."""


@dataclass(frozen=True, slots=True)
class Content:
    """An object that a Dialog Object refers to (section "Externally Referenced Files").

    Attributes:
        url: Its https address.
        content_hash: See `content_hash`.
    """

    url: str
    content_hash: str


def content_hash(sha512: bytes) -> str:
    """Return a SHA-512 digest as a `ContentHash` (section "JSON Notation")."""
    return f"sha512-{urlsafe_b64encode(sha512).rstrip(b'=').decode('ascii')}"


def vcon_uuid(started_at: datetime, domain: str) -> str:
    """Return a version 8 UUID as section "uuid" makes it: the same for the same arguments.

    It is one of version 7 (RFC 9562, section 5.7: milliseconds, then by section 6.2, method 3, the
    rest of the millisecond) that ends with 62 bits of a host name's SHA-1.

    Args:
        started_at: When the conversation began.
        domain: A host name that is nobody else's; of a subdomain for each recording, two that
            begin together differ.
    """
    since = started_at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    ms, rest = divmod(since, timedelta(milliseconds=1))
    fraction = rest * 4096 // timedelta(milliseconds=1)
    digest = hashlib.sha1(domain.encode("utf-8"), usedforsecurity=False).digest()
    custom = int.from_bytes(digest[:8], "big") >> 2
    value = (ms & (1 << 48) - 1) << 80 | 8 << 76 | fraction << 64 | 0b10 << 62 | custom
    return str(uuid.UUID(int=value))


def dialog_outputs(
    manifest: Mapping[str, Any], names: Sequence[str] | None = None
) -> list[Mapping[str, Any]]:
    """Return the manifest's entries of the outputs that a vCon refers to.

    Everybody is in them once: the stereo file where that keeps all speakers apart, else the tracks'
    own files if there are any, else stereo or mono.

    Args:
        manifest: Of a recording that is complete.
        names: Refer to these outputs instead: `stereo`, `mono`, or tracks' names.

    Raises:
        NoVcon: The recording is not complete, has none of the outputs, or no tracks.
    """
    read = Document(manifest)
    name = read.text("recording_id")
    if read.text("state") not in FINAL:
        state = read.text("state") or "not known"
        raise NoVcon(
            f"recording {name} is not complete: its state is {state}",
            hint="a vCon refers to the finished files, by their hash",
        )
    done = {
        one.text("name"): one for one in read.items("outputs") if one.text("state") == "completed"
    }
    tracks = [track.text("name") for track in read.items("tracks")]
    if not tracks:
        raise NoVcon(f"recording {name} has no tracks: nobody spoke in it")
    if names is not None:
        if missing := [one for one in names if one not in done]:
            raise NoVcon(
                f"recording {name} has no output {', '.join(missing)}",
                hint=f"it has {', '.join(done) or 'none'}",
            )
        return [done[one].values for one in dict.fromkeys(names)]
    alone = [done[one] for one in tracks if one in done and done[one].text("layout") == "track"]
    if "stereo" in done and (len(tracks) <= 2 or len(alone) < len(tracks)):
        return [done["stereo"].values]
    if len(alone) == len(tracks):
        return [one.values for one in alone]
    if "mono" in done:
        return [done["mono"].values]
    if alone:
        return [one.values for one in alone]
    raise NoVcon(
        f"recording {name} has no output of a whole conversation",
        hint="RECORDER_OUTPUTS must have stereo, mono or tracks",
    )


def build(
    manifest: Mapping[str, Any],
    contents: Mapping[str, Content],
    *,
    created_at: datetime,
    updated_at: datetime | None = None,
    domain: str = "localhost",
    identity: str | None = None,
    outputs: Sequence[str] | None = None,
    originator: str | None = None,
) -> dict[str, Any]:
    """Return a recording's vCon, unsigned. Pure: the same arguments make the same document.

    Args:
        manifest: The recording's.
        contents: Address and hash of each output that is referred to, by its key: of those that
            `dialog_outputs` returns.
        created_at: When the vCon was made.
        updated_at: When it was last changed; when it was made, if None.
        domain: Host name that the recording's UUID is made from.
        identity: The UUID, instead of one made from the manifest.
        outputs: See `dialog_outputs`.
        originator: Track of who called; what the metadata's `originator` names if None, and
            otherwise the first.

    Raises:
        NoVcon: See `dialog_outputs`; or no track is called so; or `contents` lacks an output.
    """
    read = Document(manifest)
    chosen = [Document(one) for one in dialog_outputs(manifest, outputs)]
    names = [track.text("name") for track in read.items("tracks")]
    caller = originator or read.pairs("metadata").get(ORIGINATOR)
    if caller is not None and caller not in names:
        if originator is not None:
            raise NoVcon(f"no track is called {originator!r}", hint=f"there is {', '.join(names)}")
        caller = None  # what metadata says is about other things, then
    started = read.time("started_at")
    if started is None:
        raise NoVcon(f"the manifest of {read.text('recording_id')} does not tell when it began")
    call = _Call(read, names, started, None if caller is None else names.index(caller))
    dialogs = [call.dialog(one, _content(contents, one.text("key"))) for one in chosen]
    if len(dialogs) > 1:
        for dialog in dialogs:
            dialog["recording_set"] = len(dialogs)
        dialogs.append(call.recording_set(len(dialogs)))
    if history := call.party_history():
        dialogs[-1]["party_history"] = history
    whole = len(dialogs) - 1
    document: dict[str, Any] = {
        "uuid": identity or vcon_uuid(started, f"{_label(read)}.{domain}"),
        "created_at": _date(created_at),
        "updated_at": _date(updated_at or created_at),
        "parties": [_party(track) for track in read.items("tracks")],
        "dialog": dialogs,
    }
    if analysis := [*call.turns(whole), *call.gaps(whole)]:
        document["analysis"] = analysis
    return document


@dataclass(frozen=True, slots=True)
class _Call:
    """A manifest, read for what a vCon says of it; `caller` is a party's index."""

    manifest: Document
    names: list[str]
    started: datetime
    caller: int | None

    def at(self, sample: int) -> str:
        """Return when a sample was."""
        rate = max(1, self.manifest.count("sample_rate"))
        return _date(self.started + timedelta(microseconds=sample * 1_000_000 // rate))

    def seconds(self, samples: int) -> float:
        return round(samples / max(1, self.manifest.count("sample_rate")), 6)

    def dialog(self, output: Document, content: Content) -> dict[str, Any]:
        """Return the Dialog Object of an output (section "Dialog Object")."""
        file = output.text("key").rpartition("/")[2]
        extension = file.rpartition(".")[2]
        channels = self.channels(output)
        dialog: dict[str, Any] = {
            "type": "recording",
            "start": self.at(output.count("first_sample")),
            "duration": output.number("duration_seconds"),
            # One channel: who is in it. More: for each who is in it, null for nobody.
            "parties": [_one(one) for one in channels] if len(channels) > 1 else _one(channels[0]),
            "mediatype": _MEDIA_TYPES.get(extension, f"audio/{extension}"),
            "filename": f"{self.manifest.text('recording_id')}-{file}",
            "url": content.url,
            "content_hash": content.content_hash,
        }
        return dialog | self._common(next((one[0] for one in channels if one), None))

    def recording_set(self, count: int) -> dict[str, Any]:
        """Return the Dialog Object that holds `count` recordings of one call together."""
        dialog: dict[str, Any] = {
            "type": "recording-set",
            "start": self.at(self.manifest.count("first_sample")),
            "duration": self.manifest.number("duration_seconds"),
            "parties": list(range(len(self.names))),
            "recordings": list(range(count)),
        }
        return dialog | self._common(0)

    def channels(self, output: Document) -> list[list[int]]:
        """Return which parties are in each channel of an output."""
        layout = output.text("layout")
        if layout == "stereo":
            declared = self.manifest.values.get("tracks_declared")
            known = [str(one) for one in declared] if isinstance(declared, list) else [BOT]
            return list(stereo_sides(self.names, known))
        if layout == "track" and output.text("name") in self.names:
            return [[self.names.index(output.text("name"))]]
        return [list(range(len(self.names)))]

    def _common(self, first: int | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        # Section "originator": only where the first party is not who called.
        if self.caller is not None and self.caller != first:
            found["originator"] = self.caller
        imported = self.manifest.values.get("imported")
        if isinstance(imported, dict) and (provider := Document(imported).text("provider")):
            found["application"] = provider
        return found

    def party_history(self) -> list[dict[str, Any]]:
        """Return who joined when (section "party_history Objects Array"); leaving is not known."""
        return [
            {"party": index, "time": self.at(track.count("joined")), "event": "join"}
            for index, track in enumerate(self.manifest.items("tracks"))
            if isinstance(track.values.get("joined"), int)
        ]

    def turns(self, dialog: int) -> list[dict[str, Any]]:
        """Return the turns as an Analysis Object: the draft has no place of its own for them."""
        told = []
        for turn in self.manifest.items("turns"):
            if turn.text("track") not in self.names:
                continue
            start, open_end = turn.count("start"), turn.values.get("end") is None
            one: dict[str, Any] = {
                "party": self.names.index(turn.text("track")),
                "start": self.at(start),
                "offset": self.seconds(start - self.manifest.count("first_sample")),
                "duration": None if open_end else self.seconds(turn.count("end") - start),
                "interrupted": turn.flag("interrupted"),
            }
            if turn.values.get("conversation_turn") is not None:
                one["conversation_turn"] = turn.count("conversation_turn")
            told.append(one)
        return [_report(TURNS_SCHEMA, dialog, told)] if told else []

    def gaps(self, dialog: int) -> list[dict[str, Any]]:
        """Return what is missing as an Analysis Object."""
        told = [
            {
                "party": self.names.index(gap.text("track")),
                "start": self.at(gap.count("start")),
                "duration": None
                if gap.values.get("end") is None
                else self.seconds(gap.count("end") - gap.count("start")),
                "reason": gap.text("reason"),
            }
            for gap in self.manifest.items("gaps")
            if gap.text("track") in self.names
        ]
        return [_report(GAPS_SCHEMA, dialog, told)] if told else []


def _report(schema: str, dialog: int, body: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an Analysis Object with its content inline (section "Inline Files")."""
    return {
        "type": "report",
        "dialog": dialog,
        "mediatype": "application/json",
        "vendor": VENDOR,
        "product": VENDOR,
        "schema": schema,
        "encoding": "json",
        "body": body,
    }


def _party(track: Document) -> dict[str, str]:
    """Return a track's speaker (section "Party Object").

    A name that nobody has looked into is told with `validation`: `none`.
    """
    plays = track.text("source") == "playout" or track.text("name") == BOT
    return {
        "name": track.text("participant") or track.text("name"),
        "validation": "none",
        "type": "bot" if plays else "person",
    }


def _one(parties: list[int]) -> int | list[int] | None:
    """Return a channel's parties: nobody, one, or several."""
    return parties if len(parties) > 1 else (parties[0] if parties else None)


def _content(contents: Mapping[str, Content], key: str) -> Content:
    try:
        return contents[key]
    except KeyError:
        raise NoVcon(f"it is not told where {key} is, and what its hash is") from None


def _label(manifest: Document) -> str:
    """Return what makes a recording's host name its own: its token, or a digest of its id."""
    token = manifest.text("token")
    if token:
        return token
    return hashlib.sha256(manifest.text("recording_id").encode("utf-8")).hexdigest()[:16]


def _date(when: datetime) -> str:
    """Return a `Date` (section "JSON Notation": RFC 3339)."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
