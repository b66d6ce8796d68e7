"""Completes a recording's outputs, behind the manifest that says that the length is final.

Nobody completes an object before that manifest, won by compare-and-swap, fixes its length: an
owner that was taken over cannot complete any more, and whoever goes on makes the same bytes.
"""

from __future__ import annotations

import asyncio

from recorder.account import Account
from recorder.chunk_sender import ChunkSender
from recorder.manifest_writer import ManifestWriter
from recorder.result import State
from recorder.tally import Tally
from recorder.turn_clips import TurnClips
from recorder.waiting import ended, raise_first
from uploader.errors import StoreError


class Completion:
    """Of one recording, of which all is sealed.

    Args:
        account: Of the recording.
        manifest: Of the recording.
        sender: Of its chunks.
        clips: Of its turns.
        tally: Its waveform, if it gets one.
    """

    def __init__(
        self,
        account: Account,
        manifest: ManifestWriter,
        sender: ChunkSender,
        clips: TurnClips,
        tally: Tally | None,
    ) -> None:
        self._account = account
        self._outputs = account.outputs
        self._manifest = manifest
        self._sender = sender
        self._clips = clips
        self._tally = tally

    async def run(self, samples: int, *, patient: bool) -> State:
        """Send what is left, complete all outputs, and return what came of it.

        Args:
            samples: Behind the last one, on the recording's clock.
            patient: Whether audio may have to be read again for the waveform.

        Raises:
            BotRecorderError: It could not be done; nothing was deleted.
        """
        parts = asyncio.gather(
            *(output.prepare(samples) for output in self._outputs), return_exceptions=True
        )
        try:
            await self._fix_length()
        except StoreError as error:  # maybe for want of the time that an output's trouble took
            await parts
            raise next(iter(self._account.troubles()), error) from error
        except BaseException:  # who was taken over sends nothing more
            await ended(parts)
            raise
        raise_first(await parts)
        outcome = await self._finish_outputs(samples, patient=patient)
        try:
            await self._manifest.write(outcome)
        except StoreError:
            # The outputs' own trouble says more: there may have been no time left for this.
            if outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
                raise
        return outcome

    async def _fix_length(self) -> None:
        """Send the chunks that are left, then say that there are no more: the fence.

        Parts are on their way meanwhile: who goes on from here compares what the store has of them.
        """
        await self._sender.send()
        self._account.sealed = True
        await self._manifest.write(State.RECORDING)

    async def _finish_outputs(self, samples: int, *, patient: bool) -> State:
        """Complete the outputs and the clips, and put the waveform beside them."""
        steps = [output.finish(samples) for output in self._outputs]
        if "turns" in self._account.plan.outputs:
            steps.append(self._clips.deliver(samples))
        if self._tally is not None:  # its bytes are fixed, too, by now: whoever puts them
            self._tally.begin()
        try:
            raise_first(await asyncio.gather(*steps, return_exceptions=True))
            outcome = self._account.outcome()
            if self._tally is not None and outcome in (State.COMPLETED, State.COMPLETED_WITH_GAPS):
                await self._tally.end(patient=patient)
        finally:
            if self._tally is not None:
                await self._tally.drop()
        return outcome
