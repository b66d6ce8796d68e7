import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from recorder.containers import opus
from recorder.location import Location, parse_location
from recorder.names import InvalidName
from recorder.settings import (
    STORAGE_CLASSES,
    Settings,
    SettingsError,
    settings_fields,
    settings_table,
    unknown_variables,
)
from uploader.errors import BotRecorderError

MIB = 1024**2
SECRET = "-".join(["wJalrXUtnFEMI", "K7MDENG"])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No variable of the machine, no `.env` of the folder the tests were started in."""
    for name in list(os.environ):
        if name.startswith(("RECORDER_", "AWS_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def problems(**arguments):
    with pytest.raises(SettingsError) as caught:
        Settings(**arguments)
    error = caught.value
    assert str(error).splitlines() == list(error.problems)
    assert error.__cause__ is None
    assert not isinstance(error.__context__, ValidationError)  # its text can hold a secret
    assert all(line.isprintable() and len(line) < 500 for line in error.problems)
    return list(error.problems)


def problem(**arguments):
    (line,) = problems(**arguments)
    return line


def test_a_bucket_is_all_that_must_be_set():
    settings = Settings(bucket="calls")
    assert settings.location == Location("s3", "calls", None, "")
    assert settings.outputs == ("stereo",)
    assert settings.chunk_seconds == 30
    assert settings.chunk_samples == 720_000
    assert settings.part_bytes == 5 * MIB
    assert settings.spool_dir == Path.home() / ".local/state/bot-recorder/spool"
    assert settings.keep_chunks is False
    assert settings.tags == settings.metadata == {}
    assert settings.aws_access_key_id is None


def test_a_missing_bucket_is_one_line_that_says_what_to_set():
    assert problem() == (
        "RECORDER_BUCKET is not set: must be a bucket's name, s3://name, s3://name/prefix or "
        "file:///folder"
    )


def test_every_setting_is_read_from_its_variable(monkeypatch, tmp_path):
    expected = {
        "bucket": "s3://calls/a",
        "prefix": "b",
        "chunk_seconds": 5.5,
        "sample_rate": 16_000,
        "outputs": ("mono", "turns"),
        "format": "flac",
        "opus_bitrate": 20_000,
        "part_bytes": 6 * MIB,
        "inflight_bytes": 1024 * MIB,
        "spool_dir": tmp_path / "spool",
        "spool_max_bytes": 20 * MIB,
        "keep_chunks": True,
        "vcon": True,
        "web_url": "https://calls.example.org/x",
        "peaks": False,
        "peaks_samples_per_pixel": 500,
        "tags": {"team": "a b"},
        "metadata": {"customer": "7"},
        "storage_class": "STANDARD_IA",
        "kms_key_id": "alias/calls",
        "hold_back_seconds": 3.0,
        "stall_seconds": 4.0,
        "pre_roll_seconds": 0.0,
        "start_timeout_seconds": 6.0,
        "drain_seconds": 7.0,
        "recover_seconds": 5.0,
        "spool_full": "drop_oldest",
        "attempt_timeout_seconds": 8.0,
        "retry_base_seconds": 0.5,
        "retry_max_wait_seconds": 9.0,
        "retry_deadline_seconds": 10.0,
        "postprocess_steps": ("verify", "webhook"),
        "postprocess_export_formats": ("m4a", "flac"),
        "postprocess_tags": {"retention": "90d"},
        "postprocess_concurrency": 7,
        "postprocess_claim_seconds": 11.0,
        "postprocess_queue_url": "https://sqs.eu-west-1.amazonaws.com/1/calls",
        "webhook_url": SecretStr("https://example.com/hook?token=x"),
        "webhook_secret": SecretStr("whsec_" + "YWJj" * 8),
        "webhook_timeout_seconds": 12.0,
        "webhook_retry_seconds": 13.0,
    }
    written = {
        "outputs": "turns, mono",
        "part_bytes": "6MiB",
        "inflight_bytes": "1g",
        "spool_max_bytes": "20971520",
        "keep_chunks": "true",
        "vcon": "true",
        "web_url": "https://calls.example.org/x/",
        "peaks": "false",
        "tags": "team=a b",
        "metadata": '{"Customer": "7"}',
        "postprocess_steps": "webhook,verify",
        "postprocess_export_formats": "flac, m4a",
        "postprocess_tags": "retention=90d",
        "webhook_url": "https://example.com/hook?token=x",
        "webhook_secret": "whsec_" + "YWJj" * 8,
    }
    fields = {name for name in Settings.model_fields if not name.startswith("aws_")}
    assert fields == set(expected), "a setting without a line in this test"
    for name, value in expected.items():
        monkeypatch.setenv(f"RECORDER_{name.upper()}", written.get(name, str(value)))
    settings = Settings()
    assert settings.model_dump(include=fields) == expected
    assert settings.location == Location("s3", "calls", None, "a/b")


def test_an_argument_wins_over_the_environment_and_that_over_the_file(monkeypatch):
    Path(".env").write_text("RECORDER_BUCKET=file1\nRECORDER_PREFIX=file2\nRECORDER_FORMAT=wav\n")
    monkeypatch.setenv("RECORDER_BUCKET", "env1")
    assert Settings().model_dump(include={"bucket", "prefix"}) == {
        "bucket": "env1",
        "prefix": "file2",
    }
    assert Settings(bucket="argument").bucket == "argument"
    assert Settings(bucket="argument", _env_file=None).prefix == ""


def test_a_variable_that_is_set_but_empty_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("RECORDER_KMS_KEY_ID", "")
    monkeypatch.setenv("RECORDER_CHUNK_SECONDS", "")
    assert Settings(bucket="calls").kms_key_id is None
    monkeypatch.setenv("RECORDER_BUCKET", "")
    assert "is not set" in problem()


def test_variables_of_others_are_not_settings(monkeypatch):
    for name in ("BUCKET", "PREFIX", "TAGS", "CHUNK_SECONDS"):
        monkeypatch.setenv(name, "other")
    Path(".env").write_text("BUCKET=other\nDATABASE_URL=x\nTAGS=x\n")
    assert "RECORDER_BUCKET is not set" in problem()


def test_settings_cannot_be_changed():
    settings = Settings(bucket="calls")
    with pytest.raises(ValueError, match="frozen"):
        settings.bucket = "other"


def test_replace_changes_what_is_named_and_nothing_else(monkeypatch):
    monkeypatch.setenv("RECORDER_BUCKET", "calls")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings = Settings(aws_access_key_id="AKIA1", aws_secret_access_key=SECRET, tags={"a": "b"})
    monkeypatch.setenv("RECORDER_BUCKET", "other")
    monkeypatch.setenv("RECORDER_KMS_KEY_ID", "later")
    monkeypatch.setenv("RECORDER_FORMAT", "wrong")
    Path(".env").write_text("RECORDER_PREFIX=later\n")
    changed = settings.replace(outputs="mono", sample_rate=8000)
    assert (changed.outputs, changed.sample_rate) == (("mono",), 8000)
    assert changed.replace(outputs=("stereo",), sample_rate=24_000) == settings


def test_replace_checks_as_a_whole():
    settings = Settings(bucket="calls", chunk_seconds=0.1)
    with pytest.raises(SettingsError, match="whole number of samples at 11025 Hz"):
        settings.replace(sample_rate=11_025)
    with pytest.raises(SettingsError, match="outputs='quad': 'quad' is no output"):
        settings.replace(outputs="quad")
    with pytest.raises(SettingsError, match="no such setting"):
        settings.replace(output="mono")


def test_all_that_is_wrong_is_said_at_once_with_name_value_and_rule(monkeypatch):
    monkeypatch.setenv("RECORDER_CHUNK_SECONDS", "abc")
    monkeypatch.setenv("RECORDER_PART_BYTES", "8MB")
    Path(".env").write_text("RECORDER_OUTPUTS=stereo,quad\n")
    assert problems(bucket="calls", hold_back_seconds=31) == [
        "RECORDER_CHUNK_SECONDS='abc': must be a number of seconds from 0.1 to 900, and a whole "
        "number of samples",
        "RECORDER_OUTPUTS='stereo,quad' (in .env): 'quad' is no output; must be one or more of "
        "mono, stereo, tracks, turns, separated by commas, each once",
        "RECORDER_PART_BYTES='8MB': must be bytes from 5MiB to 5GiB, as 8388608, 8M or 8MiB",
        "hold_back_seconds=31: must be a number of seconds from 0.2 to 30",
    ]


def test_an_argument_that_is_no_setting_is_refused():
    assert problem(bucket="calls", chunk_second=5) == (
        "chunk_second: there is no such setting; did you mean chunk_seconds?"
    )


def test_an_error_is_ours_and_a_value_error():
    assert issubclass(SettingsError, BotRecorderError)
    assert issubclass(SettingsError, ValueError)


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


def test_a_url_with_a_password_is_not_repeated():
    assert SECRET not in problem(bucket=f"s3://user:{SECRET}@host/bucket")
    assert SECRET not in problem(bucket="calls", aws_endpoint_url_s3=f"http://me:{SECRET}@host")


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


def test_aws_variables_are_read_as_awss_tools_read_them(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_PROFILE", "dev")
    settings = Settings(bucket="calls")
    assert settings.aws_region == "eu-west-1"
    assert settings.aws_endpoint_url_s3 == "http://127.0.0.1:9000"
    assert settings.aws_profile == "dev"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://[::1]:9000/")
    settings = Settings(bucket="calls")
    assert settings.aws_region == "eu-west-2"
    assert settings.aws_endpoint_url_s3 == "https://[::1]:9000/"
    assert Settings(bucket="calls", aws_region="auto").aws_region == "auto"


def test_the_environments_region_wins_over_the_files(monkeypatch):
    Path(".env").write_text("AWS_REGION=file\nAWS_ENDPOINT_URL_S3=http://file\n")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "env")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://env")
    settings = Settings(bucket="calls")
    assert (settings.aws_region, settings.aws_endpoint_url_s3) == ("env", "http://env")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:9000", "ftp://host", "http://", "http://h:x", "http://[::1", "http://h?a", "h"],
)
def test_an_endpoint_is_a_http_url(url):
    assert "http:// or https://" in problem(bucket="calls", aws_endpoint_url_s3=url)


@pytest.mark.parametrize("region", ["", "eu west", "eu-west-1\n", "host/path"])
def test_a_region_is_a_name(region):
    assert "region" in problem(bucket="calls", aws_region=region)


def test_credentials_of_the_env_file_are_read_and_never_shown():
    Path(".env").write_text(
        f"AWS_ACCESS_KEY_ID=AKIA1\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_SESSION_TOKEN={SECRET}2\n"
    )
    settings = Settings(bucket="calls")
    assert settings.aws_access_key_id is not None
    assert settings.aws_access_key_id.get_secret_value() == "AKIA1"
    assert settings.aws_secret_access_key is not None
    assert settings.aws_secret_access_key.get_secret_value() == SECRET
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in text


def test_credentials_in_an_error_are_never_shown():
    values = {"aws_access_key_id": "AKIA1", "aws_secret_access_key": [SECRET]}
    line = problem(bucket="calls", **values)
    assert line == "aws_secret_access_key: must be text"


@pytest.mark.parametrize(
    "here",
    [
        {"AWS_ACCESS_KEY_ID": "AKIA2", "AWS_SECRET_ACCESS_KEY": "two"},
        {"AWS_PROFILE": "prod"},
    ],
)
def test_credentials_come_from_one_source_alone(monkeypatch, here):
    """A token of the file beside a key of the environment would fit nothing."""
    Path(".env").write_text(
        "AWS_ACCESS_KEY_ID=AKIA1\nAWS_SECRET_ACCESS_KEY=one\nAWS_SESSION_TOKEN=old\n"
    )
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    settings = Settings(bucket="calls")
    assert settings.aws_session_token is None
    assert settings.aws_profile == here.get("AWS_PROFILE")
    key = settings.aws_access_key_id
    assert (key and key.get_secret_value()) == here.get("AWS_ACCESS_KEY_ID")


def test_credentials_given_in_code_do_not_mix_with_the_environments(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
    settings = Settings(bucket="calls", aws_access_key_id="a", aws_secret_access_key=SECRET)
    assert settings.aws_session_token is None


@pytest.mark.parametrize("alone", ["aws_access_key_id", "aws_secret_access_key"])
def test_half_of_the_credentials_are_refused_for_a_bucket(alone):
    assert "beside it" in problem(bucket="calls", **{alone: SECRET})
    assert Settings(bucket="file:///calls", **{alone: SECRET})


def test_misspelt_variables_are_found(monkeypatch):
    monkeypatch.setenv("RECORDER_CHUNK_SECOND", "1")
    monkeypatch.setenv("RECORDER_BUCKET", "calls")
    monkeypatch.setenv("OTHER", "1")
    Path(".env").write_text("RECORDER_OUTPUT=mono\nOTHER=2\n")
    assert unknown_variables() == ("RECORDER_CHUNK_SECOND", "RECORDER_OUTPUT")


def test_the_table_has_every_setting_in_one_row(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    header, line, *rows = settings_table().splitlines()
    assert header == "| Variable | Default | Meaning | Allowed |"
    assert line == "|---|---|---|---|"
    assert len(rows) == len(Settings.model_fields) == len(settings_fields())
    assert next(iter(settings_fields())) == "bucket"
    for name, row in zip(settings_fields(), rows, strict=True):
        prefix = "" if name.startswith("aws_") else "RECORDER_"
        assert row.startswith(f"| `{prefix}{name.upper()}`")
        cells = row.strip("|").split(" | ")
        assert len(cells) == 4
        assert all(cell.strip() and cell.strip() != "None" for cell in cells)
    assert "elsewhere" not in settings_table()
    assert "| `RECORDER_CHUNK_SECONDS` | `30` |" in settings_table()
    assert "| `RECORDER_PART_BYTES` | `5MiB` |" in settings_table()
    assert "| `AWS_REGION`, else `AWS_DEFAULT_REGION` |" in settings_table()


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
