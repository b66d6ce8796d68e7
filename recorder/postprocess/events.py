"""What object storage tells of new objects, read from the forms in which it arrives.

S3 event notification   {"Records": [{"eventSource": "aws:s3", "s3": ...}]} (Amazon S3 User Guide,
                        "Event message structure"); keys are URL-encoded, a blank as `+`
EventBridge             {"source": "aws.s3", "detail-type": "Object Created", "detail": ...}
                        (Amazon S3 User Guide, "EventBridge event message structure"); keys as
                        they are
SNS                     {"Type": "Notification", "Message": "<one of the above>"}
test message            {"Service": "Amazon S3", "Event": "s3:TestEvent"}: about nothing
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from loguru import logger

from recorder.location import Location
from recorder.names import shown
from recorder.postprocess.subject import Place, place_of
from uploader.errors import BotRecorderError
from uploader.manifest import MANIFEST

MAX_NESTING = 3
"""Envelopes round an event: a queue's, a topic's, and its own."""

_FOLDERS = ("chunks", "turns")
"""What lies in them comes and goes while the call goes on."""


class UnreadableEvent(BotRecorderError):
    """A message is none of the forms that are known."""


@dataclass(frozen=True, slots=True)
class Created:
    """An object that was written: its bucket, and its key as the store knows it."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """An event that is to be followed up: the recording, and which of its objects was written."""

    place: Place
    key: str

    @property
    def of_manifest(self) -> bool:
        """Whether it is the manifest: then the last event of all finds it complete."""
        return self.key == self.place.manifest_key


def read_event(event: str | bytes | Mapping[str, Any]) -> list[Created]:
    """Return the objects that an event tells of; none for a test message and for deletions.

    Raises:
        UnreadableEvent: It is none of the known forms.
    """
    return _read(event, MAX_NESTING)


def _read(event: object, depth: int) -> list[Created]:
    if isinstance(event, (str, bytes)):
        try:
            event = json.loads(event)
        except (ValueError, RecursionError) as error:
            raise UnreadableEvent(f"the message is not JSON: {shown(event)}") from error
    if not isinstance(event, Mapping):
        raise UnreadableEvent(f"the message is no JSON object: {shown(event)}")
    if event.get("Event") == "s3:TestEvent":
        logger.info("a test message of S3: notifications of {} arrive", event.get("Bucket"))
        return []
    if event.get("Type") == "Notification" and "Message" in event and depth > 0:
        return _read(event["Message"], depth - 1)
    if event.get("source") == "aws.s3" and isinstance(event.get("detail"), Mapping):
        return _of_bridge(event)
    if isinstance(records := event.get("Records"), list):
        return [one for record in records for one in _of_record(record, depth)]
    raise UnreadableEvent(f"the message is no event of S3: {shown(dict(event))}")


def _of_bridge(event: Mapping[str, Any]) -> list[Created]:
    if event.get("detail-type") != "Object Created":
        return []
    found = _created(event["detail"], event)
    # No key of a recording has a `%`: one that has was encoded on the way.
    return [Created(found.bucket, unquote_plus(found.key)) if "%" in found.key else found]


def _of_record(record: object, depth: int) -> list[Created]:
    if isinstance(record, Mapping):
        if isinstance(told := record.get("Sns"), Mapping) and depth > 0:  # as Lambda gets it
            return _read(told.get("Message"), depth - 1)
        name = str(record.get("eventName", "")).removeprefix("s3:")
        if record.get("eventSource") == "aws:s3" and isinstance(record.get("s3"), Mapping):
            if not name.startswith("ObjectCreated:"):
                return []
            found = _created(record["s3"], record)
            return [Created(found.bucket, unquote_plus(found.key))]
    raise UnreadableEvent(f"a record of the message is no event of S3: {shown(record)}")


def _created(told: Mapping[str, Any], whole: object) -> Created:
    try:
        bucket, key = told["bucket"]["name"], told["object"]["key"]
    except (KeyError, TypeError) as error:
        raise UnreadableEvent(f"the event names no object: {shown(whole)}") from error
    if not isinstance(bucket, str) or not isinstance(key, str):
        raise UnreadableEvent(f"the event names no object: {shown(whole)}")
    return Created(bucket, key)


def wanted(created: Created, location: Location) -> Wanted | None:
    """Return what is to be followed up, or None, with a line in the log, for other objects.

    Args:
        created: What was written.
        location: Where recordings are.
    """
    prefix = f"{location.prefix}/" if location.prefix else ""
    if created.bucket != location.bucket:
        return _ignore(created, f"not in bucket {location.bucket}")
    if not created.key.startswith(prefix):
        return _ignore(created, f"not below {prefix}")
    key = created.key[len(prefix) :]
    day, _, rest = key.partition("/")
    name, _, file = rest.partition("/")
    place = place_of(f"{day}/{name}/")
    if place is None or not file:
        return _ignore(created, "not in a recording's folder")
    if file == MANIFEST:
        return Wanted(place, key)
    folder, slash, _ = file.partition("/")
    if file.endswith(".json") or folder in _FOLDERS:
        return _ignore(created, "neither a manifest nor an output")
    if slash:  # late audio that is attached: told again by the recording's own manifest
        return _ignore(created, "not of the recording itself")
    return Wanted(place, key)


def _ignore(created: Created, why: str) -> Wanted | None:
    logger.info("ignored: {} in bucket {}: {}", shown(created.key), created.bucket, why)
    return None
