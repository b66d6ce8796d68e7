"""The spool's quota: what is counted, and what is let go for what, in which order."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from plans import make_plan

from recorder.account import Account
from recorder.chunks import Chunk
from recorder.events import ChunkDropped, Event
from recorder.quota import SpoolFull, SpoolQuota
from recorder.reserve import Reserve
from recorder.shelf import ChunkShelf
from recorder.timeline import Lost, Timeline

SIZE = 100


class Recording:
    """Contents with chunk files of `SIZE` bytes; one second and two tracks each."""

    def __init__(self, folder: Path, quota: SpoolQuota, began: int = 0) -> None:
        self.timeline = Timeline(24_000, 2.0)
        self.sealed: list[Chunk] = []
        self.in_store = 0
        self.sealed_samples = 0
        self.finished = False
        self.folder = folder
        self.quota = quota
        self.seen: list[Event] = []
        folder.mkdir(exist_ok=True)
        plan = make_plan()
        plan = make_plan(started_at=plan.started_at.replace(second=began))
        self.account = Account(plan, self, None, folder)  # type: ignore[arg-type]  # no requests
        self.shelf = ChunkShelf(self.account, quota, self.seen.append, logger)
        self.shelf.droppable = True
        quota.add(self.shelf)

    def chunk_path(self, chunk: Chunk) -> Path:
        return self.folder / chunk.name

    def seal(self) -> None:
        self.quota.take(SIZE)
        number = len(self.sealed) + 1
        first = 24_000 * (number - 1)
        self.sealed.append(Chunk(number, first, 24_000, ("user", "bot"), SIZE, 0))
        self.chunk_path(self.sealed[-1]).write_bytes(bytes(SIZE))

    def send(self) -> None:
        with self.shelf.sending():
            pass

    def note(self) -> None:
        self.account.noted = self.shelf.sent

    @property
    def files(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.wav"))

    @property
    def lost(self) -> list[int]:
        return [chunk.number for chunk in self.sealed if chunk.lost]

    @property
    def dropped(self) -> list[int]:
        return [event.chunk.number for event in self.seen if isinstance(event, ChunkDropped)]


Make = Callable[..., Recording]


@pytest.fixture
def quota() -> SpoolQuota:
    return SpoolQuota(5 * SIZE, drop_oldest=True)


@pytest.fixture
def make(tmp_path: Path, quota: SpoolQuota) -> Make:
    made: list[Recording] = []

    def recording(**options: int) -> Recording:
        made.append(Recording(tmp_path / f"{len(made)}", quota, **options))
        return made[-1]

    return recording


def test_what_is_given_back_can_be_taken_again() -> None:
    quota = SpoolQuota(10, used=4)
    quota.take(6)
    with pytest.raises(SpoolFull, match="the spool holds 10 of at most 10 bytes"):
        quota.take(1)
    quota.give(3)
    quota.take(3)
    assert quota.used == 10


def test_files_that_are_in_the_store_go_first_and_cost_nothing(make: Make) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    call.send()
    call.send()
    call.note()
    call.seal()
    assert (call.files, call.lost) == ([2, 3, 4, 5, 6], [])
    call.seal()
    assert (call.files, call.lost) == ([3, 4, 5, 6, 7], [])
    call.seal()
    assert (call.files, call.lost, call.dropped) == ([4, 5, 6, 7, 8], [3], [3])


def test_the_oldest_audio_of_all_recordings_goes_and_is_a_gap_on_each_track(make: Make) -> None:
    younger, older = make(began=10), make(began=0)
    for call in (younger, older, younger, older, older):
        call.seal()
    for _ in range(3):
        younger.seal()
    assert older.lost == [1, 2, 3]
    assert younger.lost == []
    gaps = [(gap.track, gap.start, gap.end) for gap in older.timeline.lost]
    assert gaps == [
        (track, 24_000 * index, 24_000 * (index + 1))
        for index in range(3)
        for track in ("user", "bot")
    ]
    assert all("RECORDER_SPOOL_FULL=drop_oldest" in gap.reason for gap in older.timeline.lost)
    younger.seal()
    assert younger.lost == [1]


def test_by_the_other_policy_only_what_is_in_the_store_goes(make: Make, quota: SpoolQuota) -> None:
    quota.drop_oldest = False
    call = make()
    for _ in range(5):
        call.seal()
    call.send()
    with pytest.raises(SpoolFull):
        call.seal()
    call.note()
    call.seal()
    assert (call.files, call.lost, call.seen) == ([2, 3, 4, 5, 6], [], [])


def test_nothing_is_given_up_in_vain(make: Make, quota: SpoolQuota) -> None:
    call = make()
    call.seal()
    call.seal()
    quota.take(3 * SIZE)
    for count in (2 * SIZE + 1, quota.limit + 1):
        with pytest.raises(SpoolFull):
            quota.take(count)
    assert (call.files, call.lost) == ([1, 2], [])


def test_what_is_not_to_cost_audio_does_not(make: Make, quota: SpoolQuota) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    with pytest.raises(SpoolFull):
        quota.take(SIZE, drop=False)
    assert call.lost == []


def test_a_chunk_on_its_way_is_not_given_up(make: Make) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    with call.shelf.sending() as chunk:
        assert chunk is call.sealed[0]
        call.seal()
        call.seal()
    assert (call.lost, call.files) == ([2, 3], [1, 4, 5, 6, 7])
    with call.shelf.sending() as chunk:
        assert chunk is None, "a lost chunk is not to be sent"


def test_a_chunk_that_could_not_be_sent_may_be_given_up(make: Make) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    with pytest.raises(LookupError), call.shelf.sending():
        raise LookupError
    call.seal()
    assert call.lost == [1]


def test_sent_but_in_no_manifest_yet_a_chunk_is_not_lost(make: Make) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    call.send()
    call.seal()
    assert (call.files, call.lost, call.dropped) == ([2, 3, 4, 5, 6], [], [])


def test_a_chunk_that_is_nowhere_is_a_gap_once(make: Make) -> None:
    """A checkpoint between a gap's listing and the chunk's: the gap is there, the mark is not."""
    call = make()
    call.seal()
    call.seal()
    call.timeline.lost.append(Lost("user", 24_000, 48_000, 0, "listed before"))
    call.shelf.gone(2)
    call.shelf.gone(2)
    assert call.lost == [2]
    gaps = [(gap.track, gap.start, gap.end) for gap in call.timeline.lost]
    assert gaps == [("user", 24_000, 48_000), ("bot", 24_000, 48_000)]


def test_a_file_in_the_store_becomes_the_room_for_the_next_chunk_if_there_is_none(
    make: Make, quota: SpoolQuota, tmp_path: Path
) -> None:
    call = make()
    for _ in range(3):
        call.seal()
    call.shelf.reserve = Reserve(tmp_path / "reserve", quota)
    call.send()
    call.shelf.restock()
    assert call.shelf.reserve.size == 0, "no manifest lists the chunk yet"
    call.send()
    call.note()
    call.shelf.restock()
    call.shelf.restock()
    assert (call.files, call.shelf.reserve.size, quota.used) == ([2, 3], SIZE, 3 * SIZE)
    call.shelf.retire(call.sealed[1])
    assert (call.files, quota.used) == ([3], 2 * SIZE)
    call.shelf.reserve.drop()
    call.shelf.reserve = Reserve(tmp_path / "reserve", quota)
    call.send()
    call.note()
    call.shelf.retire(call.sealed[2])
    assert (call.files, call.shelf.reserve.size, quota.used) == ([], SIZE, SIZE)


def test_what_goes_for_others_first_becomes_the_room_for_the_next_chunk(
    make: Make, quota: SpoolQuota, tmp_path: Path
) -> None:
    """Somebody else may take what is free on a disk before it is taken for a chunk."""
    call = make()
    for _ in range(5):
        call.seal()
    call.shelf.reserve = Reserve(tmp_path / "reserve", quota)
    call.seal()
    assert (call.lost, call.files, call.shelf.reserve.size) == ([1, 2], [3, 4, 5, 6], SIZE)
    assert quota.used == 5 * SIZE


def test_room_made_for_the_reserve_itself_is_waited_for_by_nobody(
    make: Make, quota: SpoolQuota, tmp_path: Path
) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    call.shelf.reserve = Reserve(tmp_path / "reserve", quota)
    call.shelf.reserve.grow(SIZE, drop=True)
    assert (call.lost, call.shelf.reserve.size, quota.used) == ([1], SIZE, 5 * SIZE)


def test_a_recording_that_has_ended_gives_nothing(make: Make, quota: SpoolQuota) -> None:
    call = make()
    for _ in range(5):
        call.seal()
    quota.remove(call.shelf)
    with pytest.raises(SpoolFull):
        quota.take(SIZE)
    assert call.files == [1, 2, 3, 4, 5]


def test_losses_are_logged_once_until_the_store_takes_something(make: Make) -> None:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), level="ERROR")
    try:
        call = make()
        for _ in range(9):
            call.seal()
        assert len(lines) == 1
        for _ in range(5):
            call.send()
        for _ in range(5):
            call.seal()
        assert call.lost == [1, 2, 3, 4, 6, 7, 8, 9]
        assert len(lines) == 2
    finally:
        logger.remove(handler)
    assert call.dropped == call.lost


def test_a_full_disk_is_asked_again_once_there_is_room(make: Make, quota: SpoolQuota) -> None:
    call = make()
    for _ in range(3):
        call.seal()
    refusals = [errno.ENOSPC, errno.EDQUOT]

    def work() -> str:
        if refusals:
            raise OSError(refusals.pop(0), "full")
        return "done"

    assert quota.allocate(SIZE, work, Path("there")) == "done"
    assert call.lost == [1, 2]
    assert quota.used == 2 * SIZE


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EIO, "cannot write to spool there: Input"), (errno.EFBIG, "no room for 100 bytes")],
)
def test_a_disk_that_is_not_full_costs_no_audio(
    make: Make, quota: SpoolQuota, code: int, said: str
) -> None:
    call = make()
    call.seal()

    def work() -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(SpoolFull, match=said):
        quota.allocate(SIZE, work, Path("there"))
    assert (call.lost, quota.used) == ([], SIZE)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["seal", "send", "note", "claim", "prune"])),
        max_size=80,
    ),
    drop=st.booleans(),
)
def test_whatever_happens_files_are_counted_and_losses_are_listed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]], drop: bool
) -> None:
    quota = SpoolQuota(6 * SIZE, drop_oldest=drop)
    folder = tmp_path_factory.mktemp("spool")
    calls = [Recording(folder / f"{index}", quota, began=index) for index in range(3)]
    for which, step in steps:
        call = calls[which]
        if step == "seal":
            with suppress(SpoolFull):
                call.seal()
        elif step == "note":
            call.note()
        elif step == "prune" and call.account.noted:
            call.shelf.delete(call.sealed[call.account.noted - 1])
        elif step in ("send", "claim") and call.shelf.sent < len(call.sealed):
            with call.shelf.sending() as chunk:
                there = chunk is None or call.chunk_path(chunk).exists()
                if step == "claim":
                    make_full(calls[0])
                there = there and (chunk is None or call.chunk_path(chunk).exists())
            assert there, "the file of a chunk on its way is gone"
        assert quota.used == SIZE * sum(len(one.files) for one in calls) <= quota.limit
        for one in calls:
            assert one.lost == sorted(set(one.dropped))
            gaps = [(gap.track, gap.start // 24_000 + 1) for gap in one.timeline.lost]
            assert sorted(gaps) == sorted(
                (track, number) for number in one.lost for track in ("user", "bot")
            )
            for chunk in one.sealed[one.shelf.sent :]:
                there = chunk.number in one.files
                assert there != chunk.lost, "neither there nor said to be lost, or both"
    assert drop or not any(call.lost for call in calls)


def make_full(call: Recording) -> None:
    """Seal until there is no room, or all that was there has gone."""
    with suppress(SpoolFull):
        for _ in range(7):
            call.seal()


# -- the reserve -------------------------------------------------------------------------------


def test_a_reserve_becomes_a_file_of_just_the_size(tmp_path: Path) -> None:
    quota = SpoolQuota(1 << 20)
    reserve = Reserve(tmp_path / "reserve", quota)
    reserve.try_to_grow(5000)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 5000
    reserve.grow(8000, drop=True)
    assert quota.used == reserve.size == 8000
    reserve.become(tmp_path / "chunk", 3, lambda file, _: file.write(b"abc") and None)
    assert [path.name for path in tmp_path.iterdir()] == ["chunk"]
    assert (tmp_path / "chunk").read_bytes() == b"abc"
    assert (quota.used, reserve.size) == (3, 0)


def test_a_reserve_that_cannot_grow_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = SpoolQuota(1 << 20)
    reserve = Reserve(tmp_path / "reserve", quota)
    reserve.grow(4096, drop=True)

    def full(fd: int, offset: int, length: int) -> None:
        os.ftruncate(fd, length // 2)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SpoolFull, match="no room for 95904 bytes"):
        reserve.grow(100_000, drop=True)
    assert (tmp_path / "reserve").stat().st_size == quota.used == reserve.size == 4096
    quota.limit = 5000
    reserve.try_to_grow(9000)
    assert quota.used == reserve.size == 4096


def test_a_reserve_is_found_by_the_next_process_and_given_back(tmp_path: Path) -> None:
    Reserve(tmp_path / "reserve", SpoolQuota(1 << 20)).grow(700, drop=True)
    quota = SpoolQuota(1 << 20, used=700)
    reserve = Reserve(tmp_path / "reserve", quota)
    assert reserve.size == 700
    reserve.drop()
    reserve.drop()
    assert quota.used == 0
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    quota = SpoolQuota(1 << 20)
    reserve = Reserve(tmp_path / "reserve", quota)
    reserve.grow(700, drop=True)
    (tmp_path / "reserve").unlink()
    with pytest.raises(FileNotFoundError):
        reserve.become(tmp_path / "chunk", 3, lambda file, _: None)
    assert quota.used == 0
    reserve.grow(700, drop=True)
    reserve.become(tmp_path / "chunk", 3, lambda file, _: None)
    assert quota.used == 3


def test_a_file_that_is_not_needed_becomes_the_reserve_if_there_is_none(tmp_path: Path) -> None:
    quota = SpoolQuota(1 << 20, used=50 + 40)
    reserve = Reserve(tmp_path / "reserve", quota)
    assert not reserve.recycle(tmp_path / "gone", 50)
    (tmp_path / "chunk").write_bytes(bytes(50))
    assert reserve.recycle(tmp_path / "chunk", 50)
    assert [path.name for path in tmp_path.iterdir()] == ["reserve"]
    assert (quota.used, reserve.size) == (90, 50)
    (tmp_path / "next").write_bytes(bytes(40))
    assert not reserve.recycle(tmp_path / "next", 40), "there is one"
    reserve.drop()
    assert not reserve.recycle(tmp_path / "next", 40), "none is needed"
    assert quota.used == 40
    assert [path.name for path in tmp_path.iterdir()] == ["next"]


def test_a_chunk_sealed_again_is_counted_once(tmp_path: Path) -> None:
    quota = SpoolQuota(1 << 20, used=50)
    (tmp_path / "chunk").write_bytes(bytes(50))
    reserve = Reserve(tmp_path / "reserve", quota)
    reserve.grow(60, drop=True)
    reserve.become(tmp_path / "chunk", 50, lambda file, _: None)
    assert quota.used == 50
