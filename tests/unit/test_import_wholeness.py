"""Where WebM and Ogg files end: at each byte, cut off or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from provider_files import encode, speech

from recorder.imports.wholeness import is_cut_off


@pytest.mark.parametrize(
    "words",
    [
        ["-c:a", "libopus", "-f", "webm"],
        ["-c:a", "libopus", "-live", "1", "-f", "webm"],
        ["-c:a", "libopus", "-cluster_time_limit", "100", "-f", "matroska"],
        ["-c:a", "libopus", "-page_duration", "20000", "-f", "ogg"],
    ],
    ids=["webm", "live webm", "matroska", "ogg"],
)
def test_a_file_is_whole_at_the_end_of_an_element_and_nowhere_else(
    tmp_path: Path, words: list[str]
) -> None:
    whole = encode(tmp_path / "a", speech(48_000, 1, 1), 48_000, *words)
    body = whole.read_bytes()
    assert not is_cut_off(whole)
    cut = tmp_path / "cut"
    ends = []
    for length in range(len(body) - 700, len(body), 3):
        cut.write_bytes(body[:length])
        if not is_cut_off(cut):
            ends.append(length)
    # A streamed file may end behind each packet: that it should go on, nobody can tell.
    assert len(ends) <= 8
    cut.write_bytes(body[: len(body) // 2])
    assert is_cut_off(cut)


@pytest.mark.parametrize("body", [b"", b"RIFF", b"OggS", b"OggS\0" * 30, b"\x1a\x45\xdf\xa3"])
def test_what_is_no_container_is_left_to_the_decoder(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(body)
    is_cut_off(path)  # whatever it says, it ends


def test_bytes_that_look_like_a_page_are_none(tmp_path: Path) -> None:
    path = encode(tmp_path / "a", speech(48_000, 1, 1), 48_000, "-c:a", "flac", "-f", "ogg")
    body = bytearray(path.read_bytes())
    body[-60:-55] = b"OggS\x07"
    path.write_bytes(body)
    assert not is_cut_off(path)
