"""What is read of events, and which of them are followed up."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.location import Location
from recorder.postprocess.events import Created, UnreadableEvent, Wanted, read_event, wanted
from recorder.postprocess.subject import Place, place_of

AT = Location("s3", "calls", None, "production/a+b")
FOLDER = "production/a+b/dt=2026-11-23/call-1/"


def s3(*keys: str, bucket: str = "calls", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventName": name,
                "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
            }
            for key in keys
        ]
    }


def bridge(key: str, kind: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": kind,
        "detail": {"bucket": {"name": "calls"}, "object": {"key": key, "size": 1}},
    }


def test_all_forms_tell_the_same() -> None:
    key = FOLDER + "manifest.json"
    plain = s3(key)
    topic = {"Type": "Notification", "Message": json.dumps(plain)}
    by_lambda = {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(plain)}}]}
    for event in (plain, bridge(key), bridge(quote_plus(key)), topic, by_lambda):
        assert read_event(event) == [Created("calls", key)]
        assert read_event(json.dumps(event)) == [Created("calls", key)]
        assert read_event(json.dumps(event).encode()) == [Created("calls", key)]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_key_is_decoded_as_s3_encodes_it(key: str) -> None:
    assert read_event(s3(key, key + "2")) == [Created("calls", key), Created("calls", key + "2")]


def test_a_record_of_each_multipart_upload_copy_and_post_counts() -> None:
    for name in ("Put", "Post", "Copy", "CompleteMultipartUpload"):
        assert len(read_event(s3("k", name=f"ObjectCreated:{name}"))) == 1


def test_other_events_are_about_nothing() -> None:
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "calls"}
    for event in (
        test,
        {"Type": "Notification", "Message": json.dumps(test)},
        s3("k", name="ObjectRemoved:Delete"),
        s3("k", name="ObjectTagging:Put"),
        bridge("k", "Object Deleted"),
        s3(),
    ):
        assert read_event(event) == []


@pytest.mark.parametrize(
    "event",
    [
        "",
        "no json",
        b"\xff",
        "[1]",
        '"text"',
        "{}",
        {"Records": "none"},
        {"Records": [1]},
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {}}]},
        {
            "Records": [
                {
                    "eventSource": "aws:s3",
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": "calls"}, "object": {"key": 1}},
                }
            ]
        },
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {}},
        {"Type": "Notification", "Message": "no json"},
        {"Type": "Notification", "Message": {"Type": "Notification", "Message": {"a": 1}}},
        "[" * 100_000,
    ],
)
def test_what_is_no_event_is_one_clear_error(event: Any) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        read_event(event)
    assert len(str(caught.value)) < 200


def test_envelopes_have_an_end() -> None:
    event: Any = s3("k")
    for _ in range(3):
        event = {"Type": "Notification", "Message": json.dumps(event)}
    assert read_event(event) == [Created("calls", "k")]
    with pytest.raises(UnreadableEvent):
        read_event({"Type": "Notification", "Message": json.dumps(event)})


def test_manifests_and_outputs_are_followed_up() -> None:
    place = Place("2026-11-23", "call-1")
    found = wanted(Created("calls", FOLDER + "manifest.json"), AT)
    assert found == Wanted(place, "dt=2026-11-23/call-1/manifest.json")
    assert found.of_manifest
    found = wanted(Created("calls", FOLDER + "audio.wav"), AT)
    assert found == Wanted(place, "dt=2026-11-23/call-1/audio.wav")
    assert not found.of_manifest


def test_without_a_prefix_too() -> None:
    at = Location("s3", "calls", None, "")
    assert wanted(Created("calls", "dt=2026-11-23/call-1/user.wav"), at) is not None
    assert wanted(Created("calls", FOLDER + "user.wav"), at) is None


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("other", FOLDER + "manifest.json"),
        ("calls", "dt=2026-11-23/call-1/manifest.json"),
        ("calls", "production/a b/dt=2026-11-23/call-1/manifest.json"),
        ("calls", "production/a+b/manifest.json"),
        ("calls", "production/a+b/dt=2026-11-23/manifest.json"),
        ("calls", "production/a+b/dt=2026-11-23/call-1"),
        ("calls", "production/a+b/dt=2026-11-23/call-1/"),
        ("calls", "production/a+b/dt=2026-11-23/../call-1/manifest.json"),
        ("calls", "production/a+b/dt=2026-11-23/a b/manifest.json"),
        ("calls", "production/a+b/dt=2026-1-2/call-1/manifest.json"),
        ("calls", "production/a+b/.bot-recorder/probe-1"),
        ("calls", FOLDER + "postprocess.json"),
        ("calls", FOLDER + "peaks.json"),
        ("calls", FOLDER + "chunks/000001.wav"),
        ("calls", FOLDER + "turns/0001-user.wav"),
        ("calls", FOLDER + "continuation-abc-1/audio.wav"),
    ],
)
def test_other_objects_are_ignored(bucket: str, key: str) -> None:
    assert wanted(Created(bucket, key), AT) is None


def test_folders_that_are_places() -> None:
    assert place_of("dt=2026-11-23/call.1_a-b/") == Place("2026-11-23", "call.1_a-b")
    for folder in ("", "dt=2026-11-23/", "2026-11-23/a/", "dt=2026-11-23/a/b/", "dt=x/a/"):
        assert place_of(folder) is None
