"""Multipart uploads in the local store: each a folder, each part in it a file.

    <root>/.store/uploads/<id>/upload.json           key, attributes, time of creation
    <root>/.store/uploads/<id>/00001-<etag>.part     a part; its ETag tells CRC-64/NVME and size

A part appears by one rename of a complete, synced file; a folder appears and goes by one rename,
too. If a killed process left two files under one number, the newer one is the part.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from uploader import checksum as crc
from uploader.errors import ChecksumError, InvalidPart, NoSuchUpload
from uploader.local_disk import Disk, etag_of, from_json, to_json
from uploader.local_files import fsync_folder, no_such_root, write_file
from uploader.store import Body, ObjectAttributes, ObjectInfo, Part, UploadInfo

_ID = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"(\d{5})-(([0-9a-f]{16})-([0-9a-f]+))\.part")
_COPY_BYTES = 1024 * 1024
_NO_COPY_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


@dataclass(frozen=True, slots=True)
class _PartFile:
    part: Part
    path: Path
    mtime_ns: int


class Uploads:
    """Multipart uploads of a `Disk`. All methods block; any thread or process may call."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def create(self, key: str, attributes: ObjectAttributes) -> str:
        """Begin an upload; see `Store.create_multipart`."""
        self._disk.path("create_multipart", key)
        folder = self._disk.temporary("create_multipart", key)
        folder.mkdir(mode=0o700)
        initiated = datetime.now(UTC).isoformat()
        raw = {"key": self._disk.prefix + key, "initiated": initiated, **to_json(attributes)}
        try:
            write_file(folder / "upload.json", json.dumps(raw).encode())
            fsync_folder(folder)
            upload_id = secrets.token_hex(16)
            folder.rename(self._disk.uploads / upload_id)
        except BaseException:
            self._disk.remove(folder)
            raise
        fsync_folder(self._disk.uploads)
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, body: Body, checksum: int) -> Part:
        """Store a part; see `Store.upload_part`."""
        folder, _ = self._find("upload_part", key, upload_id)
        part = Part(number, len(body), etag_of(checksum, len(body)), checksum)
        file = self._disk.temporary("upload_part", key)
        write_file(file, body)
        try:
            with self._disk.locked():
                self._find("upload_part", key, upload_id)  # completed or aborted meanwhile?
                path = folder / f"{number:05d}-{part.etag}.part"
                file.replace(path)
                for older in folder.glob(f"{number:05d}-*.part"):
                    if older != path:
                        older.unlink()
                fsync_folder(folder)
        finally:
            file.unlink(missing_ok=True)
        return part

    def parts(self, key: str, upload_id: str) -> list[Part]:
        """Return the parts that are there; see `Store.list_parts`."""
        folder, _ = self._find("list_parts", key, upload_id)
        return [found.part for _, found in sorted(self._files(folder).items())]

    def all(self, prefix: str) -> Iterator[UploadInfo]:
        """Yield the uploads in progress; see `Store.list_uploads`."""
        if not self._disk.root.is_dir():
            raise no_such_root("list_uploads", prefix, self._disk.root)
        found = []
        with suppress(FileNotFoundError):
            for folder in self._disk.uploads.iterdir():
                raw = self._read(folder)
                if raw is None or not str(raw["key"]).startswith(self._disk.prefix + prefix):
                    continue
                key = str(raw["key"]).removeprefix(self._disk.prefix)
                initiated = datetime.fromisoformat(str(raw["initiated"]))
                found.append(UploadInfo(key, folder.name, initiated))
        yield from sorted(found, key=lambda upload: (upload.key, upload.initiated))

    def complete(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        checksum: int | None,
        if_absent: bool,
    ) -> ObjectInfo:
        """Join the parts into the object; see `Store.complete_multipart`."""
        op = "complete_multipart"
        folder, raw = self._find(op, key, upload_id)
        try:
            files = self._named(key, folder, parts)
        except InvalidPart:
            self._find(op, key, upload_id)
            raise
        whole = crc.combine((crc_of(one.part), one.part.size) for one in files)
        if checksum is not None and checksum != whole:
            message = f"{op} {key!r}: the parts' checksum is {whole:016x}, not {checksum:016x}"
            raise ChecksumError(message, op=op, key=key, code="BadDigest")
        file = self._disk.temporary(op, key)
        try:
            self._join(op, key, files, file)
            with self._disk.locked():
                self._find(op, key, upload_id)  # only one complete, or one abort, wins
                info = self._disk.publish(op, key, file, whole, from_json(raw), if_absent=if_absent)
                self._drop(folder)
                return info
        except InvalidPart:
            self._find(op, key, upload_id)  # or has all of the upload just gone?
            raise
        finally:
            file.unlink(missing_ok=True)

    def abort(self, key: str, upload_id: str) -> None:
        """Drop an upload; see `Store.abort_multipart`."""
        self._disk.prepare("abort_multipart", key)
        with self._disk.locked():
            try:
                folder, _ = self._find("abort_multipart", key, upload_id)
            except NoSuchUpload:
                return
            self._drop(folder)

    def _drop(self, folder: Path) -> None:
        """End an upload by one rename; its parts go after it."""
        gone = self._disk.temporary("abort_multipart", "")
        folder.rename(gone)
        fsync_folder(self._disk.uploads)
        self._disk.remove(gone)

    def _find(self, op: str, key: str, upload_id: str) -> tuple[Path, dict[str, object]]:
        if not self._disk.root.is_dir():
            raise no_such_root(op, key, self._disk.root)
        # The id becomes a path: one that we did not make is not looked up.
        folder = self._disk.uploads / upload_id if _ID.fullmatch(upload_id) else None
        raw = None if folder is None else self._read(folder)
        if folder is None or raw is None or raw["key"] != self._disk.prefix + key:
            message = f"{op} {key!r}: there is no upload {upload_id[:64]!r}"
            raise NoSuchUpload(message, op=op, key=key, code="NoSuchUpload")
        return folder, raw

    @staticmethod
    def _read(folder: Path) -> dict[str, object] | None:
        try:
            raw = json.loads((folder / "upload.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return raw if isinstance(raw, dict) and {"key", "initiated"} <= raw.keys() else None

    @staticmethod
    def _files(folder: Path) -> dict[int, _PartFile]:
        newest: dict[int, _PartFile] = {}
        for path in folder.iterdir():
            match = _PART.fullmatch(path.name)
            if match is None:
                continue
            try:
                mtime_ns = path.stat().st_mtime_ns
            except FileNotFoundError:  # replaced since
                continue
            number, size = int(match[1]), int(match[4], 16)
            part = Part(number, size, match[2], int(match[3], 16))
            if number not in newest or newest[number].mtime_ns < mtime_ns:
                newest[number] = _PartFile(part, path, mtime_ns)
        return newest

    def _named(self, key: str, folder: Path, parts: Sequence[Part]) -> list[_PartFile]:
        files = self._files(folder)
        named = []
        for part in parts:
            found = files.get(part.number)
            if found is None or found.part.etag != part.etag:
                problem = "is not there" if found is None else "has another ETag"
                message = f"complete_multipart {key!r}: part {part.number} {problem}"
                op = "complete_multipart"
                raise InvalidPart(message, op=op, key=key, code="InvalidPart")
            named.append(found)
        return named

    @staticmethod
    def _join(op: str, key: str, files: list[_PartFile], target: Path) -> None:
        """Write the parts into one new, synced file, by copying inside the system if it can."""
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            for one in files:
                try:
                    source = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as error:
                    message = f"{op} {key!r}: part {one.part.number} has just gone"
                    raise InvalidPart(message, op=op, key=key, code="InvalidPart") from error
                try:
                    copied = _copy(source, out)
                finally:
                    os.close(source)
                if copied != one.part.size:
                    message = (
                        f"{op} {key!r}: part {one.part.number} has {copied} bytes on disk, "
                        f"not {one.part.size}"
                    )
                    raise InvalidPart(message, op=op, key=key, code="InvalidPart")
            os.fsync(out)
        finally:
            os.close(out)


def crc_of(part: Part) -> int:
    """Return the checksum a stored part has in its name."""
    return int(part.etag.partition("-")[0], 16)


def _copy(source: int, target: int) -> int:
    """Append a file to another and return how many bytes that were."""
    copied = 0
    in_kernel = hasattr(os, "copy_file_range")
    while True:
        if in_kernel:
            try:
                count = os.copy_file_range(source, target, 64 * _COPY_BYTES)
            except OSError as error:
                if error.errno not in _NO_COPY_RANGE:
                    raise
                in_kernel = False
                continue
        else:
            block = os.read(source, _COPY_BYTES)
            count = len(block)
            with memoryview(block) as view:
                written = 0
                while written < count:
                    written += os.write(target, view[written:])
        if count == 0:
            return copied
        copied += count
