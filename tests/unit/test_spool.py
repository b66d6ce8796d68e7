"""A recording's folder: it appears and goes as a whole, and has one owner."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder import spool
from recorder.quota import SpoolQuota
from recorder.spool import RecordingExists, Spool, SpoolBusy, recordings_in, remove_abandoned


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    one = Spool.create(tmp_path, "call", {"recording_id": "call"})
    with pytest.raises(SpoolBusy):
        Spool.open(tmp_path, "call")
    with pytest.raises(RecordingExists):
        Spool.create(tmp_path, "call", {})
    one.release()
    other = Spool.open(tmp_path, "call")
    assert other.read_json("recording.json") == {"recording_id": "call"}
    other.remove(SpoolQuota(1))
    with pytest.raises(FileNotFoundError):
        Spool.open(tmp_path, "call")
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_keep_a_dead_parents_lock(tmp_path: Path) -> None:
    one = Spool.create(tmp_path, "call", {})
    asked, answer = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(answer)
        os.write(tell, b"x")
        os.read(asked, 1)  # lives until it is told to end
        os._exit(0)
    os.read(told, 1)
    try:
        one.release()  # as the parent's death would
        Spool.open(tmp_path, "call").release()
    finally:
        os.write(answer, b"x")
        os.waitpid(child, 0)
        os.close(answer)
        for end in (asked, told, tell):
            os.close(end)


def test_a_sweep_never_takes_what_is_being_made(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            remove_abandoned(tmp_path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(1000):
            one = Spool.create(tmp_path, f"call-{number}", {"number": number})
            assert one.read_json("recording.json") == {"number": number}
            assert one.journal.is_dir()
            one.release()
    finally:
        stop.set()
        sweeper.join()
    assert len(recordings_in(tmp_path)) == 1000


@pytest.mark.parametrize("name", [f"{spool.NEW}1", f"{spool.GONE}1"])
def test_what_a_dead_process_left_half_made_or_half_removed_goes(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / "journal").mkdir(parents=True)
    (folder / "lock").touch()
    assert recordings_in(tmp_path) == []
    assert remove_abandoned(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_goes_while_it_is_looked_at_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()

    class Going:
        """An entry whose recording is finished before it is looked at."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name = entry.name
            self.is_dir = entry.is_dir
            self._entry = entry

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            if self.name == "two":
                raise FileNotFoundError(self.name)
            return self._entry.stat(follow_symlinks=follow_symlinks)

    with os.scandir(tmp_path) as found:
        entries = [Going(entry) for entry in found]

    class Scan(contextlib.AbstractContextManager["Scan"]):
        def __iter__(self) -> Iterator[Going]:
            return iter(entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Scan())
    assert sorted(recordings_in(tmp_path)) == ["one", "three"]


def test_a_folder_that_is_not_locked_yet_gets_time(tmp_path: Path) -> None:
    folder = tmp_path / f"{spool.NEW}1"
    folder.mkdir()
    assert remove_abandoned(tmp_path) == 0
    old = folder.stat().st_mtime - spool.ABANDONED_SECONDS - 1
    os.utime(folder, (old, old))
    assert remove_abandoned(tmp_path) == 1
