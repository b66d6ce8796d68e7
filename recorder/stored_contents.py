"""A recording whose spool is gone: its contents as the bucket has them, chunk objects and manifest.

Nothing read is believed: a chunk that is not what the manifest says counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recorder.chunks import CHUNKS, OPEN_CHUNK, Chunk
from recorder.containers.wav import parse_header
from recorder.names import InvalidName, as_participant, check_track
from recorder.plan import CHANNELS, FIRST_SAMPLE, TRACKS, Plan
from recorder.timeline import Lost, Timeline, TrackState, Turn
from uploader.checksum import crc64nvme
from uploader.context import Context
from uploader.errors import NoSuchObject
from uploader.store import ObjectInfo


class StoredContents:
    """What the bucket has of a recording.

    Args:
        plan: Of the recording, from its manifest.
        document: The manifest.
        context: Store and retries.
        owner: Token of who takes the recording over.
    """

    def __init__(
        self, plan: Plan, document: Mapping[str, Any], context: Context, owner: str
    ) -> None:
        self.timeline = Timeline(plan.sample_rate, plan.hold_back_seconds, plan.stall_seconds)
        self.sealed: list[Chunk] = []
        self.in_store = 0
        self.finished = False
        self._plan = plan
        self._document = document
        self._context = context
        self._owner = owner

    @property
    def sealed_samples(self) -> int:
        """The sample behind the last chunk."""
        return self.sealed[-1].end if self.sealed else self._plan.first_sample

    def chunk_path(self, chunk: Chunk) -> Path:
        """Return a file that is not there: all chunks are in the store."""
        return Path("/dev/null") / chunk.name

    async def load(self) -> None:
        """Find out what there is; nobody else may write to the recording any more.

        Raises:
            BotRecorderError: The manifest's list of chunks is damaged.
            StoreError: The store does not answer, or refuses.
        """
        there = await self._objects()
        missing = []
        for told in self._document.get("chunks", []):
            chunk = Chunk.from_dict(told)
            info = there.pop(chunk.name, None)
            if not chunk.lost and (info is None or info.size != chunk.bytes):
                chunk = Chunk.from_dict({**told, "lost": True})
                missing.append(chunk)
            self.sealed.append(chunk)
        final = self._document.get("sealed") is True
        # Behind a final length there is only what came too late: an object without it may exist.
        while not final and (info := there.get(f"{self._next_number():06d}.wav")) is not None:
            found = await self._unlisted(info)
            if found is None:
                break
            self.sealed.append(found[0])
        if not final and (info := there.get(OPEN_CHUNK)) is not None:
            await self._take_open_chunk(info)
        self.in_store = len(self.sealed)
        self._fill_timeline(missing)
        self.finished = True

    def _next_number(self) -> int:
        if self.sealed:
            return self.sealed[-1].number + 1
        return self._plan.first_sample // self._plan.chunk_samples + 1

    async def _objects(self) -> dict[str, ObjectInfo]:
        """Return the chunk objects by name."""
        store, prefix = self._context.store, f"{self._plan.folder}{CHUNKS}"

        async def collect() -> list[ObjectInfo]:
            return [info async for info in store.list_objects(prefix)]

        found = await self._context.call("list_objects", collect)
        return {info.key.removeprefix(prefix): info for info in found}

    async def _take_open_chunk(self, info: ObjectInfo) -> None:
        """Make the beginning of the chunk that was open the last one.

        It gets a name that nobody else writes to: an owner that is alive after all may replace the
        object it is read from, and the chunk's own.
        """
        found = await self._unlisted(info)
        if found is None:
            return
        chunk, body = found
        chunk = replace(chunk, file=f"{chunk.number:06d}-{self._owner}.wav")
        context, key = self._context, self._plan.chunk_key(chunk)
        attributes = self._plan.chunk_attributes(chunk)
        await context.call(
            "put_chunk",
            lambda: context.store.put(key, body, attributes, checksum=chunk.checksum),
        )
        self.sealed.append(chunk)

    async def _unlisted(self, info: ObjectInfo) -> tuple[Chunk, bytes] | None:
        """Return a chunk that no manifest lists, and its bytes, if it is just what must follow."""
        context, plan = self._context, self._plan
        # Late audio keeps the chunks it had: the first may begin before it.
        start = (
            self.sealed_samples if self.sealed else plan.chunk_samples * (self._next_number() - 1)
        )
        try:
            body, told = await context.call("get_chunk", lambda: context.store.read(info.key))
        except NoSuchObject:
            return None
        metadata = told.metadata
        try:
            header = parse_header(body[:4096])
        except ValueError:
            context.log.warning("{} is not a chunk", info.key)
            return None
        if metadata.get(FIRST_SAMPLE) != str(start) or header.sample_rate != self._plan.sample_rate:
            context.log.warning("{} is not the chunk at sample {}", info.key, start)
            return None
        count = 0 if metadata.get(CHANNELS) == "0" else header.channels
        tracks = self._tracks(count, metadata.get(TRACKS, ""))
        samples = (len(body) - header.data_offset) // (2 * header.channels)
        number = self._next_number()
        if not 0 < samples <= self._plan.chunk_samples:
            context.log.warning("{} has {} samples", info.key, samples)
            return None
        return Chunk(number, start, samples, tracks, len(body), crc64nvme(body)), body

    def _tracks(self, count: int, told: str) -> tuple[str, ...]:
        """Return the names of a chunk's tracks: its own word, or the manifest's, or numbers."""
        named = [name for name in told.split(",") if _is_track(name)]
        if len(named) != count:
            named = [name for name, _ in self._named_tracks()][:count]
        numbered = [f"track-{index + 1}" for index in range(len(named), count)]
        return (*named, *numbered)

    def _named_tracks(self) -> list[tuple[str, str]]:
        listed = self._document.get("tracks", [])
        pairs = [(one.get("name"), one.get("source")) for one in listed if isinstance(one, dict)]
        return [
            (check_track(name), "playout" if source == "playout" else "capture")
            for name, source in pairs
            if isinstance(name, str)
        ]

    def _fill_timeline(self, missing: list[Chunk]) -> None:
        timeline, end = self.timeline, self.sealed_samples
        tracks = dict(self._named_tracks())
        for chunk in self.sealed:
            for name in chunk.tracks:
                tracks.setdefault(name, "capture")
        timeline.tracks[:] = [
            TrackState(name, "playout" if source == "playout" else "capture")
            for name, source in tracks.items()
        ]
        self._tell_whose()
        timeline.length = end
        timeline.turns[:] = self._turns(list(tracks), end)
        timeline.pauses[:] = [
            [start, end if stop is None else min(stop, end)]
            for start, stop in _pairs(self._document.get("pauses"))
        ]
        timeline.lost[:] = self._lost(end)
        for chunk in missing:
            reason = f"chunk {chunk.number} is not in the bucket as the manifest lists it"
            for name in chunk.tracks:
                timeline.lost.append(Lost(name, chunk.first_sample, chunk.end, 0, reason))
        if self._document.get("sealed") is not True:
            reason = (
                "the recording's host was lost: audio behind this, less than a chunk as a rule, "
                "was not in the bucket yet"
            )
            for name in tracks:
                timeline.lost.append(Lost(name, end, None, 0, reason))

    def _tell_whose(self) -> None:
        """Enter what the manifest says of who speaks on a track, and since when."""
        listed = [one for one in self._document.get("tracks", []) if isinstance(one, dict)]
        told = {one["name"]: one for one in listed if isinstance(one.get("name"), str)}
        for state in self.timeline.tracks:
            one = told.get(state.name, {})
            if isinstance(participant := one.get("participant"), str):
                state.participant = as_participant(participant)
            state.joined = _whole(one.get("joined"))

    def _turns(self, tracks: list[str], end: int) -> list[Turn]:
        turns = []
        for told in self._document.get("turns", []):
            try:
                number, start, until = told["number"], told["start"], told["end"]
                track, interrupted = tracks.index(told["track"]), told["interrupted"] is True
                until = end if until is None else min(until, end)
                of = _whole(told.get("conversation_turn"))
                if start < end:
                    turns.append(Turn(number, track, start, max(start, until), interrupted, of))
            except (KeyError, TypeError, ValueError):
                self._context.log.warning("a turn in the manifest is damaged: left out")
        return turns

    def _lost(self, end: int) -> list[Lost]:
        lost = []
        for told in self._document.get("gaps", []):
            try:
                start, until = told["start"], told["end"]
                until = None if until is None else min(until, end)
                if start < end or until is None:
                    lost.append(Lost(str(told["track"]), start, until, 0, str(told["reason"])))
            except (KeyError, TypeError):
                self._context.log.warning("a gap in the manifest is damaged: left out")
        return lost


def _is_track(name: str) -> bool:
    try:
        check_track(name)
    except InvalidName:
        return False
    return True


def _whole(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _pairs(value: object) -> list[tuple[int, int | None]]:
    pairs = []
    for item in value if isinstance(value, list) else ():
        match item:
            case [int() as start, (int() | None) as stop]:
                pairs.append((start, stop))
    return pairs
