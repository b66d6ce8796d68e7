"""Objects as plain files below a folder: the blocking half of the local store.

    <root>/<key>                    an object: a file anybody can open
    <root>/.store/lock              held (flock) while anything is made visible or removed
    <root>/.store/info/ab/<h>.json  what S3 keeps beside an object; <h> is its key's SHA-256
    <root>/.store/uploads/<id>/     an upload in progress: upload.json, and a file for each part
    <root>/.store/tmp/              being written; never visible

An object appears by one rename (or link) of a complete, synced file. What is kept beside it is
written before, in a file that tells the new version and the one it replaces: they are told apart
by modification time and size, so that a crash between the two leaves either version whole. A file
that was put there or changed by hand is an object, too: without metadata.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from uploader import checksum as crc
from uploader import limits
from uploader.errors import InvalidRequest, NoSuchObject, PreconditionFailed
from uploader.local_files import fsync_folder, no_such_root, write_file
from uploader.store import Body, ObjectAttributes, ObjectInfo

PRIVATE = ".store"
_LEFTOVER_SECONDS = 24 * 3600.0
_READ_BYTES = 1024 * 1024
_LOOKS = 5
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # a link or a socket is no object


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object's bytes, and what is kept beside them."""

    mtime_ns: int
    size: int
    checksum: int
    attributes: ObjectAttributes

    def info(self, key: str) -> ObjectInfo:
        """Return what `head` tells of it."""
        return ObjectInfo(
            key=key,
            size=self.size,
            etag=etag_of(self.checksum, self.size),
            checksum=self.checksum,
            content_type=self.attributes.content_type,
            metadata=dict(self.attributes.metadata),
            modified=datetime.fromtimestamp(self.mtime_ns / 1e9, UTC),
        )


def etag_of(checksum: int, size: int) -> str:
    """Return the ETag of bytes with this CRC-64/NVME and size."""
    return f"{checksum:016x}-{size:x}"


def to_json(attributes: ObjectAttributes) -> dict[str, object]:
    """Return attributes as they are kept in a file."""
    return {
        "content_type": attributes.content_type,
        "content_disposition": attributes.content_disposition,
        "metadata": dict(attributes.metadata),
        "tags": dict(attributes.tags),
    }


def from_json(raw: dict[str, object]) -> ObjectAttributes:
    """Return the attributes `to_json` wrote; what is not of their form is left out."""
    content_type, disposition = raw.get("content_type"), raw.get("content_disposition")
    metadata, tags = raw.get("metadata"), raw.get("tags")
    return ObjectAttributes(
        content_type=content_type if isinstance(content_type, str) else "",
        content_disposition=disposition if isinstance(disposition, str) else None,
        metadata=metadata if isinstance(metadata, dict) else {},
        tags=tags if isinstance(tags, dict) else {},
    )


