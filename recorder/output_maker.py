"""Makes a recording's outputs: mixed ones from the beginning, those of tracks as tracks join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from recorder import events
from recorder.account import Account
from recorder.chunk_reader import ChunkReader
from recorder.deliverable import Deliverable
from recorder.encoded_parts import EncodedParts
from recorder.outputs import OutputSpec, mixed_outputs, track_output
from recorder.quota import SpoolQuota
from recorder.spool import Spool


class OutputMaker:
    """Of one recording.

    Args:
        account: Of the recording: gets the outputs.
        reader: Its samples.
        encoding: Held while something is encoded.
        quota: Counts the bytes of encoded parts.
        emit: Told of parts and completion.
        spool: The recording's local folder, if it has one here.

    Attributes:
        expected: Names of tracks that get their outputs before they join.
    """

    def __init__(
        self,
        account: Account,
        reader: ChunkReader,
        encoding: asyncio.Semaphore,
        quota: SpoolQuota,
        emit: Callable[[events.Event], None],
        spool: Spool | None,
    ) -> None:
        self.expected: list[str] = []
        self._account = account
        self._outputs = account.outputs
        self._reader = reader
        self._encoding = encoding
        self._quota = quota
        self._emit = emit
        self._spool = spool
        plan = account.plan
        for spec in mixed_outputs(plan.outputs, plan.output_format, plan.first_sample, plan.tracks):
            self._outputs.append(self.make(spec))

    def make(self, spec: OutputSpec) -> Deliverable:
        """Return a new output, of which nothing was sent."""
        return Deliverable(
            spec,
            self._account.plan,
            self._account.context,
            self._reader,
            self._emit,
            self._keep,
            self._encoding,
        )

    def make_anew(self) -> None:
        """Make all outputs again, as the plan is by now: before anything of them was sent."""
        self._outputs[:] = [self.make(output.spec) for output in self._outputs]

    def add_tracks(self) -> None:
        """Make outputs of the tracks that have none yet, if there shall be any."""
        plan = self._account.plan
        if "tracks" not in plan.outputs:
            return
        there = {output.spec.name for output in self._outputs}
        joined_later = [state.name for state in self._account.contents.timeline.tracks]
        for name in dict.fromkeys([*self.expected, *joined_later]):
            if name not in there:
                spec = track_output(name, plan.output_format, plan.first_sample)
                self._outputs.append(self.make(spec))

    async def adopt(self, document: dict[str, Any]) -> None:
        """Go on with the uploads that a manifest tells of.

        Raises:
            StoreError: See `Deliverable.adopt`.
        """
        by_name = {output.spec.name: output for output in self._outputs}
        for told in document.get("outputs", []):
            output = by_name.get(told.get("name"))
            if output is not None:
                await output.adopt(told)

    def _keep(self, file: str) -> EncodedParts:
        folder = None if self._spool is None else self._spool.encoded
        return EncodedParts(folder, file, self._quota)
