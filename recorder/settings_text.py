"""What settings say of themselves: their declaration, the lines of their errors, their table.

A setting's meaning and what it allows are written once, where the field is declared; errors and
documentation are made of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from recorder.names import InvalidName, shown
from recorder.settings_values import in_bytes

PREFIX = "RECORDER_"

Fields = Mapping[str, FieldInfo]

_USERINFO = re.compile(r"//.*@")


def setting(
    meaning: str,
    allowed: str,
    default: Any = ...,
    *,
    variables: tuple[str, ...] = (),
    shows: str | None = None,
    **constraints: Any,
) -> Any:
    """Return a field.

    Args:
        meaning: What the setting does, a phrase.
        allowed: Completes "must be ...".
        default: Its default, or a function that returns it; `...` for a value that must be given.
        variables: Its variables, of which the first that is set wins; `RECORDER_<NAME>` if empty.
        shows: How the documentation writes the default, where its value does not tell.
        constraints: Of pydantic's `Field`, e.g. `ge`.
    """
    constraints["default_factory" if callable(default) else "default"] = default
    extra: dict[str, Any] = {"allowed": allowed, "shows": shows, "variables": list(variables)}
    return Field(description=meaning, json_schema_extra=extra, **constraints)


def seconds(meaning: str, default: float, low: float, high: float, also: str = "") -> Any:
    """Return a field of seconds from `low` to `high`; `also` is said behind the range."""
    allowed = f"a number of seconds from {low:g} to {high:g}{also}"
    return setting(meaning, allowed, default, ge=low, le=high, allow_inf_nan=False)


def size(meaning: str, default: int, low: int, high: int, also: str = "") -> Any:
    """Return a field of bytes from `low` to `high`; `also` is said behind the range."""
    allowed = f"bytes from {in_bytes(low)} to {in_bytes(high)}{also}, as 8388608, 8M or 8MiB"
    return setting(meaning, allowed, default, shows=f"`{in_bytes(default)}`", ge=low, le=high)


def variables(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return a field's environment variables, the one that wins first."""
    extra = field.json_schema_extra
    own = extra.get("variables") if isinstance(extra, dict) else None
    return tuple(map(str, own)) if isinstance(own, list) and own else (PREFIX + name.upper(),)


def _extra(field: FieldInfo, key: str) -> str | None:
    extra = field.json_schema_extra
    value = extra.get(key) if isinstance(extra, dict) else None
    return value if isinstance(value, str) else None


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


class Report:
    """The lines of an error, each naming the value by where it came from.

    Args:
        fields: Of the settings.
        arguments: What `Settings(...)` was called with.
        sources: What the environment and then the `.env` file have, by lower-case name, each with
            the words that tell it in a message. Called only when there is something to report.
    """

    def __init__(
        self,
        fields: Fields,
        arguments: Mapping[str, Any],
        sources: Callable[[], list[tuple[str, Mapping[str, str | None]]]],
    ) -> None:
        self._fields = fields
        self._arguments = arguments
        self._sources = sources

    def unknown_arguments(self) -> list[str]:
        """Return a line for each argument that is no setting (pydantic's own begin with `_`)."""
        lines = []
        for name in self._arguments:
            if name not in self._fields and not name.startswith("_"):
                close = difflib.get_close_matches(name, self._fields, n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                lines.append(f"{name}: there is no such setting{meant}")
        return lines

    def lines(self, errors: list[ErrorDetails]) -> list[str]:
        """Return a line for each setting that pydantic found wrong."""
        found: dict[str, str] = {}
        for error in errors:
            name = str(error["loc"][0])
            if name in found:  # one of several items of one value
                continue
            cause = error.get("ctx", {}).get("error")
            if error["type"] == "missing":
                variable = variables(name, self._fields[name])[0]
                found[name] = f"{variable} is not set: must be {self.allowed(name)}"
            elif isinstance(cause, InvalidName):
                found[name] = self.line(name, cause.reason)
            elif isinstance(cause, ValueError):
                found[name] = self.line(name, str(cause))
            else:
                found[name] = self.line(name, f"must be {self.allowed(name)}")
        return list(found.values())

    def line(self, name: str, reason: str) -> str:
        """Return a line about the value of field `name`."""
        field = self._fields[name]
        where, value, note = self._origin(name)
        if _is_secret(field):
            return f"{where}{note}: {reason}"
        text = shown(_USERINFO.sub("//***@", value) if isinstance(value, str) else value)
        return f"{where}={text}{note}: {reason}"

    def allowed(self, name: str) -> str:
        """Return what field `name` allows."""
        return _extra(self._fields[name], "allowed") or ""

    def _origin(self, name: str) -> tuple[str, object, str]:
        """Return the name under which a field's value was given, the value, and a remark."""
        names = variables(name, self._fields[name])
        if name in self._arguments:
            return name, self._arguments[name], ""
        for note, values in self._sources():
            for variable in names:
                if values.get(variable.lower()) is not None:
                    return variable, values[variable.lower()], note
        return names[0], self._fields[name].get_default(call_default_factory=True), " (default)"


def table(fields: Fields) -> str:
    """Return the Markdown table of all settings: variables, default, meaning, what is allowed."""
    rows = ["| Variable | Default | Meaning | Allowed |", "|---|---|---|---|"]
    for name, field in fields.items():
        names = ", else ".join(f"`{variable}`" for variable in variables(name, field))
        allowed = _extra(field, "allowed")
        rows.append(f"| {names} | {_default(field)} | {field.description} | {allowed} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if text := _extra(field, "shows"):
        return text
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if value else "none"
