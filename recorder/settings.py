"""Settings: the only place in the project that reads the environment.

A value is taken from the first of: an argument of `Settings(...)`, the process's environment, a
`.env` file in the current folder (for development), the default. Variables that are set but empty
count as not set. Whatever is wrong is reported at once, one line for each value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from recorder import settings_values as values
from recorder.containers import codec, format_names
from recorder.containers.opus import DEFAULT_BITRATE, LEAST_BITRATE, MOST_BITRATE
from recorder.location import LOCATION_RULE, Location, parse_location
from recorder.names import InvalidName, check_metadata, check_prefix, check_tags
from recorder.settings_postprocess import PostprocessSettings
from recorder.settings_text import PREFIX, Report, seconds, setting, size, table, variables
from recorder.settings_values import GIB, MIB, TIB, OutputName
from recorder.waveform import (
    DEFAULT_SAMPLES_PER_PIXEL,
    MAX_SAMPLES_PER_PIXEL,
    MIN_SAMPLES_PER_PIXEL,
)
from uploader.errors import BotRecorderError
from uploader.store import MAX_PART_BYTES, MIN_PART_BYTES

__all__ = [
    "STORAGE_CLASSES",
    "Location",
    "OutputName",
    "Settings",
    "SettingsError",
    "parse_location",
    "settings_fields",
    "settings_table",
    "unknown_variables",
]

#: Amazon S3 API Reference, CreateMultipartUpload, `x-amz-storage-class`.
STORAGE_CLASSES = (
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
    "EXPRESS_ONEZONE",
    "FSX_OPENZFS",
)

_ByteCount = Annotated[int, BeforeValidator(values.byte_count)]


class SettingsError(BotRecorderError, ValueError):
    """One or more settings are missing or wrong.

    Attributes:
        problems: One line for each, naming the variable or argument and what is allowed.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _default_spool_dir() -> Path:
    """Return the spool's place in the user's state folder (XDG Base Directory Specification)."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # which the specification says to ignore
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            problem = "RECORDER_SPOOL_DIR is not set, and the user has no home folder: set it"
            raise SettingsError([problem]) from None
    return state / "bot-recorder" / "spool"


#: Credentials belong together: a key of one source and a token of another fit nothing.
_CREDENTIALS = frozenset(
    {"aws_profile", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
)


class _Variables(PydanticBaseSettingsSource):
    """The variables of the process and of the `.env` file, as text, by field.

    Takes each field's variables in their order, and credentials from one source alone, be that
    the arguments; pydantic's own sources do neither in all of their versions.
    """

    def __init__(
        self, arguments: PydanticBaseSettingsSource, *places: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(arguments.settings_cls)
        self._arguments = arguments
        self._places = [place for place in places if isinstance(place, EnvSettingsSource)]

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return a field's text, its name, and that the text is not to be decoded."""
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        given = {name for name, value in self._arguments().items() if value is not None}
        found: dict[str, Any] = {}
        for place in self._places:
            skipped = _CREDENTIALS if given & _CREDENTIALS else frozenset()
            for name, text in _texts(self.settings_cls, place.env_vars):
                if name not in given and name not in skipped:
                    found[name] = text
            given |= set(found)
        return found


def _texts(
    settings_cls: type[BaseSettings], env_vars: Mapping[str, str | None]
) -> Iterator[tuple[str, str]]:
    """Yield fields and their texts; a variable that is empty is not in `env_vars`."""
    for name, field in settings_cls.model_fields.items():
        for variable in variables(name, field):
            if (text := env_vars.get(variable.lower())) is not None:
                yield name, text
                break


