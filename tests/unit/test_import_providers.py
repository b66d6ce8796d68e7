"""Whose recordings files are, by their names; and where on the timeline they belong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from recorder import Settings
from recorder.imports.arrange import Voice, arrange, speakers
from recorder.imports.audio import Measured
from recorder.imports.library import Fetched, Library, Source
from recorder.imports.providers import Origin, recognise
from recorder.imports.request import ImportRefused, ImportRequest
from recorder.names import InvalidName

ALICE = "12f0b87c-97d4-4dd3-a65c-cee1f854a79c"
BOB = "52f7f48b-fbab-431f-9a50-87b9abfc8255"
START = 1_700_000_000_000
STARTED = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
SID = "RE0123456789abcdef0123456789abcdef"
RATE = 1000


def source(name: str) -> Source:
    return Source(f"s3://bucket/{name}", name, 100, None, bucket="bucket", key=name)


def raw(who: str, after_ms: int, media: str = "cam-audio", start: int = START) -> str:
    return f"{start}-{who}-{media}-{start + after_ms}"


async def origin_of(*names: str, provider: Any = None) -> Origin:
    async with Library(Settings(bucket="calls")) as library:
        return await recognise(library, [source(name) for name in names], provider)


def placed(
    origin: Origin, *measured: Measured, **options: Any
) -> list[tuple[tuple[str, ...], Fraction]]:
    voices = voices_of(origin, *measured, **options)
    return [(voice.tracks, voice.offset) for voice in voices]


def voices_of(origin: Origin, *measured: Measured, **options: Any) -> list[Voice]:
    files = [
        (Fetched(hint.source, Path(hint.source.name), "0" * 64), one)
        for hint, one in zip(origin.hints, measured, strict=True)
    ]
    return arrange(origin, files, ImportRequest(("x",), **options))


def file(seconds: float = 1, channels: int = 1, start: float = 0.0) -> Measured:
    return Measured(RATE, channels, "pcm", round(seconds * RATE), start, None)


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "provider", "provider_id", "started"),
    [
        (raw(ALICE, 40), "daily", str(START), STARTED),
        (raw(ALICE, 40) + ".webm", "daily", str(START), STARTED),
        (str(START), "daily", str(START), STARTED),
        (f"{START}.mp4", "daily", str(START), STARTED),
        (f"{SID}.wav", "twilio", SID, None),
        (SID, "twilio", SID, None),
        ("call.wav", "file", "", None),
        ("1700000000000-notes.wav", "file", "", None),
        ("RE012.wav", "file", "", None),
    ],
)
async def test_a_name_tells_who_made_it(
    name: str, provider: str, provider_id: str, started: datetime | None
) -> None:
    found = await origin_of(name)
    assert (found.provider, found.provider_id, found.started_at) == (provider, provider_id, started)


async def test_a_provider_that_is_named_is_believed_or_refused() -> None:
    assert (await origin_of("call.wav", provider="twilio")).provider == "twilio"
    assert (await origin_of("call.ogg", provider="livekit")).provider == "livekit"
    assert (await origin_of(f"{SID}.wav", provider="file")).provider == "file"
    with pytest.raises(ImportRefused, match="not what daily calls its recordings"):
        await origin_of("call.wav", provider="daily")


async def test_of_raw_tracks_the_audio_is_taken_by_its_beginning() -> None:
    found = await origin_of(
        raw(BOB, 900),
        raw(ALICE, 40, "cam-video"),
        raw(ALICE, 250, "screen-audio"),
        raw(ALICE, 40),
        "thumbnail.png",
    )
    told = [(hint.participant, hint.media, hint.offset) for hint in found.hints]
    assert told == [(ALICE, "", 0.04), (ALICE, "screen", 0.25), (BOB, "", 0.9)]


async def test_raw_tracks_of_two_recordings_are_refused() -> None:
    with pytest.raises(ImportRefused, match=rf"raw tracks of 2 recordings.*{START}-\*"):
        await origin_of(raw(ALICE, 0), raw(ALICE, 0, start=START + 60_000))
    with pytest.raises(ImportRefused, match="no audio among 1 raw tracks"):
        await origin_of(raw(ALICE, 0, "cam-video"))


# -- LiveKit ---------------------------------------------------------------------------------------


def egress(folder: Path, name: str, **told: Any) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"egress_id": name, "room_id": "RM_1", **told}))
    return str(path)


async def livekit(*paths: str) -> Origin:
    async with Library(Settings(bucket="calls")) as library:
        sources = [one for path in paths for one in await library.find(path)]
        return await recognise(library, sources, None)


async def test_manifests_say_which_file_is_whose_and_when(tmp_path: Path) -> None:
    for name in ("a.ogg", "b.ogg", "EG_3"):
        (tmp_path / name).write_bytes(b"x")
    second = 1_000_000_000
    found = await livekit(
        egress(
            tmp_path,
            "EG_2",
            started_at=START * 1_000_000 + second,
            publisher_identity="agent-1",
            files=[{"filename": "some/where/b.ogg"}],
        ),
        egress(
            tmp_path,
            "EG_1",
            started_at=START * 1_000_000,
            publisher_identity="ann\n",
            files=[{"filename": "a.ogg"}],
        ),
        egress(tmp_path, "EG_V", track_kind="VIDEO", files=[{"filename": "v.mp4"}]),
        egress(tmp_path, "EG_3", started_at=START * 1_000_000 + 2 * second),  # before `files`
    )
    assert (found.provider, found.provider_id) == ("livekit", "EG_1,EG_2,EG_3")
    assert found.started_at == STARTED
    told = [(hint.source.name, hint.participant, hint.offset) for hint in found.hints]
    assert told == [("a.ogg", "ann\ufffd", 0.0), ("b.ogg", "agent-1", 1.0), ("EG_3", None, 2.0)]


async def test_manifests_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ogg").write_bytes(b"x")
    one = egress(tmp_path, "EG_1", started_at=1, files=[{"filename": "a.ogg"}])
    other = egress(tmp_path, "EG_2", room_id="RM_2", started_at=1, files=[{"filename": "a.ogg"}])
    gone = egress(tmp_path, "EG_3", files=[{"filename": "../../etc/gone.ogg"}])
    video = egress(tmp_path, "EG_4", track_kind="VIDEO", files=[{"filename": "v.mp4"}])
    (tmp_path / "stranger.ogg").write_bytes(b"x")
    for paths, says in (
        ((one, other), "egresses of 2 rooms: RM_1, RM_2"),
        ((gone,), "names 'gone.ogg', which is not beside it"),
        ((video,), "are all of video"),
        ((one, str(tmp_path / "stranger.ogg")), "no manifest names 'stranger.ogg'"),
    ):
        with pytest.raises(ImportRefused, match=says):
            await livekit(*paths)


# -- places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "tracks"),
    [
        (SID, 2, ("user", "bot")),
        (SID, 1, ("mix",)),
        ("call.wav", 1, ("mix",)),
        ("call.wav", 2, ("left", "right")),
        ("call.wav", 3, ("channel-1", "channel-2", "channel-3")),
    ],
)
async def test_each_channel_is_a_track(name: str, channels: int, tracks: tuple[str, ...]) -> None:
    assert placed(await origin_of(name), file(channels=channels)) == [(tracks, 0)]


async def test_tracks_are_named_in_the_order_of_files_and_channels() -> None:
    origin = await origin_of("a.wav", "b.wav")
    files = file(channels=2), file()
    assert placed(origin, *files, tracks=("a", "b", "c"), offsets=(1.5, 0.25)) == [
        (("c",), Fraction(1, 4)),
        (("a", "b"), Fraction(3, 2)),
    ]
    with pytest.raises(ImportRefused, match="2 track names for 3 channels in 2 files"):
        placed(origin, *files, tracks=("a", "b"))
    with pytest.raises(InvalidName, match="'Ann'"):
        placed(origin, *files, tracks=("Ann", "b", "c"))
    with pytest.raises(InvalidName, match="name of another object"):
        placed(origin, *files, tracks=("audio", "b", "c"))


async def test_times_in_a_raw_track_win_where_they_are_the_recordings() -> None:
    origin = await origin_of(raw(ALICE, 1250), raw(BOB, 3500))
    assert placed(origin, file(start=1.237), file(start=0.0065)) == [
        (("user",), Fraction(1237, 1000)),
        (("user-2",), Fraction(7, 2)),
    ]


async def test_who_comes_back_has_the_same_track_unless_both_sound_at_once() -> None:
    origin = await origin_of(raw(ALICE, 0), raw(BOB, 100), raw(ALICE, 4000), raw(ALICE, 5000))
    files = file(4.5), file(9), file(3), file(1)
    assert placed(origin, *files) == [
        (("user",), 0),
        (("user-2",), Fraction(1, 10)),
        (("user",), Fraction(9, 2)),  # half a second over: the names are rough
        (("user-3",), 5),  # two seconds over: another microphone
    ]


async def test_names_of_participants_are_given_or_made() -> None:
    origin = await origin_of(raw(ALICE, 0), raw(ALICE, 10, "screen-audio"), raw(BOB, 20))
    files = file(), file(), file()
    assert [tracks for tracks, _ in placed(origin, *files, names={ALICE: "ann"})] == [
        ("ann",),
        ("ann-screen",),
        ("user",),
    ]
    voices = voices_of(origin, *files, names={BOB: "bot"})
    assert [(one.name, one.source, one.participant) for one in speakers(voices)] == [
        ("user", "capture", ALICE),
        ("user-screen", "capture", ALICE),
        ("bot", "playout", BOB),
    ]
    with pytest.raises(ImportRefused, match=f"no file is of nobody.*{ALICE}"):
        placed(origin, *files, names={"nobody": "ann"})


async def test_all_channels_of_a_participants_microphone_are_one_track() -> None:
    assert placed(await origin_of(raw(ALICE, 0)), file(channels=2)) == [(("user",), 0)]
