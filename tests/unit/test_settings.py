"""Where settings come from, what is said of all that is wrong, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from refused_settings import MIB, SECRET, problem, problems

from recorder.location import Location
from recorder.settings import (
    Settings,
    SettingsError,
    settings_fields,
    settings_table,
    unknown_variables,
)
from uploader.errors import BotRecorderError

pytestmark = pytest.mark.usefixtures("no_settings")


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


def test_a_url_with_a_password_is_not_repeated():
    assert SECRET not in problem(bucket=f"s3://user:{SECRET}@host/bucket")
    assert SECRET not in problem(bucket="calls", aws_endpoint_url_s3=f"http://me:{SECRET}@host")


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
