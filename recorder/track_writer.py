"""The shortest way of a frame into the journal: one track's frames of one form."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from recorder.frame_limits import MAX_AHEAD_SECONDS
from recorder.journal import LAST_AUDIO_SLOT, JournalWriter, Lane
from recorder.journal_format import HEADER, HEADER_BYTES

_NS = 1e9

_pack = HEADER.pack_into


class Otherwise(Protocol):
    """The way that is open to every frame."""

    def __call__(
        self,
        track: str,
        pcm: bytes | bytearray | memoryview,
        sample_rate: int,
        num_channels: int,
        at: float | None,
        *,
        writer: TrackWriter,
    ) -> None:
        """Accept a frame, and have `writer` use the track's lane if it may."""


class TrackWriter:
    """Takes one track's frames of one rate and channel count; made by `Session.writer`.

    Nearly every frame is like the one before it. What is the same for all is worked out once; the
    others are left to the session.

    Attributes:
        track: Whose audio.
        sample_rate: Hz.
        num_channels: Of its frames.
    """

    __slots__ = (
        "_journal",
        "_lane",
        "_lock",
        "_monotonic",
        "_otherwise",
        "_zero",
        "num_channels",
        "sample_rate",
        "track",
    )

    def __init__(
        self,
        track: str,
        sample_rate: int,
        num_channels: int,
        journal: JournalWriter,
        lock: threading.Lock,
        monotonic: Callable[[], float],
        zero: float,
        otherwise: Otherwise,
    ) -> None:
        self.track = track
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self._journal = journal
        self._lock = lock
        self._monotonic = monotonic
        self._zero = zero
        self._otherwise = otherwise
        self._lane = Lane(journal, 0)  # one that is shut

    def write(self, pcm: bytes | bytearray | memoryview, at: float | None = None) -> None:
        """Accept a frame; as `Session.write`, and from any thread.

        Args:
            pcm: Interleaved samples, 16-bit little-endian.
            at: When its last sample arrived, or was played; now, if None.

        Raises:
            InvalidFrame: `at` is more than an hour from now.
            InvalidName: The track would be one too many.
        """
        lock = self._lock
        lock.acquire()  # this way, it takes half as long as `with`
        try:
            lane, journal, length = self._lane, self._journal, len(pcm)
            offset, slot = lane.offset, journal.slot
            end = offset + length
            if (
                end <= lane.open_until
                and slot <= LAST_AUDIO_SLOT
                and lane.owner is self
                and type(pcm) is bytes
                and (length == lane.length or lane.resize(length))
            ):
                now, zero = self._monotonic(), self._zero
                written = int((now - zero) * _NS)
                if written < journal.last_ns:
                    written = journal.last_ns
                if at is None:
                    at_ns = written
                elif -MAX_AHEAD_SECONDS <= at - now <= MAX_AHEAD_SECONDS:
                    at_ns = int((at - zero) * _NS)
                else:
                    at_ns = -1
                if at_ns >= 0:
                    view = journal.view
                    view[offset:end] = pcm
                    # The commit word is the last field, so it is stored after all the rest.
                    _pack(view, slot, at_ns, written, 0, lane.form, length, lane.check | offset)
                    lane.offset = end
                    journal.slot = slot + HEADER_BYTES
                    journal.last_ns = written
                    journal.frames += 1
                    return
        finally:
            lock.release()
        self._otherwise(self.track, pcm, self.sample_rate, self.num_channels, at, writer=self)

    def use(self, lane: Lane) -> None:
        """Take the way into the journal that is ready for the frames it takes."""
        self._lane = lane
        lane.owner = self
