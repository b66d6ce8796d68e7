"""On what machine, and how busy others kept it: figures of a busy machine are only indicative."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

BUSY_CORES = 0.2
"""More than this of one core used by other programs, and a run is called disturbed."""


def described() -> dict[str, Any]:
    """The machine."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


class Others:
    """How many cores programs other than this one and its children have used since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def cores(self) -> float:
        seconds = time.monotonic() - self._began
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / seconds)


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def _busy_seconds() -> float:
    line = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    used = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        of = resource.getrusage(who)
        used += of.ru_utime + of.ru_stime
    return used
