"""What a process has used: CPU of all its threads, and memory by kind."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import time
from pathlib import Path

MIB = 1 << 20


def keep_to_one_processor() -> None:
    """Have this thread, and those it starts, run on one processor: the last it may use.

    What one thread costs grows while another is busy on the same core, and the processors of a
    virtual machine are often no more than that. A call fed a hundred times as fast as in life
    would count it as work; in life hardly ever two threads of a call are busy at once.
    """
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


class Cpu:
    """CPU seconds since it was made: of the process, of the thread, and all that is not the thread.

    Make it on the thread that the bot's event loop runs on.
    """

    def __init__(self) -> None:
        self._process = time.process_time()
        self._thread = time.thread_time()

    def process(self) -> float:
        return time.process_time() - self._process

    def thread(self) -> float:
        return time.thread_time() - self._thread


def memory_mib() -> dict[str, float]:
    """Resident memory: what is the process's alone, and what maps files the kernel may drop."""
    found: dict[str, float] = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile", "RssShmem"):
            found[name] = int(value.split()[0]) / 1024
    return {
        "private": found["RssAnon"],
        "mapped": found["RssFile"] + found["RssShmem"],
    }


def held_mib() -> float:
    """Private memory that is in use: what is free is given back to the system first.

    As far as it can be: what lies at the end of a thread's arena is kept by the allocator.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
    return memory_mib()["private"]


def peak_mib() -> float:
    """Most resident memory there ever was, file mappings included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