class Disk:
    """The objects below one root folder. All methods block; any thread or process may call.

    Args:
        root: The folder.
        prefix: What all keys begin with in it: empty, or ends in `/`.
    """

    def __init__(self, root: Path, prefix: str = "") -> None:
        self.root = root
        self.prefix = prefix
        self.private = root / PRIVATE
        self.uploads = self.private / "uploads"
        self._tmp = self.private / "tmp"
        self._info = self.private / "info"

    def open(self) -> None:
        """Create the root folder if its parent is there; remove what killed processes left."""
        if not self.root.is_dir():
            if not self.root.parent.is_dir():
                return
            # Recordings are private; who made the folder beforehand has chosen its mode.
            self.root.mkdir(mode=0o700, exist_ok=True)
        if not self._tmp.is_dir():
            return
        oldest = time.time() - _LEFTOVER_SECONDS
        for path in self._tmp.iterdir():
            with suppress(OSError):  # another process may have been quicker
                if path.lstat().st_mtime < oldest:
                    self.remove(path)

    def path(self, op: str, key: str) -> Path:
        """Return where an object's file is.

        Raises:
            InvalidRequest: The key is in the store's private folder.
        """
        if PRIVATE in (self.prefix + key).split("/"):
            problem = f"{op} {key!r}: {PRIVATE!r} is the store's own folder"
            raise InvalidRequest(problem, op=op, key=key, code="InvalidKey")
        return self.root / (self.prefix + key)

    def prepare(self, op: str, key: str) -> None:
        """Make the private folders where they are missing, but never the root.

        Raises:
            NoSuchBucket: There is no root folder.
        """
        if not self.root.is_dir():
            raise no_such_root(op, key, self.root)
        for folder in (self.private, self._tmp, self._info, self.uploads):
            folder.mkdir(mode=0o700, exist_ok=True)

    def temporary(self, op: str, key: str) -> Path:
        """Return a name for a file or folder being written, in a folder that exists."""
        self.prepare(op, key)
        return self._tmp / f"{os.getpid()}-{secrets.token_hex(8)}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock, against other threads and other processes."""
        fd = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)  # gives up the lock, too

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a file, or a folder with all in it; one that is not there is no error."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    # -- reading

    @contextmanager
    def opened(self, op: str, key: str) -> Iterator[tuple[int, Version]]:
        """Yield a descriptor of an object's file and the version of it that it shows.

        Raises:
            NoSuchObject: There is none.
        """
        path = self.path(op, key)
        for look in range(_LOOKS):
            fd = self._open_file(op, key, path)
            try:
                status = os.fstat(fd)
                version = self._kept(key, status)
                if version is None and look < _LOOKS - 1 and not self._same(path, status):
                    continue  # replaced while we looked
                yield fd, version or self._computed(fd, status)
                return
            finally:
                os.close(fd)

    def _open_file(self, op: str, key: str, path: Path) -> int:
        try:
            # Not blocking, in case somebody put a named pipe there.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            if not self.root.is_dir():
                raise no_such_root(op, key, self.root) from error
            raise self._no_such_object(op, key) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._no_such_object(op, key)
        return fd

    def _no_such_object(self, op: str, key: str) -> NoSuchObject:
        message = f"{op}: there is no object {key!r} in {self.root}"
        return NoSuchObject(message, op=op, key=key, code="ENOENT")

    @staticmethod
    def _same(path: Path, status: os.stat_result) -> bool:
        try:
            now = path.stat()
        except OSError:
            return False
        return (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)

    @staticmethod
    def _computed(fd: int, status: os.stat_result) -> Version:
        """Return the version of a file that nothing is kept beside: by reading it."""
        checksum = size = 0
        while block := os.pread(fd, _READ_BYTES, size):
            checksum = crc.crc64nvme(block, checksum)
            size += len(block)
        return Version(status.st_mtime_ns, size, checksum, ObjectAttributes())

    def head(self, op: str, key: str) -> ObjectInfo:
        """Return an object's info."""
        with self.opened(op, key) as (_, version):
            return version.info(key)

    # -- what is kept beside an object

    def tags(self, key: str) -> dict[str, str]:
        """Return an object's tags."""
        with self.opened("tags", key) as (_, version):
            return dict(version.attributes.tags)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace an object's tags: only what is kept beside it is written."""
        with self.opened("tag", key):
            temporary = self.temporary("tag", key)
        with self.locked(), self.opened("tag", key) as (_, version):
            attributes = replace(version.attributes, tags=dict(tags))
            self._keep(key, [replace(version, attributes=attributes)], temporary)

    def _info_path(self, key: str) -> Path:
        name = hashlib.sha256((self.prefix + key).encode()).hexdigest()
        return self._info / name[:2] / f"{name}.json"

    def _kept(self, key: str, status: os.stat_result) -> Version | None:
        for version in self._kept_all(key):
            if (version.mtime_ns, version.size) == (status.st_mtime_ns, status.st_size):
                return version
        return None

    def _kept_all(self, key: str) -> list[Version]:
        try:
            raw = json.loads(self._info_path(key).read_bytes())
            return [
                Version(
                    mtime_ns=int(one["mtime_ns"]),
                    size=int(one["size"]),
                    checksum=crc.decode(one["checksum"]),
                    attributes=from_json(one),
                )
                for one in raw["versions"]
            ]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return []  # a file that cannot be read tells as little as one that is not there

    def _keep(self, key: str, versions: list[Version], temporary: Path) -> None:
        raw = {
            "key": self.prefix + key,
            "versions": [
                {
                    "mtime_ns": version.mtime_ns,
                    "size": version.size,
                    "checksum": crc.encode(version.checksum),
                    **to_json(version.attributes),
                }
                for version in versions
            ],
        }
        path = self._info_path(key)
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            fsync_folder(self._info)
        write_file(temporary, json.dumps(raw).encode())
        temporary.replace(path)
        fsync_folder(path.parent)

    # -- writing

    def publish(
        self,
        op: str,
        key: str,
        file: Path,
        checksum: int,
        attributes: ObjectAttributes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Make a synced file below `temporary` the object. Call it with the lock held."""
        path = self.path(op, key)
        if path.is_dir():
            problem = f"{op} {key!r}: that is a folder of other objects"
            raise InvalidRequest(problem, op=op, key=key, code="EISDIR")
        current = self._current(op, key)
        if if_absent and current is not None:
            raise self._precondition(op, key, "something is there")
        if if_match is not None:
            if current is None:
                raise self._precondition(op, key, "there is no object")
            if etag_of(current.checksum, current.size) != if_match:
                raise self._precondition(op, key, "the ETag has changed")
        status = file.stat()
        if current is not None and current.mtime_ns == status.st_mtime_ns:
            status = self._shift(file, status)
        version = Version(status.st_mtime_ns, status.st_size, checksum, attributes)
        self._make_folders(path.parent)
        kept = [version] if current is None else [version, current]
        self._keep(key, kept, file.with_name(f"{file.name}.info"))
        if if_absent:
            self._link(op, key, file, path)
        else:
            file.replace(path)
        fsync_folder(path.parent)
        return version.info(key)

    def _current(self, op: str, key: str) -> Version | None:
        try:
            with self.opened(op, key) as (_, version):
                return version
        except NoSuchObject:
            return None

    @staticmethod
    def _shift(file: Path, status: os.stat_result) -> os.stat_result:
        """Give a file another time of change: versions are told apart by it."""
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _link(self, op: str, key: str, file: Path, path: Path) -> None:
        """Move a file to a name that must be free: also from those who do not know our lock."""
        try:
            os.link(file, path)
        except FileExistsError as error:
            raise self._precondition(op, key, "something is there") from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            file.replace(path)  # a filesystem without hard links: the lock has to do
        else:
            file.unlink()

    @staticmethod
    def _precondition(op: str, key: str, problem: str) -> PreconditionFailed:
        return PreconditionFailed(
            f"{op} {key!r}: {problem}", op=op, key=key, code="PreconditionFailed"
        )

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            one.mkdir()
            fsync_folder(one.parent)

    def put(
        self,
        key: str,
        body: Body,
        checksum: int,
        attributes: ObjectAttributes,
        *,
        if_absent: bool,
        if_match: str | None,
    ) -> ObjectInfo:
        """Write an object; see `Store.put`."""
        file = self.temporary("put", key)
        write_file(file, body)
        try:
            with self.locked():
                return self.publish(
                    "put", key, file, checksum, attributes, if_absent=if_absent, if_match=if_match
                )
        finally:
            file.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Delete an object, and the folders that are empty without it."""
        path = self.path("delete", key)
        self.prepare("delete", key)
        if not path.is_file() or path.is_symlink():
            return
        with self.locked():
            with suppress(FileNotFoundError):
                path.unlink()
            self._info_path(key).unlink(missing_ok=True)
            folder = path.parent
            while folder != self.root:
                try:
                    folder.rmdir()
                except OSError:  # not empty
                    break
                folder = folder.parent
            fsync_folder(folder)

    # -- listing

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`, by key."""
        if not self.root.is_dir():
            raise no_such_root("list_objects", prefix, self.root)
        folder, _, _ = prefix.rpartition("/")
        yield from self._walk(folder, prefix)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        for name, is_folder in self._entries(folder):
            key = f"{folder}/{name}" if folder else name
            if not key.startswith(prefix) and not (is_folder and prefix.startswith(key)):
                continue
            if is_folder:
                yield from self._walk(key.removesuffix("/"), prefix)
            else:
                with suppress(NoSuchObject):  # deleted since
                    yield self.head("list_objects", key)

    def _entries(self, folder: str) -> list[tuple[str, bool]]:
        """Return a folder's `(name, is a folder)` as keys sort: a folder's name ends in `/`."""
        entries = []
        try:
            with os.scandir(self.root / (self.prefix + folder)) as found:
                for entry in found:
                    if entry.name == PRIVATE or not limits.is_text(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        entries.append((f"{entry.name}/", True))
                    elif entry.is_file(follow_symlinks=False):
                        entries.append((entry.name, False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entries)

    def level(self, prefix: str) -> tuple[list[ObjectInfo], list[str]]:
        """Return the objects directly below `prefix`, and the folders that hold any."""
        if not self.root.is_dir():
            raise no_such_root("list_level", prefix, self.root)
        objects, folders = [], []
        for name, is_folder in self._entries(prefix.removesuffix("/")):
            key = prefix + name
            if not is_folder:
                with suppress(NoSuchObject):
                    objects.append(self.head("list_level", key))
            elif next(self._walk(key.removesuffix("/"), key), None) is not None:
                folders.append(key)
        return objects, folders
