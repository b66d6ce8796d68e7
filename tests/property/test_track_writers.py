"""The short way into the journal does what the long one does, whatever comes before and after."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from recorder import Session, VirtualClock
from recorder.behind import Backstage
from recorder.journal import JournalWriter
from recorder.journal_format import SEGMENT_BYTES
from recorder.journal_reader import JournalReader
from recorder.quota import SpoolQuota
from recorder.speakers import Track
from recorder.track_writer import TrackWriter
from uploader.errors import BotRecorderError

RATES = (8_000, 16_000, 24_000)
ZERO = 1000.0
WAYS = ("one by one", "session", "writers")
"""Every frame looked at; `Session.write`, by itself; the writers of each form."""


class Step(NamedTuple):
    """Something that is done to a recording."""

    what: str
    track: str = "user"
    sample_rate: int = 16_000
    channels: int = 1
    length: int = 640
    at: float | None = None
    seconds: float = 0.02
    times: int = 1
    kind: type[Any] = bytes


frames = st.builds(
    Step,
    st.just("frame"),
    st.sampled_from(["user", "bot", "late"]),
    st.sampled_from(RATES),
    st.sampled_from([1, 1, 2]),
    st.sampled_from([640, 640, 960, 0, 2, 641, 60_000]),
    st.sampled_from([None, None, 0.0, -0.02, 0.5, -2000.0, -4000.0, 5000.0]),
    st.just(0.02),
    st.integers(1, 20),
    st.sampled_from([bytes, bytes, bytearray, memoryview]),
)
others = st.one_of(
    st.sampled_from(
        ["pause", "resume", "interrupt", "start_turn", "end_turn", "add_track", "prepare", "wait"]
    ).map(Step),
    st.sampled_from(RATES).map(lambda rate: Step("written_otherwise", sample_rate=rate)),
)
steps = st.lists(st.one_of(frames, frames, others), max_size=25)


class Idle:
    """Nobody behind the session."""

    def end(self, rest: list[Any]) -> None:
        self.rest = rest


class Twin:
    """A recording without anything behind it."""

    def __init__(self, folder: Path, room: int, way: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.clock = VirtualClock(ZERO)
        self.idle = Idle()
        self.errors: list[str] = []
        self.session = Session(
            "call",
            JournalWriter(folder, SpoolQuota(room)),
            self.clock,
            ZERO,
            [Track("user"), Track("bot", "playout")],
            24_000,
            cast("Backstage", self.idle),
            lambda event: self.errors.append(type(event).__name__),
        )
        self._way = way
        self._writers: dict[tuple[str, int, int], TrackWriter] = {}

    def do(self, step: Step) -> None:
        session = self.session
        match step.what:
            case "frame":
                for _ in range(step.times):
                    self.clock.advance(step.seconds)
                    self._frame(step)
            case "written_otherwise":
                self.clock.advance(step.seconds)
                self._write("user", bytes(320), step.sample_rate, 1, None)
            case "wait":
                self.clock.advance(step.seconds)
            case "interrupt" | "start_turn" | "end_turn":
                getattr(session, step.what)(step.track)
            case "add_track":
                session.add_track(Track("late"))
            case what:
                getattr(session, what)()

    def _frame(self, step: Step) -> None:
        pcm = step.kind((bytes(range(256)) * (step.length // 256 + 1))[: step.length])
        if step.kind is memoryview and not step.length % 2:
            pcm = pcm.cast("h")  # its length is in samples
        at = None if step.at is None else self.clock.monotonic() + step.at
        form = step.track, step.sample_rate, step.channels
        try:
            if self._way == "writers":
                if form not in self._writers:
                    self._writers[form] = self.session.writer(*form)
                self._writers[form].write(pcm, at)
            else:
                self._write(step.track, pcm, step.sample_rate, step.channels, at)
        except BotRecorderError as error:
            self.errors.append(str(error))

    def _write(self, *frame: Any) -> None:
        if self._way == "one by one":
            self.session._take(*frame)
        else:
            self.session.write(*frame)

    def told(self) -> dict[str, Any]:
        """Everything that can be seen of it."""
        session = self.session
        session.end()
        reader = JournalReader(self.folder)
        records = []
        for record in reader.read():
            view = reader.view(record.segment)
            assert view is not None
            records.append((record, bytes(view[record.offset : record.offset + record.length])))
        reader.close()
        return {
            "records": records,
            "counts": (session.frames, session.refused, session.ignored),
            "errors": self.errors,
            "rest": self.idle.rest,
        }


@settings(deadline=None, max_examples=400)
@given(steps, st.sampled_from([1, 2, 3, 100]))
def test_all_ways_accept_the_same(steps: list[Step], segments: int) -> None:
    with TemporaryDirectory() as folder:
        twins = [Twin(Path(folder) / way, segments * SEGMENT_BYTES, way) for way in WAYS]
        for step in steps:
            for twin in twins:
                twin.do(step)
        told = [twin.told() for twin in twins]
    assert told[0] == told[1]
    assert told[0] == told[2]


def test_tracks_go_on_by_turns_when_a_segment_is_full(tmp_path: Path) -> None:
    user, bot = Step("frame"), Step("frame", "bot", 24_000, length=960)
    for way in WAYS:
        twin = Twin(tmp_path / way, 100 * SEGMENT_BYTES, way)
        for _ in range(2000):
            twin.do(user)
            twin.do(bot)
        told = twin.told()
        assert told["counts"] == (4000, 0, 0)
        audio = [record for record, _ in told["records"] if record.channels]
        assert [record.length for record in audio] == [640, 960] * 2000
        assert len({record.segment for record in audio}) > 2


def test_frames_of_one_form_take_the_short_way_whoever_writes_them(tmp_path: Path) -> None:
    """The session's own writer is the one that is handed out."""
    twin = Twin(tmp_path / "session", 100 * SEGMENT_BYTES, "session")
    session = twin.session
    session.write("user", bytes(640), 16_000)
    writer = session.writer("user", 16_000)
    assert session.writer("user", 16_000) is writer
    taken: list[str] = []
    long_way = session._take
    writer._otherwise = lambda *args, **kwargs: (taken.append(args[0]), long_way(*args, **kwargs))  # type: ignore[func-returns-value]
    for _ in range(20):
        session.write("user", bytes(640), 16_000)
        writer.write(bytes(640))
    assert not taken
    session.pause()
    session.write("user", bytes(640), 16_000)
    assert taken == ["user"]
    assert (session.frames, session.ignored) == (41, 1)
    session.resume()
    session.write("user", bytes(640), 16_000)
    session.write("user", bytes(640), 16_000)
    assert taken == ["user", "user"]
    session.end()
