"""A recording whose owner lives is nobody else's business, however often others recover."""

from __future__ import annotations

from pathlib import Path

import bot_child
import pytest
from test_drain import assert_complete, bot, stored

from recorder import Recorder
from recorder.recovered import Outcome


def spool_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "spool").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def assert_kept(folder: Path, files: dict[str, bytes]) -> None:
    """The files are what they were; the owner may have allocated more for what is to come."""
    assert files.items() <= spool_files(folder).items()


@pytest.mark.parametrize("bucket", [False, True])
async def test_recovery_beside_a_live_recording_changes_nothing(
    tmp_path: Path, bucket: bool
) -> None:
    options = {"bucket": True, "stale_after": 0.0} if bucket else {}
    async with bot(tmp_path, "live") as child:
        assert await child.stdout.readline() == b"ready\n"
        objects, files = await stored(tmp_path), spool_files(tmp_path)
        async with Recorder(bot_child.settings(tmp_path), recover=False) as recorder:
            found = await recorder.recover(**options)
        assert {one.outcome for one in found} == {Outcome.ALIVE}
        assert {one.recording_id for one in found} == {bot_child.RECORDING_ID}
        assert await stored(tmp_path) == objects
        assert_kept(tmp_path, files)
        # A recorder that recovers at its start and records beside it, as after a restart.
        async with Recorder(bot_child.settings(tmp_path)) as recorder:
            other = await recorder.start("beside")
            assert (await other.stop()).durable
        assert_kept(tmp_path, files)
        out, err = await child.communicate(b"\n")
        assert out == b"completed\n", err.decode()
    await assert_complete(tmp_path)
