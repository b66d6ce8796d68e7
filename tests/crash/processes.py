"""Child processes by fork: what they need is imported already, and each is really its own.

Fork from a process with one thread only.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger
from watch import Field, Hook, Kill, Watch

AT_ONCE = 3
ALARM_SECONDS = 40

Answer = dict[str, Any]


def fork(work: Callable[[], None], log: Path) -> int:
    """Return the pid of a child that does `work`, its words in `log`; SIGALRM ends a hung one."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        signal.alarm(ALARM_SECONDS)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        faulthandler.register(signal.SIGALRM, chain=True)  # tell where, then die
        logger.remove()
        logger.add(sys.stderr, level="INFO")
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def in_parallel(jobs: Iterable[tuple[Path, Callable[[], Answer]]]) -> Iterator[Answer]:
    """Do each job in a process of its own, some at a time; yield what they return.

    A job has a folder, which is deleted if it brings no problems.
    """

    def do(folder: Path, job: Callable[[], Answer]) -> None:
        (folder / "answer.json").write_text(json.dumps(job()))

    def harvest() -> Answer:
        pid, status = os.wait()
        folder = running.pop(pid)
        answer: Answer = {"problems": [f"the trial ended by {status}; see {folder}/log"]}
        if os.waitstatus_to_exitcode(status) == 0:
            answer = json.loads((folder / "answer.json").read_text())
        answer["folder"] = str(folder)
        if not answer["problems"]:
            shutil.rmtree(folder)
        return answer

    running: dict[int, Path] = {}
    for folder, job in jobs:
        if len(running) >= AT_ONCE:
            yield harvest()
        folder.mkdir(parents=True)
        running[fork(partial(do, folder, job), folder / "log")] = folder
    while running:
        yield harvest()


def run_and_kill(work: Callable[[Watch], None], kill: Kill, log: Path) -> tuple[Watch, int, float]:
    """Do `work` in a child and kill it; return what it told, its exit code, and its life."""
    watch = Watch()

    def watched() -> None:
        Hook(watch, kill)
        work(watch)

    pid = fork(watched, log)
    while not watch[Field.GO]:
        time.sleep(0.0005)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    began = time.monotonic()
    if kill.by == "time":
        time.sleep(kill.at)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return watch, code, time.monotonic() - began
