"""CRC-64/NVME: against the published check value, and combined from parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader.checksum import combine, crc64nvme, decode, encode

CHECK = 0xAE8B14860A799888
"""Of `123456789`: NVM Express, NVM Command Set Specification, "64b CRC Guard Field"."""


def bit_by_bit(data: bytes) -> int:
    """CRC-64/NVME from its definition: reflected polynomial, all ones at both ends."""
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFFFFFFFFFF


def test_the_published_check_value() -> None:
    assert crc64nvme(b"123456789") == CHECK == bit_by_bit(b"123456789")


def test_every_kind_of_buffer() -> None:
    assert crc64nvme(b"") == 0
    assert crc64nvme(bytearray(b"123456789")) == CHECK
    assert crc64nvme(memoryview(b"0123456789")[1:]) == CHECK


@given(st.binary(max_size=300))
def test_it_is_the_crc_of_the_definition(data: bytes) -> None:
    assert crc64nvme(data) == bit_by_bit(data)


@given(st.lists(st.binary(max_size=100), max_size=6))
def test_parts_make_the_whole(parts: list[bytes]) -> None:
    whole = crc64nvme(b"".join(parts))
    assert combine((crc64nvme(part), len(part)) for part in parts) == whole
    going_on = 0
    for part in parts:
        going_on = crc64nvme(part, going_on)
    assert going_on == whole


def test_the_order_of_parts_matters() -> None:
    one, other = (crc64nvme(b"one"), 3), (crc64nvme(b"other"), 5)
    assert combine([one, other]) != combine([other, one])


def test_a_checksum_as_s3_writes_it() -> None:
    assert encode(CHECK) == "rosUhgp5mIg="
    assert decode("rosUhgp5mIg=") == CHECK
    assert encode(0) == "AAAAAAAAAAA="


@given(st.integers(0, 2**64 - 1))
def test_what_is_encoded_is_decoded(checksum: int) -> None:
    assert decode(encode(checksum)) == checksum


@pytest.mark.parametrize("text", ["", "AAAA", "AAAAAAAAAAAAAAAA", "rosUhgp5mIg=-3", "not base64"])
def test_what_is_no_checksum(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(text)
