"""`RecorderProcessor`: the only file, beside the demo, that imports Pipecat.

    pipeline = Pipeline([..., transport.output(), RecorderProcessor(auto_start_recording=True)])

It takes the arguments of Pipecat's `AudioBufferProcessor`, has its events, and can take its place
by changing the import.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    AudioBufferStartRecordingFrame,
    AudioBufferStopRecordingFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    SpeechOutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.audio.audio_buffer_processor import TurnAudioData
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.utils.deprecation import warn_deprecated

from recorder.layouts import BOT
from recorder.names import check_metadata, check_tags
from recorder.pipecat.handlers import EVENTS, RUN_AUDIO, TURN_AUDIO
from recorder.pipecat.lanes import Lanes
from recorder.pipecat.options import Options, checked_settings, recording_ids, recording_rate
from recorder.pipecat.participants import USER, Participants, TrackNames
from recorder.pipecat.recording import Recording, merged
from recorder.pipecat.shared import Lease
from recorder.pipecat.shortcut import ShortcutProcessor, Take
from recorder.result import RecordingResult
from recorder.service import Recorder
from recorder.settings import Settings

__all__ = ["RecorderProcessor", "TurnAudioData"]

HANDLER_SECONDS = 2.0
"""How long the last handlers, and closing, may take when uploads have used up the drain."""

READ_SECONDS = 5.0

_DOWN = FrameDirection.DOWNSTREAM
_SPEECH = (TTSAudioRawFrame, SpeechOutputAudioRawFrame)

_NEWER = {RUN_AUDIO[speaker]: TURN_AUDIO[speaker] for speaker in TURN_AUDIO}
_NOT_GIVEN: Any = object()


class RecorderProcessor(ShortcutProcessor):
    """Records the conversation of a pipeline. Belongs right behind `transport.output()`.

    The user's audio is what flows down from the transport's input, the bot's what the transport's
    output has played. Frames always go on, at once, whatever happens to the recording.

    Without `recorder`, the processors of a process with equal settings share one `Recorder`, open
    from the first processor's `setup` to the last one's `cleanup`; a server of many short calls
    does better with a `Recorder` of its own. An upload that is not through when the pipeline has
    been cleaned up (`RECORDER_DRAIN_SECONDS`) is kept in the spool, and the result says so.

    Events, each handler's after the one before has ended, errors in handlers logged:

    * `on_audio_data(processor, audio, sample_rate, num_channels)`: blocks of `buffer_size`, all
      of exactly one length but the last, some seconds after they were spoken: when no late audio
      can change them any more. Mixed to mono, or the user left and the bot right.
    * `on_track_audio_data(processor, user, bot, sample_rate, num_channels)`: the same as tracks.
    * `on_user_turn_audio`, `on_bot_turn_audio(processor, TurnAudioData)`: what was said in a turn,
      without the pauses, when it has ended. Speech belongs to the turn it began in.
    * `on_user_turn_audio_data`, `on_bot_turn_audio_data(processor, bytearray, sample_rate, 1)`:
      every run of speech; deprecated as in Pipecat.
    * `on_recording_started(processor)`: the recording is in the spool, from the very moment
      `start_recording` was called.
    * `on_chunk_uploaded(processor, recorder.events.ChunkUploaded)`.
    * `on_upload_error(processor, recorder.events.UploadFailed | CaptureFailed | ChunkDropped)`:
      also of audio that cannot be kept, once for each kind of error.
    * `on_recording_stopped(processor)`: after the last handler of audio has ended. Only a turn that
      ends after the recording did may be told later.
    * `on_recording_completed(processor, RecordingResult)`: the last; `result.state` says whether
      everything is in the store.

    Args:
        sample_rate: Of recording and events, Hz. If None: `RECORDER_SAMPLE_RATE` where that is
            set, else the pipeline's output rate.
        num_channels: Of `on_audio_data`: 1 or 2.
        buffer_size: Bytes of a block, for one track. 0: all in one block, at the end, which then
            is in memory; for long calls set it, or have no handler.
        enable_turn_audio: Whether speech is handed on by turns.
        auto_start_recording: Record from the pipeline's start. Otherwise from `start_recording`
            or an `AudioBufferStartRecordingFrame`, for consent.
        user_continuous_stream: Removed from Pipecat; accepted, and without effect.
        recorder: An open recorder to use; it is not closed.
        settings: Instead of the environment's; not beside `recorder`.
        recording_id: Of the first recording, see `Recorder.start`; further ones, and one whose id
            is taken, get `-2`, `-3` and so on behind it. Made from the time if None.
        metadata: User metadata of all objects.
        tags: Tags of all objects.
        outputs: Which outputs, instead of the settings'.
        track_names: What to call the tracks of participants, by their `user_id`: a mapping, or a
            function, which may return None. Others are `user`, `user-2` and so on, up to 16; where
            two want one name the later one gets `-2` behind it, and further participants share
            the track `others`. With it, there are only tracks of who has spoken, and the bot's.
        record_participants: Whether the manifest says which `user_id` a track is. It may be a
            name or a number to call: nothing else that is stored has it, and no log but where
            `track_names` fails for it.
        **kwargs: For `FrameProcessor`. `enable_direct_mode` is on if not given: frames are handled
            without a queue and tasks.

    Attributes:
        errors: Failures on the way of frames into recordings; each was handled.

    Raises:
        SettingsError: The settings are not right, or `sample_rate` is not.
        InvalidName: `recording_id`, `metadata`, `tags` or `track_names` are not allowed.
        ValueError: `num_channels` or `buffer_size` is not possible, or `settings` is beside
            `recorder`.
    """

    def __init__(
        self,
        *,
        sample_rate: int | None = None,
        num_channels: int = 1,
        buffer_size: int = 0,
        enable_turn_audio: bool = False,
        auto_start_recording: bool = False,
        user_continuous_stream: bool | None = _NOT_GIVEN,
        recorder: Recorder | None = None,
        settings: Settings | None = None,
        recording_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
        track_names: TrackNames | None = None,
        record_participants: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("enable_direct_mode", True)
        super().__init__(**kwargs)
        if user_continuous_stream is not _NOT_GIVEN:
            warnings.warn(
                "`user_continuous_stream` has no effect: pauses are told from stalls without it",
                DeprecationWarning,
                stacklevel=2,
            )
        if num_channels not in (1, 2):
            raise ValueError(f"num_channels={num_channels!r}: must be 1 or 2")
        if buffer_size < 0:
            raise ValueError(f"buffer_size={buffer_size!r}: must be 0 or more bytes")
        if recorder is not None and settings is not None:
            raise ValueError("settings: belong to the recorder, give them there")
        self._settings = checked_settings(
            recorder.settings if recorder else settings, sample_rate, outputs
        )
        self._wanted_rate = sample_rate
        self._sample_rate = 0
        self._num_channels = num_channels
        self._buffer_size = buffer_size
        self._enable_turn_audio = enable_turn_audio
        self._auto_start_recording = auto_start_recording
        self._recorder = recorder
        self._now = recorder.clock.monotonic if recorder else time.monotonic
        self._ids = recording_ids(recording_id)
        self._metadata = check_metadata(metadata or {})
        self._tags = check_tags(tags or {})
        self._outputs = outputs
        self._participants = Participants(track_names, tell=record_participants)
        self._tracks = (USER, BOT) if track_names is None else (BOT,)
        self._lease: Lease | None = None
        self._lanes = Lanes(self.create_task)
        self._actions: dict[type[Frame], Take | None] = {}
        for kind in (InputAudioRawFrame, OutputAudioRawFrame):
            self._learn(kind)
        self._latest: Recording | None = None
        self._active: Recording | None = None
        self._running: dict[asyncio.Task[Any], Recording] = {}
        self._turn_tracker: tuple[Any, dict[str, Callable[..., Any]]] | None = None
        self._turn: int | None = None
        self.errors = 0
        for event in EVENTS:
            self._register_event_handler(event, sync=True)

    # -- as in Pipecat's AudioBufferProcessor ----------------------------------------------------

    @property
    def sample_rate(self) -> int:
        """Sample rate of recording and events, Hz; 0 before `setup`."""
        return self._sample_rate

    @property
    def num_channels(self) -> int:
        """Channels of `on_audio_data`."""
        return self._num_channels

    def has_audio(self) -> bool:
        """Return whether there is audio that no block has handed on yet."""
        recording = self._active
        return recording is not None and recording.pending[0] < recording.pending[1]

    def merge_audio_buffers(self) -> bytes:
        """Return what no block has handed on yet, as it stands now, as `on_audio_data` has it.

        It is read from the spool, and the event loop stands still meanwhile: fine for seconds of
        audio, not for hours. Empty while nothing is being recorded, as in Pipecat, and before
        `on_recording_started`.
        """
        recording = self._active
        session = recording.session if recording else None
        if recording is None or session is None:
            return b""
        start, end = recording.pending
        if start >= end:
            return b""

        async def read() -> bytes:
            async with asyncio.timeout(READ_SECONDS):
                planes = await session.read(start, end)
            return merged(planes, self._num_channels)

        try:
            with ThreadPoolExecutor(1, thread_name_prefix="recorder-merge") as thread:
                return thread.submit(asyncio.run, read()).result()
        except Exception as error:
            self._failed(error)
            return b""

    async def start_recording(self) -> None:
        """Record from now on. Does nothing while recording, or before the pipeline is set up."""
        self._start()

    async def stop_recording(self) -> None:
        """Stop at once. The last audio, `on_recording_stopped` and the upload follow by themselves.

        Bot audio that was not played yet is not recorded; to stop after it, push an
        `AudioBufferStopRecordingFrame`.
        """
        self._stop(discard_unheard=True)

    # -- beyond it -------------------------------------------------------------------------------

    @property
    def recording_id(self) -> str | None:
        """Id of the recording that goes on, or went on last; None before it has one."""
        session = self._latest.session if self._latest else None
        return session.recording_id if session else None

    @property
    def result(self) -> RecordingResult | None:
        """How the last recording came out; None until that is known."""
        return self._latest.result if self._latest else None

    # -- Pipecat's side ----------------------------------------------------------------------------

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as FrameProcessor has it
        """Have the recorder opened, beside what other processors do."""
        await super().setup(setup)
        self._sample_rate = self._wanted_rate or recording_rate(
            self._settings, setup.audio_out_sample_rate
        )
        if self._lease is None:
            self._lanes = Lanes(self.create_task)
            self._lease = Lease(self._settings, self._recorder)
            self._lease.begin()

    async def cleanup(self) -> None:
        """Stop, wait for the upload and the last handlers, and let go of the recorder. Idempotent.

        Waits at most `drain_seconds` and a little: what is left then is in the spool.
        """
        self._stop(discard_unheard=True)
        try:
            await self._finish()
        finally:
            await super().cleanup()  # type: ignore[no-untyped-call]  # Pipecat's is untyped

    def _take(self, frame: Frame, direction: FrameDirection) -> None:
        """Take a frame of whatever class: of audio, only what flows down."""
        kind = type(frame)
        if kind not in self._actions:
            self._learn(kind)
        action = self._actions[kind]
        if action is not None and (direction is _DOWN or kind not in self._shortcuts):
            try:
                action(frame)
            except Exception as error:
                self._failed(error)

    def _learn(self, kind: type[Frame]) -> None:
        """Take note of what is to be done with frames of a class."""
        audio: dict[type[Frame], Take] = {
            InputAudioRawFrame: self._hear,
            OutputAudioRawFrame: self._play,
        }
        others: dict[type[Frame], Take] = {
            StartFrame: self._begin,
            AudioBufferStartRecordingFrame: lambda _: self._start(),
            AudioBufferStopRecordingFrame: lambda _: self._stop(discard_unheard=False),
            EndFrame: lambda _: self._stop(discard_unheard=False),
            CancelFrame: lambda _: self._stop(discard_unheard=True),
            UserStartedSpeakingFrame: self._user_started,
            UserStoppedSpeakingFrame: self._user_stopped,
            BotStartedSpeakingFrame: self._bot_started,
            BotStoppedSpeakingFrame: self._bot_stopped,
            InterruptionFrame: self._interrupted,
        }
        actions = [action for base, action in (audio | others).items() if issubclass(kind, base)]
        self._actions[kind] = actions[0] if actions else None
        if issubclass(kind, tuple(audio)):
            self._shortcuts[kind] = actions[0]

    def _begin(self, _: Frame) -> None:
        self._attach_turn_tracker()
        if self._auto_start_recording:
            self._start()

    def _hear(self, frame: InputAudioRawFrame) -> None:
        recording = self._active
        if recording is None:
            return
        user_id, source = getattr(frame, "user_id", None), frame.transport_source
        try:
            audio, rate, channels = frame.audio, frame.sample_rate, frame.num_channels
            recording.hear(user_id, source, audio, rate, channels, self._now(), frame.pts)
        except Exception as error:
            track = ""
            with contextlib.suppress(Exception):  # that may be the very reason
                track = recording.track_of(user_id, source)
            self._lost(recording, track, error)

    def _play(self, frame: OutputAudioRawFrame) -> None:
        recording = self._active
        if recording is None:
            return
        try:
            speech = isinstance(frame, _SPEECH)
            audio, rate, channels = frame.audio, frame.sample_rate, frame.num_channels
            recording.play(audio, rate, channels, self._now(), speech=speech)
        except Exception as error:
            self._lost(recording, BOT, error)

    def _lost(self, recording: Recording, track: str, error: Exception) -> None:
        self.errors += 1
        recording.failed(track, error)

    def _user_started(self, _: Frame) -> None:
        if self._active is not None:
            self._active.speech.user_started(self._now())

    def _user_stopped(self, _: Frame) -> None:
        if self._active is not None:
            self._active.speech.user_stopped(self._now())

    def _bot_started(self, _: Frame) -> None:
        if self._active is not None:
            self._active.bot_started(self._now())

    def _bot_stopped(self, _: Frame) -> None:
        if self._active is not None:
            self._active.bot_stopped(self._now())

    def _interrupted(self, _: Frame) -> None:
        if self._active is not None:
            self._active.interrupt(self._now())

    # -- recordings --------------------------------------------------------------------------------

    @property
    def _recording(self) -> bool:
        """Whether recording goes on: Pipecat's name for it, which programs look at."""
        return self._active is not None

    def _start(self) -> None:
        if self._active is not None:
            return
        if self._lease is None:
            logger.warning("{}: cannot record while the pipeline is not set up", self)
            return
        self._participants.forget()
        recording = Recording(
            self._now(),
            self._options(),
            self._participants,
            self._ids,
            self._lease,
            self,
            self._lanes,
            self._turn,
        )
        self._latest = self._active = recording
        task = self.create_task(recording.run(), "recording")
        self._running[task] = recording
        task.add_done_callback(self._running.pop)

    def _stop(self, *, discard_unheard: bool) -> None:
        recording = self._active
        if recording is not None:
            try:
                recording.end(self._now(), discard_unheard=discard_unheard)
            finally:
                self._active = None if recording.ended else recording

    async def _finish(self) -> None:
        """Wait for recordings that have ended to be over, within the drain."""
        self._detach_turn_tracker()
        until = time.monotonic() + self._settings.drain_seconds
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.drain_seconds)
        for recording in self._running.values():
            recording.hurry()
        if self._running:
            await asyncio.wait(self._running, timeout=HANDLER_SECONDS)
        for task in list(self._running):
            logger.error("{}: a handler or the start of the recording hangs; left behind", self)
            await self.cancel_task(task)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANDLER_SECONDS):
                await self._lanes.drained()
        await self._lanes.close()
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release(max(HANDLER_SECONDS, until - time.monotonic()))

    def _options(self) -> Options:
        return Options(
            sample_rate=self._sample_rate,
            channels=self._num_channels,
            block_samples=max(1, self._buffer_size // 2) if self._buffer_size else 0,
            turn_audio=self._enable_turn_audio,
            hold_back_seconds=self._settings.hold_back_seconds,
            metadata=self._metadata,
            tags=self._tags,
            outputs=self._outputs,
            tracks=self._tracks,
        )

    def _failed(self, error: Exception) -> None:
        """Take note of an error of ours that must not reach the pipeline."""
        self.errors += 1
        if self.errors == 1:
            logger.opt(exception=error).error("{}: {}", self, error)
        if self._latest is not None:
            self._latest.failed("", error)

    # -- events ------------------------------------------------------------------------------------

    def add_event_handler(self, event_name: str, handler: Callable[..., Any]) -> None:
        """Add a handler; see the class for the events."""
        if (newer := _NEWER.get(event_name)) is not None:
            warn_deprecated(
                f"`{event_name}` is deprecated since 1.8.0 and will be removed in 2.0.0. "
                f"Use `{newer}` instead.",
                stacklevel=2,
            )
        super().add_event_handler(event_name, handler)
        if self._latest is not None:
            self._latest.handlers_changed()

    def wanted(self, *names: str) -> bool:
        """Return whether any of these events has a handler."""
        return any(self._event_handlers[name].handlers for name in names)

    async def call(self, name: str, *arguments: object) -> None:
        """Call an event's handlers, one after the other; what they raise is logged."""
        await self._call_event_handler(name, *arguments)

    async def call_with_turn(self, name: str, number: int, audio: bytes, sample_rate: int) -> None:
        """Call the handlers of a turn's audio."""
        await self.call(name, TurnAudioData(number, audio, sample_rate, 1))

    def _attach_turn_tracker(self) -> None:
        if self._turn_tracker is not None:
            return
        # Pipecat declares that there is always a worker; its own recorder does without one.
        tracker = getattr(self.pipeline_worker, "turn_tracking_observer", None)
        if tracker is None:
            if self._enable_turn_audio:
                logger.warning(
                    "{}: enable_turn_audio is set, but turn tracking is off: no turns will be "
                    "told. Construct the pipeline worker with enable_turn_tracking=True.",
                    self,
                )
            return
        handlers: dict[str, Callable[..., Any]]
        handlers = {"on_turn_started": self._turn_began, "on_turn_ended": self._turn_ended}
        for name, handler in handlers.items():
            tracker.add_event_handler(name, handler)
        self._turn_tracker = tracker, handlers
        self._turn = self._turn or 1  # it is the pipeline's start that begins the first

    async def _turn_began(self, _tracker: object, number: int) -> None:
        self._turn = number
        if self._latest is not None:
            self._latest.begin_turn(number)

    async def _turn_ended(
        self, _tracker: object, number: int, _duration: float, interrupted: bool
    ) -> None:
        self._turn = number + 1
        if self._latest is not None:
            self._latest.end_turn(number, interrupted)

    def _detach_turn_tracker(self) -> None:
        if self._turn_tracker is not None:
            tracker, handlers = self._turn_tracker
            self._turn_tracker = None
            for name, handler in handlers.items():
                tracker.remove_event_handler(name, handler)
