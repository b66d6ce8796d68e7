"""One recording of a pipeline: frames in from the first moment on, events out until it is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger

from recorder import events, layouts
from recorder.engine import RecorderClosed
from recorder.names import InvalidName
from recorder.pipecat.blocks import AudioBlocks
from recorder.pipecat.handlers import (
    AUDIO,
    CHUNK_UPLOADED,
    COMPLETED,
    STARTED,
    STOPPED,
    TRACK_AUDIO,
    UPLOAD_ERROR,
    Handlers,
)
from recorder.pipecat.intake import Intake
from recorder.pipecat.lanes import Lanes
from recorder.pipecat.media_clock import MediaClock
from recorder.pipecat.options import Options
from recorder.pipecat.participants import Participants
from recorder.pipecat.playout import Playout
from recorder.pipecat.shared import Lease
from recorder.pipecat.turn_audio import TurnAudio, sides
from recorder.pipecat.turns import Listener, Run, Speaker, Speech, Turn
from recorder.result import RecordingResult, State
from recorder.session import Session
from recorder.settings import SettingsError
from recorder.speakers import Track
from recorder.spool import RecordingExists
from uploader.errors import StoreError

if TYPE_CHECKING:
    from recorder.chunk_reader import Planes

RETRY_SECONDS = 5.0
"""How long a recording that cannot be started waits before it is tried again."""

MAX_OTHER_IDS = 100
"""Ids that are tried one after the other where the one that was asked for is taken."""

_LIFE = "life"
"""The lane of events that tell where a recording stands."""


class _Line:
    """One voice's way into the recording.

    Attributes:
        track: Where it goes.
        shared: Whether others are on it, too.
        clock: Its timestamps.
        sample_rate: Hz, of the frames that `write` takes; the very object they came with. None at
            the begin: it takes none.
        channels: Of them.
        write: Takes such a frame and when it came.
    """

    __slots__ = ("channels", "clock", "sample_rate", "shared", "track", "write")

    def __init__(self, track: str, *, shared: bool = False) -> None:
        self.track = track
        self.shared = shared
        self.clock = MediaClock()
        self.sample_rate: int | None = None
        self.channels: int | None = None
        self.write: Callable[[bytes, float], None] = _nowhere


def _nowhere(_pcm: bytes, _at: float) -> None:
    """No frame comes here."""


class Recording(Listener):
    """From the moment recording is wanted to the moment the result is known.

    Everything but `run` returns at once.

    Args:
        began_at: When, seconds on the recorder's clock: that is where sample 0 is.
        options: What to record.
        participants: Know whose microphone is recorded on which track.
        ids: Recording ids to try, in order; None for one that is made.
        lease: Gives the recorder.
        handlers: Told what happens.
        lanes: Keep the order in which they are told.
        turn: Number of the conversation's turn that goes on, if somebody counts.

    Attributes:
        result: How it came out; None until then.
        speech: Who speaks.
        errors: How often something went wrong with a frame, by class of error.
    """

    def __init__(
        self,
        began_at: float,
        options: Options,
        participants: Participants,
        ids: Iterator[str | None],
        lease: Lease,
        handlers: Handlers,
        lanes: Lanes,
        turn: int | None = None,
    ) -> None:
        self.result: RecordingResult | None = None
        self.errors: Counter[str] = Counter()
        self.speech = Speech(began_at, options.sample_rate, self, turn)
        # As in Pipecat, a handler that is added when recording has begun is not told that it has.
        self._tell_started = handlers.wanted(STARTED)
        self._began_at = began_at
        self._options = options
        self._participants = participants
        self._ids = ids
        self._lease = lease
        self._handlers = handlers
        self._lanes = lanes
        self._log = logger
        self._intake = Intake(self.failed)
        self._lines: dict[str, _Line] = {}
        self._ears: dict[tuple[str | None, str | None], _Line] = {}
        self._bot = _Line(layouts.BOT)
        self._playout = Playout()
        self._turn_audio = TurnAudio(
            self._opened_session, options.sample_rate, handlers, lanes, self._cannot_read
        )
        self._blocks = AudioBlocks(
            options.block_samples,
            options.hold_back_seconds,
            self._deliver,
            lambda: handlers.wanted(AUDIO, TRACK_AUDIO),
            self._cannot_read,
        )
        self._opened = asyncio.Event()
        self._ended = asyncio.Event()
        self._over = asyncio.Event()
        self._outcome: RecordingResult | None = None

    # -- from the pipeline ---------------------------------------------------------------------

    @property
    def session(self) -> Session | None:
        """The session, once there is one."""
        return self._intake.session

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._intake.ended

    @property
    def pending(self) -> tuple[int, int]:
        """Samples [start, end): recorded, and not yet handed on in a block."""
        start = self._blocks.emitted
        return start, max(start, self.speech.user_until, self.speech.heard_until)

    def hear(
        self,
        user_id: str | None,
        source: str | None,
        pcm: bytes,
        sample_rate: int,
        channels: int,
        at: float,
        pts: int | None = None,
    ) -> None:
        """Take a frame of a user.

        Args:
            user_id: Whose, as the transport says it.
            source: Which of that user's sources it is, likewise.
            pcm: 16-bit samples.
            sample_rate: Hz.
            channels: Interleaved channels.
            at: When it came, seconds on the recorder's clock.
            pts: Its timestamp, in whatever unit.

        Raises:
            InvalidFrame: It cannot be audio.
            SpoolFull: Too much waits for the session already.
        """
        line = self._ears.get((user_id, source))
        if line is None:
            line = self._joined(user_id, source)
        samples = len(pcm) // (2 * channels)
        known = None
        if pts is not None and sample_rate > 0 and not line.shared:
            known = line.clock.seconds(pts, samples / sample_rate, at)
        if known is not None:
            self._intake.write(line.track, pcm, sample_rate, channels, at, pts=known)
        elif sample_rate is line.sample_rate and channels is line.channels:
            line.write(pcm, at)
        else:
            self._write(line, pcm, sample_rate, channels, at)
        if samples:
            self.speech.user_audio(at, samples, sample_rate)

    def track_of(self, user_id: str | None, source: str | None) -> str:
        """Return the track that a user is recorded on."""
        return self._joined(user_id, source).track

    def _joined(self, user_id: str | None, source: str | None) -> _Line:
        """Return a user's line; those who share a track have one together."""
        voice = self._participants.voice(user_id, source)
        line = self._lines.get(voice.track)
        if line is None:
            self._lines[voice.track] = line = _Line(voice.track, shared=voice.shared)
            if voice.participant is not None:
                self._intake.add_track(Track(voice.track, participant=voice.participant))
        if not voice.shared:  # or there would be no end to them
            self._ears[user_id, source] = line
        return line

    def _write(self, line: _Line, pcm: bytes, sample_rate: int, channels: int, at: float) -> None:
        """Write a frame that is not like the one before it; have those like it go straight on."""
        session = self._intake.session
        if session is not None:
            line.write = session.writer(line.track, sample_rate, channels).write
            line.sample_rate, line.channels = sample_rate, channels
        self._intake.write(line.track, pcm, sample_rate, channels, at)

    def play(self, pcm: bytes, sample_rate: int, channels: int, at: float, *, speech: bool) -> None:
        """Take a frame of the bot.

        Args:
            pcm: 16-bit samples.
            sample_rate: Hz.
            channels: Interleaved channels.
            at: When it came, seconds on the recorder's clock.
            speech: Whether it is speech.

        Raises:
            InvalidFrame: It cannot be audio.
            SpoolFull: Too much waits for the session already.
        """
        samples = len(pcm) // (2 * channels)
        if samples and sample_rate > 0:
            end = self._playout.ends(at, samples / sample_rate, speech=speech)
            if end is None:
                return
            at = end
        line = self._bot
        if sample_rate is line.sample_rate and channels is line.channels:
            line.write(pcm, at)
        else:
            self._write(line, pcm, sample_rate, channels, at)
        if samples:
            self.speech.bot_audio(at, samples, sample_rate)

    def bot_started(self, at: float) -> None:
        """The bot begins to speak."""
        self._playout.started(at)
        self.speech.bot_started()

    def bot_stopped(self, at: float) -> None:
        """The bot has sent what it says."""
        self._playout.stopped()
        self.speech.bot_stopped(at)

    def interrupt(self, at: float) -> None:
        """Take back what the bot has sent ahead."""
        self._intake.mark("interrupt", layouts.BOT, at)
        self._playout.interrupted(at)
        self.speech.interrupted(at)

    def end(self, at: float, *, discard_unheard: bool) -> None:
        """Accept nothing more. Idempotent."""
        if not self.ended:
            self._turn_audio.leave(self.speech.finish(at, cut_off=discard_unheard))
            self._intake.end(at, discard_unheard=discard_unheard)
            self._ended.set()

    def begin_turn(self, number: int) -> None:
        """Take note that a turn of the conversation begins."""
        self.speech.turn_began(number)

    def end_turn(self, number: int, interrupted: bool) -> None:
        """Take note that a turn of the conversation is over."""
        if self.ended:
            if self._options.turn_audio:
                self._turn_audio.left_ended(number)
        else:
            self.speech.turn_ended(number, interrupted)

    def handlers_changed(self) -> None:
        """Keep from now on what a new handler will want."""
        if self.session is not None and not self.ended:
            self._blocks.hold(self.session)
            self._hold()

    def hurry(self) -> None:
        """Wait no longer for the upload: the result is what it is now."""
        self._over.set()

    def failed(self, track: str, error: Exception) -> None:
        """Count what went wrong, on a track or with all; log and report the first of its kind."""
        kind = type(error).__name__
        self.errors[kind] += 1
        if self.errors[kind] == 1:
            self._log.error("recording {}: {}", track or "the call", error)
            self._tell(UPLOAD_ERROR, events.CaptureFailed(track, error))

    # -- what `Speech` finds -------------------------------------------------------------------

    def mark_start(self, speaker: Speaker, at: float) -> None:
        """Mark the begin of a turn."""
        self._intake.mark("start_turn", speaker, at)
        self._hold()

    def mark_end(self, speaker: Speaker, at: float, interrupted: bool, turn: int | None) -> None:
        """Mark the end of a turn."""
        known = {} if turn is None else {"conversation_turn": turn}
        self._intake.mark("end_turn", speaker, at, interrupted=interrupted, **known)

    def run_ended(self, speaker: Speaker, run: Run) -> None:
        """Hand on a run of speech."""
        if self._options.turn_audio:
            self._turn_audio.run_ended(speaker, run)

    def turn_ended(self, turn: Turn) -> None:
        """Hand on a turn."""
        if self._options.turn_audio:
            self._turn_audio.turn_ended(turn)

    def _hold(self) -> None:
        """Keep what turn audio still needs in the spool."""
        session = self.session
        if session is None or not self._options.turn_audio or not self._turn_audio.wanted:
            return
        position = self.speech.open_from(self._turn_audio.needed_from(session.position()))
        session.hold(self, position)

    # -- its life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start the session, hand on its audio until it has ended, and wait for the result."""
        try:
            session = await self._open()
        finally:
            self._opened.set()
        if session is None:
            return
        if self._tell_started:
            self._tell(STARTED)
        try:
            await self._hand_on(session)
        except RecorderClosed as error:
            self._log.error("no more audio can be handed on: {}", error)
            self._over.set()
        self._tell(STOPPED)
        await self._over.wait()
        await self._complete(self._outcome or session.result)

    async def _hand_on(self, session: Session) -> None:
        try:
            self._hold()
            await self._blocks.run(session, self._ended)
            await self._turn_audio.finish()
        finally:
            session.release(self)

    async def _open(self) -> Session | None:
        """Start the session, and try again as long as recording is wanted."""
        identifier = next(self._ids)
        others = MAX_OTHER_IDS if identifier is not None else 0
        while True:
            last_try = self.ended
            try:
                session = await self._start(identifier)
            except Exception as error:
                if isinstance(error, RecordingExists) and others:
                    others -= 1
                    logger.warning("{}; another id is made of it", error)
                    identifier = next(self._ids)
                    continue
                self.failed("", error)
                if last_try or isinstance(error, SettingsError | InvalidName):
                    await self._give_up(identifier, error)
                    return None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_SECONDS):
                        await self._ended.wait()
            else:
                self._log = logger.bind(recording_id=session.recording_id)
                self._intake.attach(session)
                return session

    async def _start(self, identifier: str | None) -> Session:
        options = self._options
        recorder = await self._lease.opened()
        if (error := recorder.store_error) is not None:
            op = error.op if isinstance(error, StoreError) else "open"
            retrying = isinstance(error, StoreError) and error.retryable
            self._tell(UPLOAD_ERROR, events.UploadFailed(op, error, retrying))
        return await recorder.start(
            identifier,
            metadata=options.metadata,
            tags=options.tags,
            tracks=options.tracks,
            outputs=options.outputs,
            sample_rate=options.sample_rate,
            began_at=self._began_at,
            on_event=self._on_event,
        )

    async def _give_up(self, identifier: str | None, error: Exception) -> None:
        lost = self._intake.give_up()
        self._log.error("nothing is recorded, {} bytes of audio are lost: {}", lost, error)
        rate, hint = self._options.sample_rate, getattr(error, "hint", "")
        await self._complete(
            RecordingResult(
                identifier or "", State.FAILED, "", 0.0, 0, rate, 0, reason=str(error), hint=hint
            )
        )

    async def _opened_session(self) -> Session | None:
        await self._opened.wait()
        return self.session

    async def _complete(self, result: RecordingResult | None) -> None:
        self.result = result
        if result is not None:
            await self._lanes.drained(CHUNK_UPLOADED, UPLOAD_ERROR)
            self._tell(COMPLETED, result)

    def _on_event(self, event: events.Event) -> None:
        if isinstance(event, events.ChunkUploaded):
            self._tell(CHUNK_UPLOADED, event)
        elif isinstance(event, events.UploadFailed | events.CaptureFailed | events.ChunkDropped):
            self._tell(UPLOAD_ERROR, event)
        elif isinstance(event, events.RecordingEnded):
            again = self._over.is_set()
            self._outcome = event.result
            self._ended.set()
            self._over.set()
            if again and self.result is not None:
                self.result = event.result
                self._tell(COMPLETED, event.result)

    # -- events --------------------------------------------------------------------------------

    def _tell(self, name: str, *arguments: object) -> None:
        lane = _LIFE if name in (STARTED, STOPPED, COMPLETED) else name
        if self._handlers.wanted(name):
            self._lanes.add(lane, partial(self._handlers.call, name, *arguments))

    def _cannot_read(self, error: Exception) -> None:
        self._tell(UPLOAD_ERROR, events.UploadFailed("read", error, retrying=False))

    async def _deliver(self, planes: Planes) -> None:
        """Hand on a block."""
        handlers, options = self._handlers, self._options
        calls = []
        if handlers.wanted(AUDIO):
            audio = await asyncio.to_thread(merged, planes, options.channels)
            calls.append(handlers.call(AUDIO, audio, options.sample_rate, options.channels))
        if handlers.wanted(TRACK_AUDIO):
            user, bot = await asyncio.to_thread(sides, planes)
            calls.append(
                handlers.call(TRACK_AUDIO, user, bot, options.sample_rate, options.channels)
            )
        await asyncio.gather(*calls)


def merged(planes: Planes, channels: int) -> bytes:
    """Return all tracks as 16-bit mono, or interleaved with the user left and the bot right."""
    if channels == 1:
        return layouts.mix(planes.samples).astype("<i2").tobytes()
    frames = layouts.stereo(planes.samples, planes.tracks)
    return np.ascontiguousarray(frames, dtype="<i2").tobytes()
