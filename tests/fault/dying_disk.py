"""A program: a process that dies at each of its steps in turn, and what the store then shows.

Usage: python dying_disk.py FOLDER OPERATION

For step 1, 2, 3... a child process does the operation on a folder prepared anew, and is gone in the
moment before its step-th change to the file system. Each line of output is the JSON of what a new
process then finds there; the last line is of a child that came to its end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uploader import local_disk, local_files
from uploader.checksum import crc64nvme
from uploader.errors import NoSuchObject, NoSuchUpload, PreconditionFailed
from uploader.local_disk import Disk
from uploader.local_uploads import Uploads
from uploader.store import MIN_PART_BYTES, ObjectAttributes

KEY = "dt=1/call/audio.wav"
OLD, NEW = b"old bytes", b"new bytes"  # of one length: size alone must not tell them apart
FIRST, TAIL = bytes(MIN_PART_BYTES), b"tail"
CHANGES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
DIED = 77


def attributes(name: str) -> ObjectAttributes:
    return ObjectAttributes(content_type="audio/wav", metadata={"version": name})


class World:
    """A store with what is needed for each operation."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(root)
        self.disk.open()
        self.uploads = Uploads(self.disk)
        self.upload = ""

    def put(self, body: bytes, name: str, **conditions: Any) -> None:
        options = {"if_absent": False, "if_match": None, **conditions}
        self.disk.put(KEY, body, crc64nvme(body), attributes(name), **options)

    def begin(self) -> None:
        self.upload = self.uploads.create(KEY, attributes("new"))
        self.send(1, FIRST)
        self.send(2, TAIL)

    def send(self, number: int, body: bytes) -> None:
        self.uploads.put_part(KEY, self.upload, number, body, crc64nvme(body))

    def complete(self) -> None:
        parts = self.uploads.parts(KEY, self.upload)
        self.uploads.complete(KEY, self.upload, parts, checksum=None, if_absent=True)

    def look(self) -> dict[str, Any]:
        """Return all that can be seen."""
        try:
            with self.disk.opened("get", KEY) as (fd, version):
                data = os.pread(fd, MIN_PART_BYTES + 100, 0)
                fits = version.checksum == crc64nvme(data) and version.size == len(data)
                name = version.attributes.metadata.get("version")
        except NoSuchObject:
            data, fits, name = b"", True, None
        try:
            parts = [[p.number, p.size] for p in self.uploads.parts(KEY, self.upload)]
        except NoSuchUpload:
            parts = None
        return {
            "data": "joined" if data == FIRST + TAIL else data.decode()[:20],
            "attributes": name,
            "fits": fits,
            "keys": [info.key for info in self.disk.walk("")],
            "uploads": [upload.key for upload in self.uploads.all("")],
            "parts": parts,
        }


def nothing(world: World) -> None:
    """Prepare an empty store."""


def in_one_tick(world: World) -> None:
    """Write the old version, and let the new one have the same time: file times are coarse."""

    def write_file(path: Path, *buffers: bytes) -> None:
        local_files.write_file(path, *buffers)
        os.utime(path, ns=(10**18, 10**18))

    local_disk.write_file = write_file
    world.put(OLD, "old")


OPERATIONS: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
    "create": (nothing, lambda world: world.put(NEW, "new")),
    "create if absent": (nothing, lambda world: world.put(NEW, "new", if_absent=True)),
    "replace": (lambda world: world.put(OLD, "old"), lambda world: world.put(NEW, "new")),
    "replace in one tick": (in_one_tick, lambda world: world.put(NEW, "new")),
    "delete": (lambda world: world.put(OLD, "old"), lambda world: world.disk.delete(KEY)),
    "begin": (nothing, lambda world: world.begin()),
    "resend": (World.begin, lambda world: world.send(2, b"other")),
    "complete": (World.begin, World.complete),
    "abort": (World.begin, lambda world: world.uploads.abort(KEY, world.upload)),
}


def die_at(step: int) -> None:
    """From now on, let the process vanish before its step-th change."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in CHANGES and not (event == "open" and not arguments[2] & os.O_CREAT):
            seen += 1
            if seen == step:
                os._exit(DIED)

    sys.addaudithook(hook)


def main(folder: Path, operation: str) -> None:
    prepare, act = OPERATIONS[operation]
    for step in range(1, 100):
        world = World(folder / str(step))
        prepare(world)
        child = os.fork()
        if child == 0:
            die_at(step)
            act(world)
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED
        survivor = World(world.disk.root)
        survivor.upload = world.upload
        print(json.dumps({"died": died, **survivor.look(), "again": again(survivor, operation)}))
        if not died:
            return


def again(world: World, operation: str) -> dict[str, Any] | str:
    """Do it once more, as whoever goes on would, and return what is there then."""
    try:
        OPERATIONS[operation][1](world)
    except (PreconditionFailed, NoSuchUpload) as error:
        return {**world.look(), "error": type(error).__name__}
    return {**world.look(), "error": ""}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
