"""Rebuilds outputs of a finished recording from the chunk objects that were kept.

They come out as the same bytes: an output is a pure function of the chunks. They are sent as they
were while recording, by one multipart upload each, and nothing is replaced before all of the chunks
were read and proved.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from recorder.at_rest import AtRest, NotFinished, in_spite_of_cancels, in_thread, open_at_rest
from recorder.catalog import NoSuchRecording
from recorder.deliverable import Deliverable
from recorder.outputs import OutputSpec, extra_output, mixed_outputs, track_output
from recorder.result import OutputResult
from recorder.settings_values import OUTPUT_NAMES, OutputName
from recorder.stored_audio import PIECE_BYTES
from recorder.stored_chunks import StoredChunks, UnusableChunks
from recorder.stored_contents import StoredContents
from recorder.turn_clips import TurnClips
from uploader.checksum import crc64nvme, encode
from uploader.errors import BotRecorderError, PreconditionFailed
from uploader.store import Store

__all__ = [
    "AssembleError",
    "Assembled",
    "NoSuchRecording",
    "NotFinished",
    "UnusableChunks",
    "assemble",
]

T = TypeVar("T")

_INSTEAD = "--overwrite replaces it"
_CLIP = ("key", "first_sample", "state", "bytes", "samples", "checksum", "reason")
"""What a manifest says of a turn's clip."""


class AssembleError(BotRecorderError):
    """Outputs are not to be rebuilt: what is asked for is not to be had, or is there already."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was rebuilt.

    Attributes:
        recording_id: Of what.
        outputs: The objects, each verified; as `Session.stop` tells them.
    """

    recording_id: str
    outputs: tuple[OutputResult, ...]


async def assemble(
    store: Store,
    recording_id: str,
    layouts: Sequence[OutputName] = (),
    *,
    day: date | None = None,
    overwrite: bool = False,
) -> Assembled:
    """Rebuild outputs of a finished recording from its chunk objects.

    Args:
        store: Open.
        recording_id: Which.
        layouts: Which outputs; those it was made with, if none are named. Others get their
            layout's name: `mono.wav`, `stereo.wav`.
        day: Of which day, for an id that was used on several; the newest if None.
        overwrite: Replace objects that are there.

    Raises:
        InvalidName: The id is none.
        NoSuchRecording: There is none.
        NotFinished: It is still being recorded, or has not been recovered yet.
        AssembleError: An object is in the way, or a layout is unknown.
        UnusableChunks: A chunk is missing, damaged or another's; nothing was replaced.
        StoreError: The store refuses, or does not answer.
    """
    for name in layouts:
        if name not in OUTPUT_NAMES:
            raise AssembleError(f"{name!r} is no output: must be of {', '.join(OUTPUT_NAMES)}")
    rest = await open_at_rest(store, recording_id, day)
    work = _Assembly(rest, tuple(dict.fromkeys(layouts or rest.plan.outputs)), overwrite)
    return Assembled(rest.plan.recording_id, await work.run())


