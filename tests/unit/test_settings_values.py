"""What each setting can be: limits, units, lists and names; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from refused_settings import MIB, problem

from recorder.containers import opus
from recorder.location import Location, parse_location
from recorder.names import InvalidName
from recorder.settings import STORAGE_CLASSES, Settings

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("chunk_seconds", 0.1, 900),
        ("sample_rate", 4000, 192_000),
        ("hold_back_seconds", 0.2, 30),
        ("stall_seconds", 0, 60),
        ("pre_roll_seconds", 0, 10),
        ("drain_seconds", 0, 3600),
        ("start_timeout_seconds", 0.1, 300),
        ("attempt_timeout_seconds", 1, 3600),
        ("retry_deadline_seconds", 1, 86_400),
    ],
)
def test_numbers_at_their_limits_are_taken_and_beyond_refused(name, low, high):
    for value in (low, high):
        assert getattr(Settings(bucket="calls", **{name: value}), name) == value
    step = 1 if name == "sample_rate" else 0.001
    for value in (low - step, high + step, float("nan"), float("inf"), "x", None, [1]):
        line = problem(bucket="calls", **{name: value})
        assert line.startswith(f"{name}=")
        assert f"from {low:g} to {high:g}" in line


@pytest.mark.parametrize("value", ["24000.5", "24k", 0])
def test_a_sample_rate_is_a_whole_number_in_range(value):
    assert "from 4000 to 192000" in problem(bucket="calls", sample_rate=value)


@pytest.mark.parametrize(
    ("seconds", "rate", "samples"),
    [(1.1, 24_000, 26_400), (0.1, 44_100, 4410), ("2.3", 16_000, 36_800), (29.97, 8000, 239_760)],
)
def test_a_chunk_is_a_whole_number_of_samples_as_written_in_decimals(seconds, rate, samples):
    settings = Settings(bucket="calls", chunk_seconds=seconds, sample_rate=rate)
    assert settings.chunk_samples == samples
    assert type(settings.chunk_samples) is int


def test_a_chunk_that_is_no_whole_number_of_samples_is_refused(monkeypatch):
    monkeypatch.setenv("RECORDER_CHUNK_SECONDS", "0.333")
    line = problem(bucket="calls", sample_rate=11_025)
    assert line == "RECORDER_CHUNK_SECONDS='0.333': is not a whole number of samples at 11025 Hz"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8388608", 8 * MIB),
        ("8M", 8 * MIB),
        ("8MiB", 8 * MIB),
        ("8 mib", 8 * MIB),
        ("8388608B", 8 * MIB),
        ("5120K", 5 * MIB),
        ("5G", 5120 * MIB),
        (5 * MIB, 5 * MIB),
    ],
)
def test_bytes_are_written_in_numbers_or_units(text, count):
    settings = Settings(bucket="calls", part_bytes=text, inflight_bytes="1T")
    assert settings.part_bytes == count


@pytest.mark.parametrize(
    "text", ["8MB", "8.5M", "-8M", "M", "8X", "", "5242879", 5 * MIB - 1, "5GiB1", 5 * 1024**3 + 1]
)
def test_bytes_out_of_range_or_ambiguous_are_refused(text):
    assert "5MiB to 5GiB" in problem(bucket="calls", part_bytes=text)


def test_memory_for_uploads_holds_a_part_at_least():
    assert Settings(bucket="calls", part_bytes="64MiB", inflight_bytes="64MiB")
    assert problem(bucket="calls", part_bytes=64 * MIB + 1) == (
        "RECORDER_INFLIGHT_BYTES=67108864 (default): must be no less than a part, 67108865"
    )


def test_the_longest_wait_is_no_less_than_the_first():
    assert Settings(bucket="calls", retry_base_seconds=20)
    line = problem(bucket="calls", retry_base_seconds=21)
    assert line.startswith("RECORDER_RETRY_MAX_WAIT_SECONDS=20.0 (default): must be no less")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("mono", ("mono",)),
        ("turns,tracks , stereo,mono", ("mono", "stereo", "tracks", "turns")),
        (("tracks", "stereo"), ("stereo", "tracks")),
        (["turns"], ("turns",)),
    ],
)
def test_outputs_are_a_list_in_one_order(given, kept):
    assert Settings(bucket="calls", outputs=given).outputs == kept


@pytest.mark.parametrize("given", ["", ",", "mono,", "mono,mono", "Mono", (), None, 5, [["mono"]]])
def test_outputs_that_are_none_or_unknown_or_repeated_are_refused(given):
    assert "one or more of mono, stereo, tracks, turns" in problem(bucket="calls", outputs=given)


def test_a_rate_that_flac_cannot_hold_is_refused_with_it_only():
    assert problem(bucket="calls", format="flac", sample_rate=65_539) == (
        "sample_rate=65539: is no rate that a FLAC stream can have: above 65535 Hz, whole tens of "
        "hertz"
    )
    for form in ("wav", "opus"):
        assert Settings(bucket="calls", format=form, sample_rate=65_539).format == form


def test_opus_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr(opus, "find_spec", lambda name: None)
    assert problem(bucket="calls", format="opus") == (
        "format='opus': needs a library that is not installed: pip install 'bot-recorder[opus]'"
    )
    assert Settings(bucket="calls", format="flac").format == "flac"


@pytest.mark.parametrize("given", [5_999, 256_001, "24k", 0.5])
def test_a_bitrate_is_a_whole_number_within_what_opus_takes(given):
    said = problem(bucket="calls", opus_bitrate=given)
    assert said.endswith("must be a whole number from 6000 to 256000")


def test_only_formats_that_there_are_can_be_chosen():
    assert problem(bucket="calls", format="mp3") == "format='mp3': must be one of wav, flac, opus"


@pytest.mark.parametrize("field", ["tags", "metadata"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a=b,c=d", {"a": "b", "c": "d"}),
        (" a = b=c , ", {"a": "b=c"}),
        ("a=", {"a": ""}),
        ('{"a": "b", "c": "d"}', {"a": "b", "c": "d"}),
        ({"a": "b"}, {"a": "b"}),
    ],
)
def test_pairs_are_written_as_a_list_or_as_json(monkeypatch, field, given, kept):
    assert getattr(Settings(bucket="calls", **{field: given}), field) == kept
    if isinstance(given, str):
        monkeypatch.setenv(f"RECORDER_{field.upper()}", given)
        assert getattr(Settings(bucket="calls"), field) == kept


@pytest.mark.parametrize("field", ["tags", "metadata"])
@pytest.mark.parametrize(
    "given", ["a", "a=b,c", "a=b,a=c", "=b", '{"a": 1}', '{"a": ', '{"a": null}', 5, ["a=b"]]
)
def test_pairs_that_are_none_are_refused(field, given):
    assert problem(bucket="calls", **{field: given}).startswith(f"{field}=")


def test_pairs_are_checked_as_the_store_would():
    assert "reserved" in problem(bucket="calls", metadata="recorder-id=1")
    assert "reserved" in problem(bucket="calls", tags="aws:x=1")
    assert "value of metadata 'a' 'ü'" in problem(bucket="calls", metadata={"a": "ü"})


def test_storage_classes_are_those_of_the_client():
    session = pytest.importorskip("botocore.session").get_session()
    known = session.get_service_model("s3").shape_for("StorageClass").enum
    assert set(STORAGE_CLASSES) <= set(known)
    assert "one of STANDARD" in problem(bucket="calls", storage_class="standard")


@pytest.mark.parametrize("key", ["a b", "key\n", "", "x" * 2049])
def test_a_kms_key_is_an_id_alias_or_arn(key):
    Settings(bucket="calls", kms_key_id="arn:aws:kms:eu-west-1:111122223333:key/12-ab")
    assert "KMS key" in problem(bucket="calls", kms_key_id=key)


@pytest.mark.parametrize(
    ("bucket", "prefix", "location"),
    [
        ("calls", "", Location("s3", "calls", None, "")),
        ("calls", "/a/b/", Location("s3", "calls", None, "a/b")),
        ("s3://my.calls-1", "", Location("s3", "my.calls-1", None, "")),
        ("S3://calls/a/", "b", Location("s3", "calls", None, "a/b")),
        ("file:///var/calls", "", Location("file", "", Path("/var/calls"), "")),
        ("file://localhost/a%20b/", "p", Location("file", "", Path("/a b"), "p")),
        ("file:///a?b#c", "", Location("file", "", Path("/a?b#c"), "")),
    ],
)
def test_a_bucket_is_a_name_or_a_url(bucket, prefix, location):
    assert parse_location(bucket, prefix) == location
    assert Settings(bucket=bucket, prefix=prefix).location == location
    assert parse_location(str(location)) == location or location.kind == "file"


def test_a_location_is_shown_as_a_url():
    assert str(parse_location("calls", "a")) == "s3://calls/a"
    assert str(parse_location("file:///a%20b", "p")) == "file:///a%20b/p"


@pytest.mark.parametrize(
    "bucket",
    [
        "",
        "ab",
        "a" * 64,
        "Calls",
        "calls_1",
        "-calls",
        "calls-",
        "a..b",
        "10.0.0.1",
        "calls/a",
        "calls\n",
        "s3:///a",
        "s3://calls/../a",
        "s3://calls//a/ b",
        "gs://calls",
        "https://calls.s3.amazonaws.com",
        "file://var/calls",
        "file://~/calls",
        "file:///",
        "file://",
        "file:///a%00",
        "arn:aws:s3:::calls",
    ],
)
def test_what_is_no_bucket_is_refused(bucket):
    with pytest.raises(InvalidName):
        parse_location(bucket)
    assert problem(bucket=bucket).startswith("bucket=")


def test_prefixes_are_bounded_together():
    half = "a" * 250
    assert Settings(bucket=f"s3://calls/{half}", prefix=half).location.prefix == f"{half}/{half}"
    line = problem(bucket=f"s3://calls/{half}", prefix=half + "/" + half)
    assert line.startswith("prefix=")
    assert "too long" in line


def test_the_spool_is_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Settings(bucket="calls").spool_dir == tmp_path / "bot-recorder/spool"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert Settings(bucket="calls").spool_dir == Path.home() / ".local/state/bot-recorder/spool"


def test_a_spool_folder_is_absolute(tmp_path):
    assert Settings(bucket="calls", spool_dir="spool").spool_dir == tmp_path / "spool"
    assert Settings(bucket="calls", spool_dir="~/spool").spool_dir == tmp_path / "home/spool"
    assert "home folder" in problem(bucket="calls", spool_dir="~no-such-user-here/spool")


def test_without_a_home_folder_the_spool_must_be_set(monkeypatch):
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert problem(bucket="calls").startswith("RECORDER_SPOOL_DIR is not set")
    assert Settings(bucket="calls", spool_dir="/spool").spool_dir == Path("/spool")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:9000", "ftp://host", "http://", "http://h:x", "http://[::1", "http://h?a", "h"],
)
def test_an_endpoint_is_a_http_url(url):
    assert "http:// or https://" in problem(bucket="calls", aws_endpoint_url_s3=url)


@pytest.mark.parametrize("region", ["", "eu west", "eu-west-1\n", "host/path"])
def test_a_region_is_a_name(region):
    assert "region" in problem(bucket="calls", aws_region=region)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("postprocess_steps", "verify,nothing", "'nothing' is no step; must be one or more of"),
        ("postprocess_steps", "verify,verify", "names a step twice"),
        ("postprocess_steps", "", "must be one or more of"),
        ("postprocess_queue_url", "calls", "must be an SQS queue's URL"),
        ("postprocess_queue_url", "https://sqs/1/q?x=1", "must be an SQS queue's URL"),
        ("webhook_url", "ftp://example.com/secret", "must be an http:// or https:// URL"),
        ("webhook_url", "https://user:secret@example.com/", "must be an http:// or https:// URL"),
        ("webhook_url", "https://example.com:port/secret", "must be an http:// or https:// URL"),
        ("webhook_secret", "secret", "must be whsec_ and 24 to 64 bytes in base64"),
        ("webhook_secret", "whsec_" + "c2VjcmV0", "must be whsec_ and 24 to 64 bytes in base64"),
        ("webhook_secret", "whsec_secret!", "must be whsec_ and 24 to 64 bytes in base64"),
    ],
)
def test_what_post_processing_cannot_use_is_refused(name, text, said):
    line = problem(bucket="calls", **{name: text})
    assert line.startswith(name)
    assert said in line
    assert "secret" not in line.removeprefix(name)


def test_steps_need_what_they_work_with():
    hook = {"webhook_url": "https://example.com/", "webhook_secret": "whsec_" + "YWJj" * 8}
    assert "needs RECORDER_WEBHOOK_URL" in problem(bucket="calls", postprocess_steps="webhook")
    line = problem(bucket="calls", postprocess_steps="webhook", webhook_url="https://example.com/")
    assert "needs RECORDER_WEBHOOK_SECRET" in line
    assert "needs RECORDER_POSTPROCESS_TAGS" in problem(bucket="calls", postprocess_steps="tags")
    settings = Settings(
        bucket="calls", postprocess_steps="webhook,verify", postprocess_tags={"a": "b"}, **hook
    )
    assert settings.postprocess_steps == ("verify", "webhook")
