"""Checks of the machine: limits that bite, and programs and packages that are optional."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recorder.doctor.check import Check, Status
from recorder.ffmpeg import FfmpegError, find_ffmpeg
from recorder.journal_format import SEGMENT_BYTES
from recorder.settings import Settings

AREA = "machine"

FILES_PER_CALL = 4
"""Open files of a live recording: its lock, mapped segments, and what is read or sent just now."""
FILES_BESIDE = 128
"""Of the process: connections to the store (64), the interpreter's, logs."""
SOCKETS_PER_CALL = 2
"""Of the bot itself: its transport, and a service."""


def check_machine(settings: Settings, calls: int) -> Iterator[Check]:
    """Yield the checks of this machine.

    Args:
        settings: Of the process.
        calls: How many there are at a time.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield check_open_files(files, calls)
    longest, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield check_file_size(longest, settings)
    shared = "not needed, nor is a larger /dev/shm: capture is in files of the spool"
    yield Check(AREA, "shared memory", Status.OK, shared)
    yield _pipecat()
    yield _ffmpeg()


def check_open_files(limit: int, calls: int) -> Check:
    """Return whether so many open files are enough."""
    name = "open files"
    if limit == resource.RLIM_INFINITY:
        return Check(AREA, name, Status.OK, "no limit")
    needed = FILES_BESIDE + calls * (FILES_PER_CALL + SOCKETS_PER_CALL)
    enough = max(0, limit - FILES_BESIDE) // (FILES_PER_CALL + SOCKETS_PER_CALL)
    found = f"{limit} allowed: enough for some {enough} calls"
    if limit >= needed:
        return Check(AREA, name, Status.OK, found)
    fix = f"raise the limit to {needed} (`ulimit -n`, LimitNOFILE=, or the container's ulimits)"
    return Check(AREA, name, Status.FAIL, f"{found}, of {calls}", fix)


def check_file_size(limit: int, settings: Settings) -> Check:
    """Return whether files may be as long as a chunk and a journal segment."""
    name = "file size"
    chunk = 2 * 2 * settings.chunk_samples
    if limit == resource.RLIM_INFINITY:
        return Check(AREA, name, Status.OK, "no limit")
    if limit >= 16 * max(chunk, SEGMENT_BYTES):  # with as many tracks as there can be
        return Check(AREA, name, Status.OK, f"{limit} bytes allowed")
    found = f"{limit} bytes allowed; a chunk of two tracks takes {chunk}"
    return Check(AREA, name, Status.FAIL, found, "`ulimit -f unlimited`")


def _ffmpeg() -> Check:
    try:
        said = f"{find_ffmpeg()}, for `recorder export`"
    except FfmpegError as error:
        said = f"needed by `recorder export` alone: {error.hint or error}"
    return Check(AREA, "ffmpeg", Status.OK, said)


def _pipecat() -> Check:
    try:
        found = metadata.version("pipecat-ai")
    except metadata.PackageNotFoundError:
        return Check(AREA, "pipecat", Status.OK, "not installed; needed in a Pipecat bot only")
    return check_pipecat(found, _supported())


def _supported() -> SpecifierSet:
    """Return which versions the package's own `pipecat` extra asks for."""
    for line in metadata.requires("bot-recorder") or ():
        requirement = Requirement(line)
        if requirement.name == "pipecat-ai":
            return requirement.specifier
    return SpecifierSet()


def check_pipecat(found: str, supported: SpecifierSet) -> Check:
    """Return whether an installed version of Pipecat is one that is supported."""
    if supported.contains(found, prereleases=True):
        return Check(AREA, "pipecat", Status.OK, f"{found}, supported ({supported})")
    fix = "pip install 'bot-recorder[pipecat]'"
    text = f"{found} is installed; supported is {supported}"
    return Check(AREA, "pipecat", Status.FAIL, text, fix)
