"""One recording, as the bot sees it: frames in by plain function calls, a result at the end."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loguru import logger

from recorder import events
from recorder.behind import Backstage
from recorder.encodings import Encoding, decoded
from recorder.frame_limits import check_encoding, check_format, check_played, check_times
from recorder.journal import JournalWriter
from recorder.journal_format import MAX_PAYLOAD
from recorder.losses import Losses
from recorder.names import InvalidName, check_participant, check_track
from recorder.quota import SpoolFull
from recorder.records import NO_TRACK, Kind, Record
from recorder.result import RecordingResult
from recorder.speakers import MAX_TRACKS, Track, speaking_as
from recorder.timeline import NS
from recorder.track_writer import TrackWriter
from uploader.clock import Clock

if TYPE_CHECKING:
    from recorder.chunk_reader import Planes

CATCH_UP_SECONDS = 1.0
"""How long frames from before the start may be handed over in their places after it."""


_NS = float(NS)  # the same result, sooner
_PCM16: Encoding = "pcm16"


class Session:
    """A recording under way. Made by `Recorder.start`; `write` may be called from any thread.

    Attributes:
        recording_id: The id.
        sample_rate: Of the recording, Hz.
        zero: The clock's time of sample 0, seconds.
        refused: Frames that could not be accepted because the spool was full: listed as gaps.
        ignored: Frames that came while paused, or after the end.
    """

    def __init__(
        self,
        recording_id: str,
        journal: JournalWriter,
        clock: Clock,
        zero: float,
        tracks: Sequence[Track],
        sample_rate: int,
        backstage: Backstage,
        report: Callable[[events.Event], None],
        *,
        late: bool = False,
    ) -> None:
        self.recording_id = recording_id
        self.sample_rate = sample_rate
        self.refused = 0
        self.ignored = 0
        self.zero = zero
        self._journal = journal
        self._clock = clock
        self._monotonic = clock.monotonic
        self._backstage = backstage
        self._report = report
        self._lock = threading.Lock()
        self._catch_up_until = math.inf if late else zero
        self._ended = False
        self._paused = False
        self._tracks: dict[str, int] = {}
        self._writers: dict[str, TrackWriter] = {}
        self._losses = Losses(journal)
        self._partial: dict[str, tuple[int, int, bytes]] = {}
        self._cut_off: set[str] = set()
        self._log = logger.bind(recording_id=recording_id)
        for track in tracks:
            self._declare(track, 0)

    # -- frames --------------------------------------------------------------------------------

    @property
    def frames(self) -> int:
        """Frames accepted."""
        return self._journal.frames

    def writer(self, track: str, sample_rate: int, num_channels: int = 1) -> TrackWriter:
        """Return what takes a track's frames of one form, in less time than `write`.

        Both may be used for a track, by turns.

        Args:
            track: As for `write`; it begins with the first frame.
            sample_rate: Likewise.
            num_channels: Likewise.

        Raises:
            InvalidFrame: A wrong rate or channel count.
            InvalidName: A track name that is not allowed, or one too many.
        """
        check_format(sample_rate, num_channels)
        if track not in self._tracks:
            self._check_track(track)
        return self._writer(track, sample_rate, num_channels)

    def _writer(self, track: str, sample_rate: int, channels: int) -> TrackWriter:
        """Return the writer in use, if it is for such frames, or a new one."""
        writer = self._writers.get(track)
        if writer is None or (writer.sample_rate, writer.num_channels) != (sample_rate, channels):
            writer = TrackWriter(
                track,
                sample_rate,
                channels,
                self._journal,
                self._lock,
                self._monotonic,
                self.zero,
                self._take,
            )
        return writer

    def write(
        self,
        track: str,
        pcm: bytes | bytearray | memoryview,
        sample_rate: int,
        num_channels: int = 1,
        at: float | None = None,
        *,
        pts: float | None = None,
        encoding: Encoding = _PCM16,
    ) -> None:
        """Accept a frame. When this returns, the frame survives the death of the process.

        Never awaits, blocks or raises for what storage does. Frames that come while paused, or
        after the end, are ignored and counted.

        Args:
            track: Whose audio; a name not seen before adds a track.
            pcm: Interleaved samples, 16-bit little-endian if `encoding` does not say otherwise.
                Empty is allowed and does nothing. A sample that is cut off by the frame's end is
                completed by the next frame. Of a frame longer than half the hold-back (1 s, if
                not set otherwise), the beginning lies where chunks may be sealed already: it is
                placed later, by the excess.
            sample_rate: Hz, 4000 to 384000. May change from frame to frame.
            num_channels: 1 to 32, mixed down to one. May change from frame to frame.
            at: When the frame's last sample arrived or, of what a bot sends, was played: seconds
                on the same clock as `time.monotonic()` (or the recorder's own `clock`); now, if
                None. What a bot sends faster than it can be played begins when it is given,
                if `at` is not later than that.
            pts: Media time of the frame's first sample, seconds on the source's own clock, which
                may begin anywhere: an RTP timestamp by its clock rate, the `timestamp` of Twilio's
                media messages by 1000. What is missing between two frames is known by it exactly.
            encoding: `mulaw` and `alaw` are those of ITU-T G.711, 8 bits a sample.

        Raises:
            InvalidFrame: A wrong rate, channel count or encoding, `at` more than an hour from
                now, or `pts` that is no time.
            InvalidName: A track name that is not allowed, or one too many.
        """
        writer = self._writers.get(track)
        if (
            writer is not None
            and (sample_rate is writer.sample_rate or _same(sample_rate, writer.sample_rate))
            and num_channels is writer.num_channels
            and pts is None
            and (encoding is _PCM16 or encoding == _PCM16)
        ):
            writer.write(pcm, at)
        else:
            self._take(track, pcm, sample_rate, num_channels, at, pts=pts, encoding=encoding)

    def _take(
        self,
        track: str,
        pcm: bytes | bytearray | memoryview,
        sample_rate: int,
        num_channels: int,
        at: float | None,
        *,
        pts: float | None = None,
        encoding: Encoding = _PCM16,
        writer: TrackWriter | None = None,
    ) -> None:
        """Accept any frame, and have a writer take those like it, `writer` if it is for them."""
        data = pcm if type(pcm) is bytes else memoryview(pcm).cast("B")
        check_format(sample_rate, num_channels)
        if encoding != "pcm16":
            check_encoding(encoding)
            data = decoded(data, encoding)
        if track not in self._tracks:
            self._check_track(track)
        now = self._monotonic()
        check_times(now, at, pts)
        if len(data) % (2 * num_channels) or self._partial:
            data = self._whole_samples(track, data, sample_rate, num_channels)
        with self._lock:
            if self._ended or self._paused:
                self.ignored += 1
                return
            at_ns = None if at is None else int((at - self.zero) * NS)
            written = self._written_now(at_ns, now)
            self._accept(
                track,
                data,
                sample_rate,
                num_channels,
                written if at_ns is None else at_ns,
                written,
                None if pts is None else int(pts * NS),
            )
            ordinary = len(data) and pts is None and not self._losses and not self._partial
            if ordinary and now >= self._catch_up_until:
                lane = self._journal.lane(self._tracks[track])
                lane.fit(sample_rate, num_channels, len(data))
                self._writers[track] = writer or self._writer(track, sample_rate, num_channels)
                self._writers[track].use(lane)

    def _accept(
        self,
        track: str,
        data: bytes | memoryview,
        sample_rate: int,
        channels: int,
        at_ns: int,
        written: int,
        time_ns: int | None,
    ) -> None:
        """Note a frame in the journal, the longest in several records; or that it is lost."""
        length, width = len(data), 2 * channels
        if not length:
            return
        kind = Kind.AUDIO if time_ns is None else Kind.TIMED_AUDIO
        done = 0
        try:
            index = self._tracks.get(track)
            if index is None:
                index = self._declare(speaking_as(track), written)
            if self._losses:
                self._losses.end(track, min(length, MAX_PAYLOAD), written)
            while len(data) > MAX_PAYLOAD:
                size = MAX_PAYLOAD - MAX_PAYLOAD % width
                length_ns = size // width * NS // sample_rate
                piece_at = at_ns - (len(data) - size) // width * NS // sample_rate
                piece, data = data[:size], data[size:]
                self._journal.append(
                    kind, index, piece_at, written, piece, sample_rate, channels, time_ns
                )
                done += size
                if time_ns is not None:
                    time_ns += length_ns
            self._journal.append(kind, index, at_ns, written, data, sample_rate, channels, time_ns)
            self._journal.frames += 1
        except SpoolFull as error:
            start = at_ns - (length - done) // width * NS // sample_rate
            self._refuse(track, start, written, error)

    def _whole_samples(
        self, track: str, data: bytes | memoryview, sample_rate: int, num_channels: int
    ) -> bytes | memoryview:
        """Return a frame from where the one before was cut off, up to its last whole sample."""
        with self._lock:
            kept = self._partial.pop(track, None)
            if kept is not None and kept[:2] == (sample_rate, num_channels):
                data = kept[2] + bytes(data)
            if rest := len(data) % (2 * num_channels):
                if track not in self._cut_off:
                    self._cut_off.add(track)
                    self._log.warning(
                        "frames of track {} end within a sample: the next is taken to go on there",
                        track,
                    )
                self._partial[track] = sample_rate, num_channels, bytes(data[-rest:])
                self._journal.shut_lanes()
                data = data[:-rest]
        return data

    def _refuse(self, track: str, start_ns: int, written: int, error: SpoolFull) -> None:
        self.refused += 1
        self._journal.shut_lanes()
        if self._losses.refused(track, start_ns, written, error):
            self._log.error("audio of track {} is being lost: {}", track, error)
            self._report(events.CaptureFailed(track, error))

    # -- marks ---------------------------------------------------------------------------------

    def add_track(self, track: Track) -> None:
        """Add a track ahead of its first frame, or say whose a track is that is there already.

        Raises:
            InvalidName: Its name or participant is not allowed, or it is one too many.
        """
        if track.participant is not None:
            check_participant(track.participant)
        if track.name not in self._tracks:
            self._check_track(track.name)
        with self._lock:
            if self._ended:
                return
            try:
                self._declare(track, self._written_now())
            except SpoolFull as error:
                self._log.error("track {} could not be noted in the spool: {}", track.name, error)

    def pause(self) -> None:
        """Record silence from now on; frames that come are not even written to the spool."""
        if self._mark(Kind.PAUSE, unless=self._paused):
            with self._lock:
                self._paused = True
                self._journal.shut_lanes()

    def resume(self) -> None:
        """Record again."""
        if self._mark(Kind.RESUME, unless=not self._paused):
            self._paused = False

    def interrupt(self, track: str = "bot", at: float | None = None) -> None:
        """Erase what lies after `at` (now, if None) on a track: sent ahead, and never heard."""
        self._mark(Kind.CLEAR, track, at)

    def played(self, track: str, seconds: float, at: float | None = None) -> None:
        """Tell how much of a track had been played at `at` (now, if None).

        For transports that know: what a bot says is placed where it was heard, and what an
        interruption cuts off is exactly what was not. Report early and often: a place can be
        corrected within half the hold-back of being written.

        Args:
            track: Whose audio.
            seconds: Of all audio that was written to this track until then, from the first.
            at: When, seconds on the same clock as `time.monotonic()`.

        Raises:
            InvalidFrame: `seconds` is negative, or no number.
            InvalidName: A track name that is not allowed, or one too many.
        """
        check_played(seconds)
        self._mark(Kind.PLAYED, track, at, time_ns=int(seconds * NS))

    def start_turn(self, track: str, at: float | None = None) -> None:
        """Mark that a speaker's turn begins at `at` (now, if None)."""
        self._mark(Kind.TURN_START, track, at)

    def end_turn(
        self,
        track: str,
        at: float | None = None,
        *,
        interrupted: bool = False,
        conversation_turn: int | None = None,
    ) -> None:
        """Mark that the speaker's open turn ends; without one, nothing happens.

        Args:
            track: Whose turn.
            at: When; now, if None.
            interrupted: Whether the speaker was cut off.
            conversation_turn: Number of the conversation's turn that it belongs to.
        """
        told: dict[str, Any] = {"interrupted": interrupted}
        if conversation_turn is not None:
            told["conversation_turn"] = conversation_turn
        self._mark(Kind.TURN_END, track, at, told)

    def _mark(
        self,
        kind: Kind,
        track: str | None = None,
        at: float | None = None,
        payload: dict[str, Any] | None = None,
        *,
        unless: bool = False,
        time_ns: int | None = None,
    ) -> bool:
        if track is not None and track not in self._tracks:
            self._check_track(track)
        with self._lock:
            if self._ended or unless:
                return False
            when = None if at is None else int((at - self.zero) * NS)
            written = self._written_now(when)
            at_ns = written if when is None else when
            try:
                index = NO_TRACK
                if track is not None:
                    found = self._tracks.get(track)
                    index = self._declare(speaking_as(track), written) if found is None else found
                body = b"" if payload is None else json.dumps(payload).encode()
                self._journal.append(kind, index, at_ns, written, body, time_ns=time_ns)
            except SpoolFull as error:
                self._log.error("{} could not be noted in the spool: {}", kind.name, error)
        return True

    # -- the end -------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether `end` or `stop` was called."""
        return self._ended

    @property
    def result(self) -> RecordingResult | None:
        """How the recording came out; None until it has stopped.

        A result that was `pending` when `stop` returned is replaced here once it is completed.
        """
        return self._backstage.result() if self._ended else None

    def end(self, *, discard_unheard: bool = False, at: float | None = None) -> None:
        """Accept nothing more, and have the recording finished in the background. Idempotent.

        Args:
            discard_unheard: Cut off at now what was sent ahead and not heard yet, as on a
                hang-up. Otherwise the recording goes on to the end of the longest track.
            at: When it ended, if that was before the start had come through; now, if None.
        """
        with self._lock:
            if self._ended:
                return
            if at is None:
                self._catch_up_until = self.zero
            self._ended = True
            self._journal.shut_lanes()
            written = self._written_now(None if at is None else int((at - self.zero) * NS))
            rest: list[tuple[Record, object]] = []
            marks = self._losses.marks()
            stop = json.dumps({"discard_unheard": discard_unheard}).encode()
            marks.append((Kind.STOP, written, written, stop))
            for kind, at_ns, written_ns, body in marks:
                try:
                    self._journal.append(kind, NO_TRACK, at_ns, written_ns, body)
                except SpoolFull:
                    record = Record(kind, NO_TRACK, at_ns, written_ns, 0, 0, 0, 0, 0)
                    rest.append((record, json.loads(body)))
            self._journal.close()
        self._backstage.end(rest)

    async def stop(
        self, *, discard_unheard: bool = False, wait_seconds: float | None = None
    ) -> RecordingResult:
        """End the recording and wait until it is durable in the store. Idempotent.

        Args:
            discard_unheard: See `end`.
            wait_seconds: How long to wait; the settings' `drain_seconds` if None. After that
                the result is `pending`: the upload goes on while the recorder is open, and
                what is left then stays in the spool.

        Returns:
            The result. It never raises for what storage does.
        """
        self.end(discard_unheard=discard_unheard)
        return await self._backstage.finish(wait_seconds)

    async def flush(self) -> None:
        """Seal every chunk that is due by now and wait until it is delivered, or has failed.

        Raises:
            RecorderClosed: The recorder was closed meanwhile; what is left is in the spool.
            SpoolFull: No room for a chunk; the next call tries again.
        """
        await self._backstage.flush()

    async def sealed(self) -> int:
        """Wait, after `end`, until all is sealed; return the recording's length in samples.

        From then on `read` returns what is final, while the upload may still be going on.
        """
        return await self._backstage.sealed()

    async def settled(self) -> int:
        """Return up to which sample nothing that is still to come can change anything.

        That is the hold-back ago, as a rule; less where a microphone has stopped in mid-stream and
        may be stalled, and up to half a second less where audio is resampled.
        """
        return await self._backstage.settled()

    async def read(self, start: int, end: int) -> Planes:
        """Return samples [start, end) of all tracks at the recording's rate.

        What is not settled yet (younger than the hold-back) is placed by what is known now. The
        oldest samples come from the store where the spool has given them up; see `hold`.
        """
        return await self._backstage.read(start, end)

    def hold(self, holder: object, position: int) -> None:
        """Keep the samples from `position` on in the spool until `release(holder)`."""
        self._backstage.hold(holder, position)

    def release(self, holder: object) -> None:
        """Give up what `hold` kept."""
        self._backstage.release(holder)

    def position(self) -> int:
        """Return the recording's length so far, in samples."""
        return int((self._clock.monotonic() - self.zero) * self.sample_rate)

    async def __aenter__(self) -> Self:
        """Return itself; it is recording already."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; whatever ended the block, what was recorded is kept."""
        await self.stop()

    def handed_over(self) -> None:
        """The starter has the session now, and hands over what came before: quickly."""
        with self._lock:
            if self._catch_up_until == math.inf:
                self._catch_up_until = self._clock.monotonic() + CATCH_UP_SECONDS

    # -- for the engine --------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return now, ns after the start; all written before it can be read."""
        with self._lock:
            return self._written_now()

    def prepare(self) -> None:
        """Allocate the next journal segment ahead of need; failing is for `write` to report."""
        with contextlib.suppress(SpoolFull):
            self._journal.prepare()

    @property
    def needs_preparing(self) -> bool:
        """Whether `prepare` has something to do."""
        return self._journal.needs_spare

    # --------------------------------------------------------------------------------------------

    def _written_now(self, at_ns: int | None = None, now: float | None = None) -> int:
        """Return when a record is written; never before the one before it.

        Frames from before the start are handed over right after it, and count as written when
        they arrived: only so they may be placed there, which nothing sealed forbids yet.
        """
        now = self._monotonic() if now is None else now
        written = int((now - self.zero) * NS)
        if now < self._catch_up_until:
            written = self._journal.last_ns if at_ns is None else min(written, at_ns)
        self._journal.last_ns = max(self._journal.last_ns, written)
        return self._journal.last_ns

    def _declare(self, track: Track, written: int) -> int:
        index = self._tracks.get(track.name, len(self._tracks))
        told = {"name": track.name, "source": track.source}
        if track.participant is not None:
            told["participant"] = track.participant
        body = json.dumps(told, ensure_ascii=False).encode()  # short: room for marks is limited
        self._journal.append(Kind.TRACK, index, written, written, body)
        self._tracks[track.name] = index
        return index

    def _check_track(self, name: str) -> None:
        check_track(name)
        if len(self._tracks) >= MAX_TRACKS:
            raise InvalidName("track", name, f"is one too many: at most {MAX_TRACKS}")


def _same(one: object, other: int) -> bool:
    """Return whether it is that whole number: 16000.0 is not 16000."""
    return type(one) is int and one == other
