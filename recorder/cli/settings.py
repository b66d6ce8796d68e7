"""`recorder settings`: what the program goes by."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from recorder.cli import options, output, runtime
from recorder.settings import Settings, settings_fields, unknown_variables
from recorder.settings_text import variables


def settings(
    bucket: options.Bucket = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the settings in effect, from the environment and .env; secrets are masked."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        found = options.make_settings(bucket=bucket)
        for name in unknown_variables():
            output.print_note(console, f"{name} is set, and no setting reads it: misspelt?")
        if as_json:
            output.print_json(found.model_dump(mode="json"))
        else:
            _print_table(found)
        return runtime.SUCCESS

    runtime.run(work, console)


def _print_table(found: Settings) -> None:
    table = output.table("setting", "value", "")
    for name, field in settings_fields().items():
        given = name in found.model_fields_set
        value = _shown(getattr(found, name))
        style = "" if given else "dim"
        variable = variables(name, field)[0]
        output.add_row(
            table, (variable, Text(value, style), Text("" if given else "default", style))
        )
    output.stdout().print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in value.items()) or "-"
    return output.clean(str(value)) or "-"
