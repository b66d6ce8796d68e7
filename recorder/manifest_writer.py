"""Writes a recording's manifest as things go on, for as long as the recording is this owner's."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from recorder.account import Account
from recorder.result import State
from recorder.shelf import ChunkShelf
from uploader.errors import BotRecorderError
from uploader.manifest import LostOwnership, ManifestFile, Stored

QUIET_CHUNKS = 1.5
"""Chunk lengths without a write of the manifest after which its owner shows that it is alive."""

LONGEST_QUIET_SECONDS = 60.0
"""However long chunks are: who goes on after this owner knows only what the manifest says."""


class ManifestWriter:
    """Of one recording.

    Args:
        account: Of the recording: what there is to say.
        shelf: Of its chunks: how many of them are in the store.
        owner: Token of the recording's owner.

    Attributes:
        file: The document.
        usurped: Set once somebody else has taken the recording over.
    """

    def __init__(self, account: Account, shelf: ChunkShelf, owner: str) -> None:
        self.file = ManifestFile(account.context, account.plan.manifest_key, owner)
        self.usurped: LostOwnership | None = None
        self._account = account
        self._shelf = shelf
        self._marks: object = None
        self._writing = asyncio.Lock()
        self._written_at = 0.0
        self._concluded = False

    @property
    def created(self) -> bool:
        """Whether it is in the store, written by this owner."""
        return self.file.created

    async def create(self) -> None:
        """Write the first version; nothing may be there.

        Raises:
            KeyTaken: The id is in use in the bucket.
            StoreError: Refused, or not to be had before the deadline.
        """
        await self.file.create(self._account.document(State.RECORDING, 0))
        self._written_at = time.monotonic()

    async def take_over(self, stored: Stored) -> None:
        """Become the owner, and say how often and from what the recording was taken over.

        Raises:
            LostOwnership: Somebody else was quicker.
            StoreError: Refused, or not to be had before the deadline.
        """
        await self.file.take_over(stored, {"recovered": self._account.recovered})

    async def write(self, state: State, *, if_new: bool = False) -> None:
        """Say in the store how things stand.

        Args:
            state: Of the recording.
            if_new: Not where it has been said already.

        Raises:
            LostOwnership: Somebody else has taken the recording over: nothing is sent any more.
            StoreError: Refused, or not to be had before the deadline.
        """
        if self.usurped is not None:
            raise self.usurped
        async with self._writing:
            if state is State.RECORDING and self._concluded:
                return  # a sign of life that comes late must not take back what was said
            self._concluded = state is not State.RECORDING
            uploaded, marks = self._shelf.sent, self._account.marks()
            try:
                document = self._account.document(state, uploaded)
                written = await self.file.write(document, if_new=if_new)
            except LostOwnership as error:
                self.usurped = error
                raise
            self._account.noted = uploaded
            self._marks = marks
            if written:
                self._written_at = time.monotonic()

    async def tell_marks(self) -> None:
        """Write it if it does not tell of all turns, gaps and tracks there are by now."""
        if self._account.marks() != self._marks:
            await self.write(State.RECORDING)

    async def show_life(self, idle: asyncio.Event) -> None:
        """Write it where sending takes long: who does not is taken over at some time.

        Args:
            idle: Set while nothing is being sent.
        """
        plan = self._account.plan
        longest = min(QUIET_CHUNKS * plan.seconds(plan.chunk_samples), LONGEST_QUIET_SECONDS)
        while True:
            await asyncio.sleep(longest / 3)
            quiet = time.monotonic() - self._written_at
            if self.created and not idle.is_set() and quiet > longest:
                with suppress(BotRecorderError):  # what it means is found by who sends
                    await self.write(State.RECORDING)
