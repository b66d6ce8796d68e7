"""The program `recorder`: its commands and what it says of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from recorder.cli.assemble import assemble
from recorder.cli.backfill import backfill
from recorder.cli.demo import demo
from recorder.cli.doctor import doctor
from recorder.cli.export import export
from recorder.cli.import_ import import_
from recorder.cli.ls import ls
from recorder.cli.peaks import peaks
from recorder.cli.record import record
from recorder.cli.recover import RecoverCommand, recover
from recorder.cli.settings import settings
from recorder.cli.show import show
from recorder.cli.vcon import vcon
from recorder.cli.verify import verify
from recorder.cli.worker import worker

app = typer.Typer(
    name="recorder",
    help="Durable call recording for voice bots.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("import")(import_)  # a word of Python's
COMMANDS = (
    record,
    ls,
    show,
    verify,
    export,
    assemble,
    peaks,
    vcon,
    recover,
    worker,
    backfill,
    doctor,
    demo,
    settings,
)
for command in COMMANDS:
    app.command(cls=RecoverCommand if command is recover else None)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bot-recorder {version('bot-recorder')}")
        raise typer.Exit


@app.callback()
def _recorder(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the program on the process's arguments; ends with `SystemExit`."""
    app()
