"""What a vCon says, made of manifests alone."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import vcon_schema

from recorder.vcon_document import Content, NoVcon, build, content_hash, dialog_outputs, vcon_uuid

STARTED = datetime(2026, 11, 23, 15, 44, 2, 250_000, tzinfo=UTC)
MADE = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)
FOLDER = "dt=2026-11-23/call/"


def output(name: str, layout: str, file: str) -> dict[str, Any]:
    return {
        "name": name,
        "key": FOLDER + file,
        "layout": layout,
        "channels": 2 if layout == "stereo" else 1,
        "first_sample": 0,
        "state": "completed",
        "bytes": 100,
        "samples": 24_000,
        "duration_seconds": 1.0,
    }


STEREO = output("stereo", "stereo", "audio.wav")
MONO = output("mono", "mono", "mono.wav")


def track_file(name: str) -> dict[str, Any]:
    return output(name, "track", f"{name}.wav")


def manifest(*tracks: str, outputs: list[dict[str, Any]] | None = None, **also: Any) -> Any:
    names = tracks or ("user", "bot")
    return {
        "recording_id": "call",
        "state": "completed",
        "started_at": STARTED.isoformat(),
        "sample_rate": 24_000,
        "samples": 24_000,
        "first_sample": 0,
        "duration_seconds": 1.0,
        "token": "0011223344556677",
        "tracks_declared": list(names),
        "metadata": {},
        "tracks": [
            {
                "name": name,
                "source": "playout" if name == "bot" else "capture",
                "participant": f"id of {name}" if name == "ann" else None,
                "joined": 6_000 * index,
            }
            for index, name in enumerate(names)
        ],
        "outputs": [STEREO] if outputs is None else outputs,
        "turns": [],
        "gaps": [],
        **also,
    }


def made(document: Any, **options: Any) -> dict[str, Any]:
    contents = {
        one["key"]: Content(
            f"https://calls.example.org/{one['key']}",
            content_hash(hashlib.sha512(one["key"].encode()).digest()),
        )
        for one in document["outputs"]
    }
    vcon = build(document, contents, created_at=MADE, **options)
    vcon_schema.check(vcon)
    return vcon


def test_a_stereo_recording_is_one_dialog_with_a_party_for_each_channel() -> None:
    vcon = made(manifest())
    assert vcon["parties"] == [
        {"name": "user", "validation": "none", "type": "person"},
        {"name": "bot", "validation": "none", "type": "bot"},
    ]
    [dialog] = vcon["dialog"]
    assert dialog == {
        "type": "recording",
        "start": "2026-11-23T15:44:02.250Z",
        "duration": 1.0,
        "parties": [0, 1],
        "mediatype": "audio/x-wav",
        "filename": "call-audio.wav",
        "url": f"https://calls.example.org/{FOLDER}audio.wav",
        "content_hash": content_hash(hashlib.sha512(STEREO["key"].encode()).digest()),
        "party_history": [
            {"party": 0, "time": "2026-11-23T15:44:02.250Z", "event": "join"},
            {"party": 1, "time": "2026-11-23T15:44:02.500Z", "event": "join"},
        ],
    }
    assert (vcon["created_at"], vcon["updated_at"]) == ("2026-11-23T16:00:00.000Z",) * 2
    assert "vcon" not in vcon  # deprecated, and each revision of the draft wants another value


def test_the_participant_is_the_name() -> None:
    vcon = made(manifest("ann", "bot"))
    assert [party["name"] for party in vcon["parties"]] == ["id of ann", "bot"]


@pytest.mark.parametrize(
    ("tracks", "parties"),
    [
        (("bot", "user"), [1, 0]),  # the bot is on the right, whoever joined first
        (("user",), [0, None]),  # nobody is on the right
        (("user", "user-2", "bot"), [[0, 1], 2]),
        (("user", "user-2"), [0, 1]),
    ],
)
def test_each_channel_names_who_is_in_it(tracks: tuple[str, ...], parties: list[Any]) -> None:
    [dialog] = made(manifest(*tracks))["dialog"]
    assert dialog["parties"] == parties


def test_one_channel_names_all_who_are_mixed_in_it() -> None:
    [dialog] = made(manifest(outputs=[MONO]))["dialog"]
    assert dialog["parties"] == [0, 1]
    [dialog] = made(manifest("user", outputs=[MONO]))["dialog"]
    assert dialog["parties"] == 0


def test_tracks_are_recordings_of_one_set() -> None:
    vcon = made(manifest(outputs=[track_file("user"), track_file("bot")]))
    user, bot, whole = vcon["dialog"]
    assert (user["parties"], bot["parties"], whole["parties"]) == (0, 1, [0, 1])
    assert (user["recording_set"], bot["recording_set"], whole["recordings"]) == (2, 2, [0, 1])
    assert whole["type"] == "recording-set"
    assert "party_history" in whole
    assert "party_history" not in user


def test_everybody_is_in_the_dialogs_once_and_apart_if_possible() -> None:
    both = [STEREO, MONO, track_file("user"), track_file("bot")]
    names = [one["name"] for one in dialog_outputs(manifest(outputs=both))]
    assert names == ["stereo"]
    three = [STEREO, *(track_file(name) for name in ("user", "user-2", "bot"))]
    document = manifest("user", "user-2", "bot", outputs=three)
    assert [one["name"] for one in dialog_outputs(document)] == ["user", "user-2", "bot"]
    assert [one["name"] for one in dialog_outputs(document, ["stereo"])] == ["stereo"]
    with pytest.raises(NoVcon, match="has no output mono"):
        dialog_outputs(document, ["mono"])


def test_an_output_that_is_not_complete_is_not_referred_to() -> None:
    document = manifest(outputs=[STEREO | {"state": "failed"}, MONO])
    assert [one["name"] for one in dialog_outputs(document)] == ["mono"]


def test_turns_and_gaps_are_reports() -> None:
    turns = [
        {"track": "user", "start": 0, "end": 12_000, "interrupted": False},
        {"track": "bot", "start": 12_000, "end": None, "interrupted": True, "conversation_turn": 1},
        {"track": "nobody", "start": 0, "end": 1},
    ]
    gaps = [{"track": "user", "start": 18_000, "end": None, "reason": "the host was lost"}]
    first, second = made(manifest(turns=turns, gaps=gaps))["analysis"]
    assert (first["schema"], first["encoding"], first["dialog"]) == (
        "bot-recorder-turns-1",
        "json",
        0,
    )
    assert first["body"] == [
        {
            "party": 0,
            "start": "2026-11-23T15:44:02.250Z",
            "offset": 0.0,
            "duration": 0.5,
            "interrupted": False,
        },
        {
            "party": 1,
            "start": "2026-11-23T15:44:02.750Z",
            "offset": 0.5,
            "duration": None,
            "interrupted": True,
            "conversation_turn": 1,
        },
    ]
    assert second["schema"] == "bot-recorder-gaps-1"
    assert second["body"] == [
        {
            "party": 0,
            "start": "2026-11-23T15:44:03.000Z",
            "duration": None,
            "reason": "the host was lost",
        }
    ]


def test_who_called_is_told_where_it_is_not_the_first() -> None:
    assert "originator" not in made(manifest())["dialog"][0]
    assert made(manifest(), originator="bot")["dialog"][0]["originator"] == 1
    assert made(manifest(metadata={"originator": "bot"}))["dialog"][0]["originator"] == 1
    assert "originator" not in made(manifest(metadata={"originator": "user"}))["dialog"][0]
    assert "originator" not in made(manifest(metadata={"originator": "sales"}))["dialog"][0]
    tracks = made(manifest(outputs=[track_file("user"), track_file("bot")]), originator="bot")
    assert [one.get("originator") for one in tracks["dialog"]] == [1, None, 1]
    with pytest.raises(NoVcon, match="no track is called 'ann'"):
        made(manifest(), originator="ann")


def test_an_import_tells_over_what_it_was_held() -> None:
    assert made(manifest(imported={"provider": "daily"}))["dialog"][0]["application"] == "daily"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (manifest(state="recording"), "not complete: its state is recording"),
        (manifest(outputs=[]), "no output of a whole conversation"),
        (manifest(tracks=[]), "nobody spoke in it"),
        (manifest(started_at="yesterday"), "does not tell when it began"),
    ],
)
def test_what_makes_no_vcon_is_said(document: Any, says: str) -> None:
    with pytest.raises(NoVcon, match=says):
        made(document)


def test_an_address_that_is_missing_is_said() -> None:
    with pytest.raises(NoVcon, match="it is not told where dt="):
        build(manifest(), {}, created_at=MADE)


def test_the_uuid_is_of_version_8_and_tells_the_time_and_the_host() -> None:
    found = uuid.UUID(vcon_uuid(STARTED, "a.example.org"))
    assert (found.version, found.variant) == (8, uuid.RFC_4122)
    assert found.int >> 80 == int(STARTED.timestamp() * 1000)
    digest = hashlib.sha1(b"a.example.org", usedforsecurity=False).digest()
    assert found.int & (1 << 62) - 1 == int.from_bytes(digest[:8], "big") >> 2
    later = uuid.UUID(vcon_uuid(STARTED + timedelta(microseconds=500), "a.example.org"))
    assert found.int < later.int
    assert later.int >> 80 == found.int >> 80


def test_the_same_recording_has_the_same_uuid_and_another_has_another() -> None:
    one = made(manifest(), domain="calls.example.org")["uuid"]
    assert made(manifest(), domain="calls.example.org")["uuid"] == one
    other = manifest(**{"token": "8899aabbccddeeff"})
    assert made(other, domain="calls.example.org")["uuid"] != one
    assert made(manifest(), domain="other.example.org")["uuid"] != one


def test_a_hash_is_base64url_without_padding() -> None:
    # FIPS 180-4, SHA-512 of no bytes.
    digest = bytes.fromhex(
        "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
        "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
    )
    assert hashlib.sha512().digest() == digest
    assert content_hash(digest) == (
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg_SpIdNs6c5H0NE8XYXysP-DGNKHfuwvY7kxvUdBeoGlODJ6-SfaPg"
    )
