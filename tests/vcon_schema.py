"""A JSON Schema of the unsigned vCon, written from draft-ietf-vcon-vcon-core-03.

The working group has one of its own, which is not part of this project. Each object below names
the draft's section whose parameters it holds; what the sections say of several parameters together
(what goes with what type of dialog, indices that must exist) is in `check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema

DATE = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}
INDEX = {"type": "integer", "minimum": 0}
INDICES = {"type": "array", "items": INDEX}
HASH = {"type": "string", "pattern": r"^sha512-[A-Za-z0-9_-]{86}$"}  # section "JSON Notation"
MEDIA_TYPE = {"type": "string", "pattern": r"^[a-z]+/[A-Za-z0-9.+-]+$"}
TEXT = {"type": "string"}

CONTENT = {  # sections "Inline Files" and "Externally Referenced Files"
    "body": True,
    "encoding": {"enum": ["base64url", "json", "none"]},
    "url": {"type": "string", "pattern": r"^https://[^\s]+$"},
    "content_hash": {"anyOf": [HASH, {"type": "array", "items": HASH, "minItems": 1}]},
}
GOES_WITH = {"url": ["content_hash"], "content_hash": ["url"], "body": ["encoding"]}

_OF_A_PARTY = "tel sip stir mailto name did validation gmlpos uuid org dept"
PARTY = {  # section "Party Object"
    "type": "object",
    "properties": {
        **dict.fromkeys(_OF_A_PARTY.split(), TEXT),
        "type": {"enum": ["person", "bot", "organization"]},
    },
    "additionalProperties": False,
}

HISTORY = {  # section "Party_History Object"
    "type": "object",
    "required": ["party", "time", "event"],
    "properties": {
        "party": INDEX,
        "time": DATE,
        "event": {"enum": ["join", "drop", "hold", "unhold", "mute", "unmute"]},
    },
    "additionalProperties": False,
}

DIALOG = {  # section "Dialog Object"; of its types those that hold audio
    "type": "object",
    "required": ["type", "start", "parties"],
    "properties": {
        "type": {"enum": ["recording", "recording-set"]},
        "start": DATE,
        "duration": {"type": "number", "minimum": 0},
        "parties": {
            "anyOf": [
                INDEX,
                {"type": "array", "items": {"anyOf": [INDEX, INDICES, {"type": "null"}]}},
            ]
        },
        "originator": INDEX,
        "recordings": INDICES,
        "recording_set": INDEX,
        "mediatype": MEDIA_TYPE,
        "filename": TEXT,
        "application": TEXT,
        "party_history": {"type": "array", "items": HISTORY},
        **CONTENT,
    },
    "dependentRequired": GOES_WITH,
    "additionalProperties": False,
    "allOf": [
        {
            "if": {"properties": {"type": {"const": "recording"}}},
            "then": {
                "required": ["url", "content_hash"],
                "not": {"required": ["recordings"]},
            },
            "else": {
                "required": ["recordings"],
                "not": {
                    "anyOf": [
                        {"required": [name]}
                        for name in ("url", "body", "mediatype", "recording_set")
                    ]
                },
            },
        }
    ],
}

ANALYSIS = {  # section "Analysis Object"
    "type": "object",
    "required": ["type", "vendor"],
    "properties": {
        "type": {
            "enum": ["report", "sentiment", "summary", "transcript", "translation", "tts"],
        },
        "dialog": {"anyOf": [INDEX, INDICES]},
        "mediatype": MEDIA_TYPE,
        "filename": TEXT,
        "vendor": TEXT,
        "product": TEXT,
        "schema": TEXT,
        **CONTENT,
    },
    "dependentRequired": GOES_WITH,
    "additionalProperties": False,
}

VCON = {  # section "vCon JSON Object Keys and Values"
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["uuid", "created_at"],
    "properties": {
        "uuid": {
            "type": "string",
            "pattern": r"^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
        },
        "created_at": DATE,
        "updated_at": DATE,
        "subject": TEXT,
        "parties": {"type": "array", "items": PARTY},
        "dialog": {"type": "array", "items": DIALOG},
        "analysis": {"type": "array", "items": ANALYSIS},
    },
    "additionalProperties": False,
}


def check(document: Mapping[str, Any]) -> None:
    """Fail if a document is no vCon, or points at what it does not have."""
    jsonschema.Draft202012Validator.check_schema(VCON)
    errors = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(VCON).iter_errors(document)
    ]
    assert not errors, errors
    parties, dialogs = len(document["parties"]), document["dialog"]
    for index, dialog in enumerate(dialogs):
        found = dialog["parties"] if isinstance(dialog["parties"], list) else [dialog["parties"]]
        flat = [one for item in found for one in (item if isinstance(item, list) else [item])]
        assert all(one is None or one < parties for one in flat)
        assert dialog.get("originator", 0) < parties
        for one in dialog.get("recordings", ()):
            assert dialogs[one]["recording_set"] == index
        if "recording_set" in dialog:
            assert index in dialogs[dialog["recording_set"]]["recordings"]
        assert all(one["party"] < parties for one in dialog.get("party_history", ()))
    for one in document.get("analysis", ()):
        assert one["dialog"] < len(dialogs)
