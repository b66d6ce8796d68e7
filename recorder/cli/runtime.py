"""Runs a command's work: signals, errors, exit codes.

0 is success; 1 is a failure, with its reason on stderr; 2 is wrong input or wrong settings; and a
command that was stopped by a signal exits as shells expect, with 128 and the signal's number.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import typer
from rich.console import Console

from recorder.cli import output
from recorder.cli.options import UsageError
from recorder.export import ExportError
from recorder.imports.audio import UnreadableSource
from recorder.imports.request import ImportRefused
from recorder.links import NoWebAddress
from recorder.names import InvalidName
from recorder.peaks import PeaksError
from recorder.player import InputError
from recorder.settings import SettingsError
from recorder.vcon_document import NoVcon
from uploader.errors import BotRecorderError

SUCCESS, FAILURE, WRONG_INPUT = 0, 1, 2

_INSIST_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WRONG_INPUT = (
    ExportError,
    PeaksError,
    ImportRefused,
    InputError,
    InvalidName,
    NoVcon,
    NoWebAddress,
    SettingsError,
    UnreadableSource,
    UsageError,
)


class Interrupts:
    """What SIGINT and SIGTERM do: the first, what the work asked for; the second ends it.

    Attributes:
        received: The first signal, or None.
        stop: Called at the first signal, to end the work in an orderly way; until it is set, the
            first signal cancels the work.
    """

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.received: signal.Signals | None = None
        self.stop: Callable[[], None] | None = None
        self._task = task

    def receive(self, number: signal.Signals) -> None:
        """Take a signal."""
        first = self.received is None
        self.received = self.received or number
        if first and self.stop is not None:
            self.stop()
        elif self._task is not None:
            self._task.cancel()
            if not first:
                # What waits while it cleans up is not waited for either.
                asyncio.get_running_loop().call_later(_INSIST_SECONDS, self.receive, number)


Work = Callable[[Interrupts], Coroutine[Any, Any, int]]


def run(work: Work, console: Console, verbose: int = 0) -> NoReturn:
    """Run a command's work to its end and exit.

    Args:
        work: Returns the exit code.
        console: For errors and logs.
        verbose: See `output.logging`.

    Raises:
        typer.Exit: Always.
    """
    with output.logging(console, verbose):
        raise typer.Exit(asyncio.run(_run(work, console)))


async def _run(work: Work, console: Console) -> int:
    loop = asyncio.get_running_loop()
    interrupts = Interrupts(asyncio.current_task())
    for number in _SIGNALS:
        with contextlib.suppress(RuntimeError):  # not the main thread: no signals come here
            loop.add_signal_handler(number, interrupts.receive, number)
    try:
        code = await work(interrupts)
    except asyncio.CancelledError:
        if interrupts.received is None:
            raise
        code = FAILURE
    except BotRecorderError as error:
        output.print_error(console, str(error))
        code = WRONG_INPUT if isinstance(error, _WRONG_INPUT) else FAILURE
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
    return code if interrupts.received is None else 128 + interrupts.received
