"""Addresses on the web: https, or an error that says how to have one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from recorder.links import Links, NoWebAddress
from recorder.settings import Settings, SettingsError
from uploader.errors import InvalidRequest, Unsupported
from uploader.local import LocalStore
from uploader.s3 import S3Store
from uploader.s3_links import web_url

KEY = "dt=2026-11-23/call/audio.wav"


@pytest.mark.parametrize(
    ("endpoint", "bucket", "expected"),
    [
        (
            "https://s3.eu-central-1.amazonaws.com",
            "calls",
            "https://calls.s3.eu-central-1.amazonaws.com/p/a%20b.wav",
        ),
        (
            "https://s3.cn-north-1.amazonaws.com.cn",
            "calls",
            "https://calls.s3.cn-north-1.amazonaws.com.cn/p/a%20b.wav",
        ),
        # A certificate's * stands for one label only.
        ("https://s3.amazonaws.com", "my.calls", "https://s3.amazonaws.com/my.calls/p/a%20b.wav"),
        (
            "https://storage.example.org/s3/",
            "calls",
            "https://storage.example.org/s3/calls/p/a%20b.wav",
        ),
        ("http://127.0.0.1:8333", "calls", "http://127.0.0.1:8333/calls/p/a%20b.wav"),
        ("https://amazonaws.com.evil.org", "b", "https://amazonaws.com.evil.org/b/p/a%20b.wav"),
    ],
)
def test_an_objects_address(endpoint: str, bucket: str, expected: str) -> None:
    assert web_url(endpoint, bucket, "p/a b.wav") == expected


async def test_amazons_addresses_plain_and_signed() -> None:
    options = {"region": "eu-central-1", "access_key": "AK", "secret_key": "secret"}
    async with S3Store("calls", "production", **options) as store:
        plain = await Links(store).url(KEY)
        signed = await Links(store, presign_seconds=600).url(KEY)
        assert await Links(store).host() == "calls.s3.eu-central-1.amazonaws.com"
        for seconds in (0, 604_801):
            with pytest.raises(InvalidRequest, match="7 days"):
                await store.presigned_url(KEY, seconds)
    assert plain == f"https://calls.s3.eu-central-1.amazonaws.com/production/{KEY}"
    query = parse_qs(urlsplit(signed).query)
    assert signed.startswith(
        "https://calls.s3.eu-central-1.amazonaws.com/production/dt%3D2026-11-23/call/audio.wav?"
    )
    assert query["X-Amz-Expires"] == ["600"]
    assert query["X-Amz-Credential"][0].endswith("/eu-central-1/s3/aws4_request")
    assert "secret" not in signed


async def test_what_stands_before_the_bucket_is_named_instead(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "bucket", "p")
    links = Links(store, "https://calls.example.org/archive/")
    assert await links.url(KEY) == f"https://calls.example.org/archive/{KEY}"
    assert await links.host() == "calls.example.org"


async def test_what_is_not_https_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    local = LocalStore(tmp_path / "bucket")
    with pytest.raises(NoWebAddress, match=r"no address on the web.*RECORDER_WEB_URL"):
        await Links(local).url(KEY)
    with pytest.raises(Unsupported, match="no address that can be signed"):
        await Links(local, presign_seconds=60).url(KEY)
    with pytest.raises(NoWebAddress, match="cannot be presigned"):
        await Links(local, "https://calls.example.org", 60).url(KEY)
    options = {"endpoint_url": "http://127.0.0.1:9", "access_key": "A", "secret_key": "s"}
    async with S3Store("calls", **options) as store:
        for seconds in (None, 60):
            with pytest.raises(NoWebAddress, match="not read by https"):
                await Links(store, presign_seconds=seconds).url(KEY)


@pytest.mark.parametrize(
    "wrong",
    ["http://a.example", "a.example", "https://", "https://u@a.example", "https://a.example/?q=1"],
)
def test_a_wrong_address_is_one_line(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"web_url.*must be https://"):
        Settings(bucket="calls", web_url=wrong)


def test_an_address_ends_without_a_slash() -> None:
    assert Settings(bucket="calls", web_url="https://a.example/x/").web_url == "https://a.example/x"
