"""Imports that cannot be: nothing is left of them, and what was cut off is made anew."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from calls import die
from faulty_store import FaultyStore
from provider_files import ALICE, START_MS, encode, noise, raw_track, read_wav, speech, write_wav

from recorder import Recorder, Settings, VirtualClock
from recorder.imports import (
    Imported,
    ImportRefused,
    ImportRequest,
    UnreadableSource,
    import_recording,
    importing,
)
from recorder.imports import feed as feeding
from recorder.imports.audio import measure
from recorder.quota import SpoolFull
from recorder.session import Session
from recorder.spool import Spool
from recorder.stores import make_store
from recorder.verification import verify
from uploader.local import LocalStore

WHEN = datetime(2026, 11, 23, 15, 44, 2, tzinfo=UTC)
RATE = 8000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        bucket=(tmp_path / "bucket").as_uri(),
        spool_dir=tmp_path / "spool",
        chunk_seconds=1,
        retry_base_seconds=0.01,
        retry_max_wait_seconds=0.1,
    )


async def bring(settings: Settings, *sources: object, **options: Any) -> Imported:
    return await import_recording(settings, ImportRequest(tuple(map(str, sources)), **options))


def left(tmp_path: Path) -> list[str]:
    """Return what there is of recordings, in the bucket and in the spool."""
    found = [*tmp_path.glob("bucket/dt=*/**/*"), *tmp_path.glob("bucket/.store/uploads/**/*")]
    found += tmp_path.glob("spool/**/*")
    return sorted(str(path.relative_to(tmp_path)) for path in found if path.is_file())


def ffmpeg(*words: object) -> None:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-y", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


# -- what is no recording --------------------------------------------------------------------------


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("<html>Access denied</html>\n" * 200)


def no_samples(path: Path) -> None:
    write_wav(path, noise(0, 1), RATE)


def no_audio(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=1", "-c:v", "mpeg4", "-f", "mp4", path)


def encrypted(path: Path) -> None:
    source = write_wav(path.with_suffix(".src"), speech(48_000, 2, 1), 48_000)
    key = "76a6c65c5ea762046bd749a2e632ccbb"
    scheme = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key, "-encryption_kid", key]
    ffmpeg("-i", source, "-c:a", "aac", *scheme, "-f", "mp4", path)


def cut(keep: float, *words: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        encode(path, speech(48_000, 4, 1), 48_000, *words)
        body = path.read_bytes()
        path.write_bytes(body[: round(len(body) * keep)])

    return make


FAST_START = ("-c:a", "aac", "-movflags", "+faststart", "-f", "mp4")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "is empty"),
        (text, "cannot be decoded"),
        (no_samples, "has no audio in it"),
        (no_audio, "there is no audio in it"),
        (encrypted, "cannot be decoded"),
        (cut(0.7, "-c:a", "pcm_s16le", "-f", "wav"), "is cut off: the last 1.20 s"),
        (cut(0.0001, "-c:a", "pcm_s16le", "-f", "wav"), "cannot be decoded"),
        (cut(0.7, "-c:a", "flac", "-f", "flac"), "cannot be decoded|is cut off"),
        (cut(0.7, "-c:a", "libmp3lame", "-f", "mp3"), "is cut off: the last 1"),
        (cut(0.7, "-c:a", "aac", "-f", "mp4"), "cannot be decoded"),
        (cut(0.7, *FAST_START), "is cut off|cannot be decoded"),
        (cut(0.7, "-c:a", "libopus", "-f", "ogg"), "is cut off"),
        (cut(0.7, "-c:a", "libopus", "-f", "webm"), "is cut off"),
        (cut(0.7, "-c:a", "libopus", "-live", "1", "-f", "webm"), "is cut off"),
    ],
    ids=lambda one: one if isinstance(one, str) else None,
)
async def test_what_cannot_be_read_is_one_error_and_nothing_is_left(
    tmp_path: Path, settings: Settings, make: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "recording"
    make(path)
    with pytest.raises(UnreadableSource, match=says) as caught:
        await bring(settings, path)
    assert path.as_uri() in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == []
    assert not (tmp_path / "bucket").exists()


async def test_one_bad_file_of_several_is_enough(tmp_path: Path, settings: Settings) -> None:
    raw_track(tmp_path, ALICE, speech(48_000, 1, 1), 0)
    (tmp_path / f"{START_MS}-{ALICE}-cam-audio-{START_MS + 2000}").write_bytes(b"\0" * 100)
    with pytest.raises(UnreadableSource, match=f"{START_MS + 2000}.*cannot be decoded"):
        await bring(settings, *tmp_path.glob("17*"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("size", ["0", "2147483647", "4294967295"])
async def test_a_length_that_its_writer_did_not_know_is_no_cut(tmp_path: Path, size: str) -> None:
    """What is written to a pipe has no length in its head."""
    path = write_wav(tmp_path / "a.wav", noise(RATE, 1), RATE)
    body = bytearray(path.read_bytes())
    body[40:44] = int(size).to_bytes(4, "little")
    path.write_bytes(body)
    if size == "0":
        with pytest.raises(UnreadableSource, match="has no audio in it"):
            measure(path, "a.wav")
    else:
        assert measure(path, "a.wav").samples == RATE


@pytest.mark.parametrize(
    ("sources", "options", "says"),
    [
        (["nothing.wav"], {}, "cannot read .*nothing.wav.*: No such file"),
        (["folder"], {}, "there are no files in"),
        (["https://a.example/b"], {}, "allowed are paths, file:/// and s3://"),
        (["s3://bucket"], {}, "names no object"),
        (["a.wav"], {"provider": "livekit", "tracks": ("a", "b")}, "2 track names for 1 channels"),
        (["a.wav"], {"provider": "daily"}, "not what daily calls its recordings"),
        (["a.wav", "b.wav"], {"provider": "twilio"}, "not what twilio calls its recordings"),
        (["a.wav", "b.wav"], {"offsets": (1.0,)}, "1 offsets for 2 files"),
        (["a.wav", "b.wav"], {"tracks": ("a", "a")}, "named twice"),
        (["a.json"], {}, "is no manifest of LiveKit's Egress"),
    ],
)
async def test_what_does_not_go_together_is_refused(
    tmp_path: Path, settings: Settings, sources: list[str], options: dict[str, Any], says: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.json").write_text("[]")
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, noise(RATE, 1), RATE)
    paths = (one if ":" in one else tmp_path / one for one in sources)
    with pytest.raises(ImportRefused, match=says):
        await bring(settings, *paths, **options)
    assert left(tmp_path) == []


# -- twice -----------------------------------------------------------------------------------------


async def test_the_same_again_is_the_same_recording(tmp_path: Path, settings: Settings) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE * 2, 1), RATE)
    made = await bring(settings, path, started_at=WHEN)
    before = {one: (tmp_path / one).read_bytes() for one in left(tmp_path)}
    copy = tmp_path / "copy.wav"
    copy.write_bytes(path.read_bytes())
    again = await bring(settings, copy, started_at=WHEN)
    assert (again.created, again.recording_id, again.result) == (False, made.recording_id, None)
    assert {one: (tmp_path / one).read_bytes() for one in left(tmp_path)} == before


async def test_without_a_start_the_content_alone_says_which_it_is(
    tmp_path: Path, settings: Settings
) -> None:
    """A copy has another time of its own, and so another day."""
    path = write_wav(tmp_path / "a.wav", noise(RATE, 1), RATE)
    made = await bring(settings, path)
    assert made.recording_id.startswith("import-")

    os.utime(path, (1_600_000_000, 1_600_000_000))
    again = await bring(settings, path)
    assert (again.created, again.recording_id) == (False, made.recording_id)


async def test_other_tracks_or_outputs_of_the_same_are_refused(
    tmp_path: Path, settings: Settings
) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE, 1, channels=2), RATE)
    await bring(settings, path, started_at=WHEN)
    before = left(tmp_path)
    for options, says in (
        ({"tracks": ("user", "bot")}, "other tracks, left, right and not user, bot"),
        ({"outputs": ("mono",)}, "other outputs, stereo and not mono"),
        ({"sample_rate": 16_000}, "other sample rate, 8000 and not 16000"),
    ):
        with pytest.raises(ImportRefused, match=says):
            await bring(settings, path, started_at=WHEN, **options)
    assert left(tmp_path) == before
    other = await bring(settings, path, started_at=WHEN, outputs=("mono",), recording_id="second")
    assert other.created


async def test_an_id_that_is_in_use_is_refused(tmp_path: Path, settings: Settings) -> None:
    async with Recorder(settings, clock=VirtualClock()) as recorder:
        await (await recorder.start("taken")).stop()
    path = write_wav(tmp_path / "a.wav", noise(RATE, 1), RATE)
    before = left(tmp_path)
    with pytest.raises(ImportRefused, match="'taken' is in use, by something else"):
        await bring(settings, path, recording_id="taken")
    assert left(tmp_path) == before


async def test_two_at_a_time_are_one_recording(tmp_path: Path, settings: Settings) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE * 4, 1), RATE)
    found = await asyncio.gather(
        *(bring(settings, path, started_at=WHEN) for _ in range(2)), return_exceptions=True
    )
    made = [one for one in found if isinstance(one, Imported)]
    assert made
    assert sum(one.created for one in made) == 1
    async with make_store(settings) as store:
        assert (await verify(store, made[0].recording_id)).ok


# -- in the middle ---------------------------------------------------------------------------------


class Torn(Exception):
    """Something happens in the middle."""


@pytest.fixture
def torn(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return what has an import fail after two seconds, chunks and a part being sent."""

    def arm(error: BaseException) -> None:
        flush, times = Session.flush, 0

        async def broken(call: Session) -> None:
            nonlocal times
            times += 1
            await flush(call)
            if times == 2:
                raise error

        monkeypatch.setattr(Session, "flush", broken)

    return arm