class Settings(PostprocessSettings):
    """What a user can set, checked. Raises `SettingsError` for all that is wrong at once.

    Arguments have the fields' names: `Settings(bucket="calls", chunk_seconds=10)`.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    bucket: Annotated[str, BeforeValidator(values.bucket)] = setting(
        "Where recordings go", LOCATION_RULE
    )
    prefix: Annotated[str, BeforeValidator(check_prefix)] = setting(
        "What every key begins with, after the bucket URL's own prefix",
        "up to 512 bytes of A-Z a-z 0-9 . _ = @ + , - and /",
        "",
    )
    chunk_seconds: float = seconds(
        "Length of a chunk: what the loss of a whole host can cost",
        30.0,
        0.1,
        900,
        ", and a whole number of samples",
    )
    sample_rate: int = setting(
        "Sample rate of the recording; what arrives at others is resampled",
        "a whole number of hertz from 4000 to 192000",
        24_000,
        ge=4_000,
        le=192_000,
    )
    outputs: Annotated[tuple[OutputName, ...], BeforeValidator(values.outputs)] = setting(
        "Which files are made of a recording", values.OUTPUTS_RULE, ("stereo",)
    )
    format: Annotated[str, BeforeValidator(partial(values.one_of, format_names()))] = setting(
        "Their format; chunks are always WAV", values.either(format_names()), "wav"
    )
    opus_bitrate: int = setting(
        "Bits per second of each channel of Opus, where there is speech",
        f"a whole number from {LEAST_BITRATE} to {MOST_BITRATE}",
        DEFAULT_BITRATE,
        ge=LEAST_BITRATE,
        le=MOST_BITRATE,
    )
    part_bytes: _ByteCount = size(
        "Size of an upload's parts", 5 * MIB, MIN_PART_BYTES, MAX_PART_BYTES
    )
    inflight_bytes: _ByteCount = size(
        "Audio held in memory for uploads, all recordings of the process together",
        64 * MIB,
        MIN_PART_BYTES,
        TIB,
        ", and no less than a part",
    )
    spool_dir: Annotated[Path, BeforeValidator(values.folder)] = setting(
        "Local folder that keeps audio until it is in the bucket; must outlive the process",
        "a folder's path",
        _default_spool_dir,
        shows="`$XDG_STATE_HOME/bot-recorder/spool`, else `~/.local/state/...`",
    )
    spool_max_bytes: _ByteCount = size(
        "What the spool may hold: how long an outage of the bucket can last",
        10 * GIB,
        16 * MIB,
        1024 * TIB,
    )
    spool_full: Annotated[
        values.SpoolPolicy, BeforeValidator(partial(values.one_of, values.SPOOL_POLICIES))
    ] = setting(
        "What is lost while the spool is full: audio that comes, or the oldest that is not in the "
        "bucket",
        " or ".join(values.SPOOL_POLICIES),
        "stop",
    )
    keep_chunks: bool = setting(
        "Keep the chunks in the bucket after the outputs are complete", "true or false", False
    )
    peaks: bool = setting(
        "Write the waveform, peaks.json, beside the outputs", "true or false", True
    )
    peaks_samples_per_pixel: int = setting(
        "Samples that each of the waveform's points stands for",
        f"a whole number from {MIN_SAMPLES_PER_PIXEL} to {MAX_SAMPLES_PER_PIXEL}",
        DEFAULT_SAMPLES_PER_PIXEL,
        ge=MIN_SAMPLES_PER_PIXEL,
        le=MAX_SAMPLES_PER_PIXEL,
    )
    tags: Annotated[dict[str, str], BeforeValidator(partial(values.pairs, check_tags))] = setting(
        "Object tags of what is made", values.PAIRS_RULE, dict
    )
    metadata: Annotated[dict[str, str], BeforeValidator(partial(values.pairs, check_metadata))] = (
        setting("User metadata of what is made", values.PAIRS_RULE, dict)
    )
    vcon: bool = setting(
        "Put a vCon, `vcon.json`, beside each complete recording", "true or false", False
    )
    web_url: Annotated[str | None, BeforeValidator(values.web_url)] = setting(
        "Address at which the web has what is in the bucket, below its prefix: for the links in a "
        "vCon",
        values.WEB_URL_RULE,
        None,
        shows="the bucket's own",
    )
    storage_class: Annotated[
        str | None, BeforeValidator(partial(values.one_of, STORAGE_CLASSES))
    ] = setting(
        "Storage class of the outputs",
        f"one of {', '.join(STORAGE_CLASSES)}",
        None,
        shows="the bucket's",
    )
    kms_key_id: str | None = setting(
        "Key that S3 encrypts with (SSE-KMS)",
        "a KMS key's id, alias or ARN",
        None,
        shows="the bucket's",
        pattern=r"^[A-Za-z0-9:/_-]{1,2048}$",
    )
    hold_back_seconds: float = seconds(
        "How long after its end a chunk stays open for late audio", 2.0, 0.2, 30
    )
    stall_seconds: float = seconds(
        "How long a chunk waits for a microphone that stops in mid-stream: it may be a stall",
        10.0,
        0,
        60,
    )
    pre_roll_seconds: float = seconds(
        "Audio before the start of a user's turn that its clip begins with", 1.0, 0, 10
    )
    start_timeout_seconds: float = seconds(
        "How long a start waits for the bucket before it goes on without", 5.0, 0.1, 300
    )
    drain_seconds: float = seconds(
        "How long closing waits for uploads; what is left stays in the spool", 30.0, 0, 3600
    )
    recover_seconds: float = seconds(
        "How often the spool is looked through for recordings to finish; 0 is never",
        60.0,
        0,
        86_400,
    )
    attempt_timeout_seconds: float = seconds("How long one request may take", 120.0, 1, 3600)
    retry_base_seconds: float = seconds(
        "Longest wait before the first retry; doubled for each further one", 0.2, 0.01, 60
    )
    retry_max_wait_seconds: float = seconds(
        "Longest wait between two tries", 20.0, 0.1, 600, ", and no less than the first"
    )
    retry_deadline_seconds: float = seconds(
        "How long after a call its uploads are retried; until it ends they always are",
        300.0,
        1,
        86_400,
    )
    aws_region: str | None = setting(
        "Region of the bucket",
        "a region's name",
        None,
        variables=("AWS_REGION", "AWS_DEFAULT_REGION"),
        shows="AWS's own configuration",
        pattern=r"^[A-Za-z0-9-]{1,64}$",
    )
    aws_endpoint_url_s3: Annotated[str | None, BeforeValidator(values.endpoint)] = setting(
        "Address of another S3 implementation",
        values.ENDPOINT_RULE,
        None,
        variables=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        shows="Amazon's",
    )
    aws_profile: str | None = setting(
        "Profile of AWS's configuration files",
        "a profile's name",
        None,
        variables=("AWS_PROFILE",),
    )
    aws_access_key_id: SecretStr | None = setting(
        "Credentials; roles and AWS's other sources work without",
        "an access key's id",
        None,
        variables=("AWS_ACCESS_KEY_ID",),
    )
    aws_secret_access_key: SecretStr | None = setting(
        "The access key's secret", "text", None, variables=("AWS_SECRET_ACCESS_KEY",)
    )
    aws_session_token: SecretStr | None = setting(
        "Of temporary credentials", "text", None, variables=("AWS_SESSION_TOKEN",)
    )

    def __init__(self, **arguments: Any) -> None:
        report = Report(type(self).model_fields, arguments, partial(_sources, arguments))
        if problems := report.unknown_arguments():
            raise SettingsError(problems)
        errors: list[ErrorDetails] = []
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            errors = error.errors()
        if errors:  # outside of `except`: the original error, whose text can hold a secret, ends
            raise SettingsError(report.lines(errors))
        if problems := [report.line(name, reason) for name, reason in self._contradictions()]:
            raise SettingsError(problems)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the variables as this project documents them."""
        return init_settings, _Variables(init_settings, env_settings, dotenv_settings)

    def replace(self, **changes: Any) -> Self:
        """Return settings with other values for some, checked anew; no variable has a say.

        Raises:
            SettingsError: A value is not allowed, by itself or beside the others.
        """
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(_env_file=None, **(kept | changes))

    @property
    def location(self) -> Location:
        """Where recordings are kept: bucket and prefix, taken apart."""
        return parse_location(self.bucket, self.prefix)

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk in samples."""
        return int(self._exact_chunk_samples())

    def _exact_chunk_samples(self) -> Fraction:
        # As it was written in decimals: 1.1 s x 24000 Hz is 26400, in binary a bit more.
        return Fraction(str(self.chunk_seconds)) * self.sample_rate

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield the field of each value that does not go with another, and why."""
        try:
            location = self.location
        except InvalidName as error:
            yield "prefix", f"with the bucket URL's own prefix: {error.reason}"
        else:
            key, secret = self.aws_access_key_id, self.aws_secret_access_key
            if location.kind == "s3" and (key is None) != (secret is None):
                missing = "AWS_ACCESS_KEY_ID" if key is None else "AWS_SECRET_ACCESS_KEY"
                given = "aws_secret_access_key" if key is None else "aws_access_key_id"
                yield given, f"needs {missing} beside it"
            endpoint = self.aws_endpoint_url_s3 or "https://"
            known = location.kind == "s3" and endpoint.startswith("https://")
            if self.vcon and self.web_url is None and not known:
                yield "vcon", "needs RECORDER_WEB_URL beside it: the bucket has no https address"
        if self._exact_chunk_samples().denominator != 1:
            yield "chunk_seconds", f"is not a whole number of samples at {self.sample_rate} Hz"
        if (form := codec(self.format)) is not None:
            if reason := form.refusal(self.sample_rate):
                yield "sample_rate", reason
            if missing_codec := form.missing():
                yield "format", f"needs a library that is not installed: {missing_codec}"
        if self.inflight_bytes < self.part_bytes:
            part = values.in_bytes(self.part_bytes)
            yield "inflight_bytes", f"must be no less than a part, {part}"
        if self.retry_max_wait_seconds < self.retry_base_seconds:
            first = f"{self.retry_base_seconds:g}"
            yield "retry_max_wait_seconds", f"must be no less than the first wait, {first}"
        yield from self.postprocess_contradictions()


def _sources(arguments: Mapping[str, Any]) -> list[tuple[str, Mapping[str, str | None]]]:
    """Return what the environment and the `.env` file hold, by lower-case name."""
    env_file = arguments.get("_env_file", Settings.model_config.get("env_file"))
    return [
        ("", EnvSettingsSource(Settings).env_vars),
        (" (in .env)", DotEnvSettingsSource(Settings, env_file=env_file).env_vars),
    ]


def unknown_variables() -> tuple[str, ...]:
    """Return the `RECORDER_` variables that are set and no setting reads: misspelt, most likely."""
    known = {
        variable
        for name, field in Settings.model_fields.items()
        for variable in variables(name, field)
    }
    found = {name.upper() for _, source in _sources({}) for name in source}
    return tuple(sorted(name for name in found - known if name.startswith(PREFIX)))


def settings_fields() -> dict[str, FieldInfo]:
    """Return all settings, by name, in the order in which people are shown them."""
    fields, last = Settings.model_fields, PostprocessSettings.model_fields
    return {name: fields[name] for name in sorted(fields, key=last.__contains__)}


def settings_table() -> str:
    """Return the Markdown table of all settings, as the README has it."""
    return table(settings_fields())