class _Assembly:
    """One recording's."""

    def __init__(self, rest: AtRest, layouts: tuple[str, ...], overwrite: bool) -> None:
        self._rest = rest
        self._layouts = layouts
        self._overwrite = overwrite
        self._chunks = StoredChunks(rest, in_thread)
        self._context = rest.context
        if overwrite:
            able = replace(rest.context.capabilities, conditional_writes=False)
            self._context = replace(rest.context, capabilities=able)
        self._made: list[Deliverable] = []

    async def run(self) -> tuple[OutputResult, ...]:
        self._chunks.check()
        rest, end = self._rest, self._rest.plan.first_sample + self._rest.samples
        specs = self._specs()
        contents = StoredContents(rest.plan, rest.document, self._context, secrets.token_hex(8))
        await contents.load()  # of a recording that is final this writes nothing
        clips = TurnClips(rest.plan, contents.timeline, self._deliverable)
        clips_wanted = clips.specs(end) if "turns" in self._layouts else []
        self._check_free([*specs, *clips_wanted])
        try:
            await self._outputs(specs, end)
            if clips_wanted:
                if not specs:  # a clip is of some chunks only
                    await self._prove()
                await clips.deliver(end)
            self._raise_what_failed()
            if not self._context.capabilities.checksums:
                await self._read_back()
        except BaseException:
            await in_spite_of_cancels(self._abandon())
            raise
        made = [output.to_dict(with_parts=False) for output in self._made]
        turns = [told for told in clips.to_list() if told["key"]]
        await rest.change(lambda document: _changes(document, made, turns))
        return tuple(output.result() for output in self._made)

    async def _outputs(self, specs: Sequence[OutputSpec], end: int) -> None:
        outputs = [self._deliverable(spec) for spec in specs]
        await asyncio.gather(*(output.prepare(end) for output in outputs))
        self._raise_what_failed()
        await asyncio.gather(*(output.finish(end) for output in outputs))
        self._raise_what_failed()

    def _raise_what_failed(self) -> None:
        for output in self._made:
            if isinstance(output.error, PreconditionFailed):
                raise self._in_the_way([output.key]) from output.error
            if output.error is not None:
                raise output.error

    async def _prove(self) -> None:
        for chunk in self._chunks.listed:
            if not chunk.lost:
                async with self._chunks.held(chunk):
                    await self._chunks.fetch(chunk)

    async def _read_back(self) -> None:
        """Read what was written: where the store tells no checksum of it, nothing else proves it.

        Raises:
            BotRecorderError: It is not what was sent.
        """
        for output in self._made:
            result, checksum = output.result(), 0
            pieces = self._rest.read(output.key, 0, result.bytes, PIECE_BYTES)
            async with contextlib.aclosing(pieces):
                async for body in pieces:
                    checksum = crc64nvme(body, checksum)
            if encode(checksum) != result.checksum:
                raise AssembleError(f"{output.key} in the store is not what was sent: try again")

    def _deliverable(self, spec: OutputSpec) -> Deliverable:
        reader = self._chunks.reader()
        made = Deliverable(spec, self._rest.plan, self._context, reader, lambda event: None)
        self._made.append(made)
        return made

    def _specs(self) -> list[OutputSpec]:
        plan, specs = self._rest.plan, list[OutputSpec]()
        first, declared = plan.first_sample, plan.tracks
        made = mixed_outputs(plan.outputs, plan.output_format, first, declared)
        for layout in ("stereo", "mono"):
            if layout not in self._layouts:
                continue
            own = [spec for spec in made if spec.layout == layout]
            specs += own or [extra_output(layout, plan.output_format, first, declared)]
        if "tracks" in self._layouts:
            specs += [track_output(name, plan.output_format, first) for name in self._rest.tracks]
        return specs

    def _check_free(self, specs: Sequence[OutputSpec]) -> None:
        keys = [self._rest.plan.folder + spec.file for spec in specs]
        there = [key for key in keys if key in self._rest.objects]
        if there and not self._overwrite:
            raise self._in_the_way(there)

    def _in_the_way(self, keys: Sequence[str]) -> AssembleError:
        names = ", ".join(key.removeprefix(self._rest.plan.folder) for key in keys)
        where = f"of recording {self._rest.plan.recording_id!r}"
        return AssembleError(f"{names} {where}: there already", hint=_INSTEAD)

    async def _abandon(self) -> None:
        for output in self._made:
            with contextlib.suppress(BotRecorderError):
                await output.abandon()


def _changes(
    document: Mapping[str, Any], made: Sequence[dict[str, Any]], turns: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return what a manifest says of outputs and turns with these among them."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    fresh = {
        one["name"]: {**one, "assembled_at": at} for one in made if "turns/" not in one["name"]
    }
    outputs = []
    for told in _objects(document.get("outputs")):
        outputs.append(fresh.pop(told.get("name"), told))
    clips = {one["number"]: {name: one[name] for name in _CLIP} for one in turns}
    listed = [
        {**told, **clips.get(told.get("number"), {})} for told in _objects(document.get("turns"))
    ]
    return {"outputs": [*outputs, *fresh.values()], "turns": listed}


def _objects(value: object) -> list[dict[Any, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