@pytest.mark.parametrize("error", [Torn(), asyncio.CancelledError()], ids=["error", "cancel"])
async def test_what_fails_in_the_middle_is_taken_back(
    tmp_path: Path, settings: Settings, torn: Callable[[BaseException], None], error: BaseException
) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE * 6, 1), RATE)
    torn(error)
    with pytest.raises(type(error)):
        await bring(settings, path, started_at=WHEN)
    assert left(tmp_path) == []


async def test_a_file_that_changes_meanwhile_is_taken_back(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE * 6, 1), RATE)
    feed = importing.feed

    async def later(*arguments: Any, **options: Any) -> None:
        write_wav(path, noise(RATE * 3, 1), RATE)
        await feed(*arguments, **options)

    monkeypatch.setattr(importing, "feed", later)
    with pytest.raises(UnreadableSource, match="it has become shorter"):
        await bring(settings, path, started_at=WHEN)
    assert left(tmp_path) == []


async def test_a_spool_that_is_full_is_taken_back(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, as by a store that refuses: the spool has to take it all."""

    async def nothing(call: Session) -> None:
        """Send nothing."""

    monkeypatch.setattr(Session, "flush", nothing)
    path = write_wav(tmp_path / "a.wav", noise(96_000 * 100, 1), 96_000)
    small = settings.replace(spool_max_bytes=16 * 1024**2, chunk_seconds=300)
    with pytest.raises(SpoolFull, match="cannot take what is imported"):
        await bring(small, path, started_at=WHEN)
    assert left(tmp_path) == []


async def cut_off(settings: Settings, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import until two chunks are in the bucket, and die."""
    flush, times, alive = Session.flush, 0, asyncio.Event()
    recorders: list[Recorder] = []

    async def stuck(call: Session) -> None:
        nonlocal times
        times += 1
        await flush(call)
        if times == 2:
            alive.set()
            await asyncio.Event().wait()

    start = Recorder.start

    def noting(recorder: Recorder, *arguments: Any, **options: Any) -> Any:
        recorders.append(recorder)
        return start(recorder, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "flush", stuck)
        patch.setattr(Recorder, "start", noting)
        patch.setattr(importing, "_take_back", lambda *_: asyncio.sleep(0))
        work = asyncio.create_task(bring(settings, path, started_at=WHEN))
        await asyncio.wait_for(alive.wait(), 30)
        await die(recorders[0])
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_killed_import_is_made_anew(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pcm = noise(RATE * 6, 1)
    path = write_wav(tmp_path / "a.wav", pcm, RATE)
    await cut_off(settings, path, monkeypatch)
    assert any("manifest.json" in one for one in left(tmp_path))
    assert any(one.startswith("spool/") for one in left(tmp_path))
    made = await bring(settings, path, started_at=WHEN)
    assert made.created
    [audio] = tmp_path.glob("bucket/dt=*/*/audio.wav")
    assert np.array_equal(read_wav(audio), pcm)
    assert sorted(Path(one).name for one in left(tmp_path)) == [
        "audio.wav",
        "manifest.json",
        "peaks.json",
    ]


async def test_a_killed_import_that_was_recovered_is_no_proof_and_is_made_anew(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery finishes what there is; that it is not all, verify tells."""
    pcm = noise(RATE * 6, 1)
    path = write_wav(tmp_path / "a.wav", pcm, RATE)
    await cut_off(settings, path, monkeypatch)
    async with Recorder(settings, recover=False) as recorder:
        [recovered] = await recorder.recover()
    async with make_store(settings) as store:
        report = await verify(store, recovered.recording_id)
        assert [finding.check for finding in report.findings] == ["samples, as were imported"]
        made = await bring(settings, path, started_at=WHEN)
        assert (made.created, made.recording_id) == (True, recovered.recording_id)
        assert (await verify(store, made.recording_id)).ok
    [audio] = tmp_path.glob("bucket/dt=*/*/audio.wav")
    assert np.array_equal(read_wav(audio), pcm)


async def test_an_import_that_goes_on_elsewhere_is_left_alone(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE * 6, 1), RATE)
    await cut_off(settings, path, monkeypatch)
    [name] = [one.name for one in (tmp_path / "spool").iterdir()]
    owner = Spool.open(settings.spool_dir, name)
    before = left(tmp_path)
    with pytest.raises(ImportRefused, match="is being imported, or recovered, just now"):
        await bring(settings, path, started_at=WHEN)
    owner.release()
    elsewhere = settings.replace(spool_dir=tmp_path / "other-spool")
    with pytest.raises(ImportRefused, match="by another host, or was cut off there"):
        await bring(elsewhere, path, started_at=WHEN)
    assert left(tmp_path) == before


async def test_an_object_that_is_replaced_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one and half of the other would have a hash, too."""
    inner = LocalStore(tmp_path / "source")
    async with inner, importing.Library(Settings(bucket="calls")) as library:
        await inner.put("a", b"\0" * (20 * 1024**2))
        store = FaultyStore(inner)
        library._stores["there"] = store
        [source] = await library.find("s3://there/a")
        get, replaced = store.get, False

        async def get_and_replace(key: str, *, start: int = 0, end: int | None = None) -> bytes:
            nonlocal replaced
            data = await get(key, start=start, end=end)
            if not replaced:
                replaced = True
                await inner.put("a", b"\1" * (20 * 1024**2))
            return data

        monkeypatch.setattr(store, "get", get_and_replace)
        with pytest.raises(UnreadableSource, match="s3://there/a was changed while it was read"):
            await library.fetch(source, tmp_path, lambda count: None)
        [source] = await library.find("s3://there/a")
        fetched = await library.fetch(source, tmp_path, lambda count: None)
        assert fetched.path.read_bytes() == b"\1" * (20 * 1024**2)


async def test_memory_holds_seconds_of_a_file_and_not_the_file(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(RATE * 60, 1), RATE)
    measured = measure(path, "a.wav")
    request = ImportRequest((str(path),))
    async with importing.Library(Settings(bucket="calls")) as library:
        origin = await importing._recognised(library, request)
        [fetched] = await importing._fetch(
            library, [origin.hints[0].source], tmp_path, lambda *_: None
        )
    [voice] = importing.arrange(origin, [(fetched, measured)], request)
    reader = feeding._Reader(voice)
    for second in range(1, 61):
        reader.load(second * RATE)
        assert sum(map(len, reader._kept)) <= 2 * RATE
        assert len(reader.take(second * RATE)) == RATE
    assert reader.done
