"""The demo's bot: a Pipecat pipeline whose microphone, model and voice are played from samples.

    Microphone -> voice activity -> user turns -> Dialogue -> Voice -> Speaker -> recorder

Everything between the samples is Pipecat's own: it finds the user's turns in the audio, interrupts
the bot when the user cuts in, and paces and cuts up what the bot says.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_processor import UserTurnProcessor
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from recorder.demo.script import Line, Speech
from recorder.player import FRAME_SECONDS, LOUD_RMS, level

MICROPHONE_RATE = 16_000
SPEAKER_RATE = 24_000

_PAUSE_SECONDS = 0.4
_ANSWERING_SECONDS = 0.3
_THINKING_SECONDS = 0.5
_HANGING_UP_SECONDS = 0.8
_BURST_SECONDS = 0.5
_BUFFER_SECONDS = 0.2

OnLine = Callable[[Line], None]


class Microphone(BaseInputTransport):
    """The user's side: a frame every 20 ms, silent unless something is being said."""

    def __init__(self, params: TransportParams) -> None:
        super().__init__(params)
        self._saying = bytearray()
        self._capture: asyncio.Task[None] | None = None

    def say(self, speech: Speech) -> None:
        """Say something from now on."""
        self._saying += speech.pcm

    async def start(self, frame: StartFrame) -> None:
        """Begin to capture."""
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._capture = self.create_task(self._run())

    async def cleanup(self) -> None:
        """End capturing."""
        await super().cleanup()  # type: ignore[no-untyped-call]  # Pipecat leaves it untyped
        if self._capture is not None:
            await self.cancel_task(self._capture)

    async def _run(self) -> None:
        size = int(FRAME_SECONDS * MICROPHONE_RATE) * 2
        due = time.monotonic()
        while True:
            due += FRAME_SECONDS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            audio = bytes(self._saying[:size]).ljust(size, b"\0")
            del self._saying[:size]
            await self.push_audio_frame(InputAudioRawFrame(audio, MICROPHONE_RATE, 1))


class Speaker(BaseOutputTransport):
    """What the user hears: takes audio at the pace at which it plays, a little ahead of it.

    As a telephone's or browser's buffer does, that little makes up for a busy machine.
    """

    def __init__(self, params: TransportParams) -> None:
        super().__init__(params)
        self._free_at = 0.0
        self._interruptions = 0

    async def start(self, frame: StartFrame) -> None:
        """Begin to play."""
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Stop playing at once when the user cuts in."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            self._free_at = 0.0
            self._interruptions += 1

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Play a frame behind the ones before it, when there is room; return whether it was."""
        before = self._interruptions
        await asyncio.sleep(max(0.0, self._free_at - _BUFFER_SECONDS - time.monotonic()))
        if self._interruptions != before:
            return False
        seconds = len(frame.audio) / (2 * frame.num_channels * frame.sample_rate)
        self._free_at = max(self._free_at, time.monotonic()) + seconds
        return True


class Loudness(VADAnalyzer):
    """Tells speech from silence by its level: enough for samples without noise."""

    def num_frames_required(self) -> int:
        """Return how many samples are looked at at a time."""
        return int(FRAME_SECONDS * MICROPHONE_RATE)

    def voice_confidence(self, buffer: bytes) -> float:
        """Return 1 for speech, 0 for silence."""
        return float(level(buffer) >= LOUD_RMS)


class Voice(FrameProcessor):
    """Speaks the lines that it has samples of, faster than real time, as a speech service does."""

    def __init__(self, lines: Iterable[Line]) -> None:
        super().__init__()
        self._speech = {line.text: line.speech() for line in lines}

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Turn a line into audio."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, TTSSpeakFrame):
            await self.push_frame(frame, direction)
            return
        speech = self._speech[frame.text]
        burst = int(_BURST_SECONDS * speech.sample_rate) * 2
        await self.push_frame(TTSStartedFrame())
        for start in range(0, len(speech.pcm), burst):
            audio = speech.pcm[start : start + burst]
            await self.push_frame(TTSAudioRawFrame(audio, speech.sample_rate, 1))
        await self.push_frame(TTSStoppedFrame())


class Dialogue(FrameProcessor):
    """In place of a language model and of a person: says each line when its time has come.

    Args:
        script: The lines.
        microphone: Where the user speaks.
        again: Whether to begin again when they are through, without end.
        on_line: Told of each line as it begins.

    Attributes:
        through: Set after the last line.
    """

    def __init__(
        self, script: Sequence[Line], microphone: Microphone, again: bool, on_line: OnLine
    ) -> None:
        super().__init__()
        self.through = asyncio.Event()
        self._again = again
        self._script = script
        self._microphone = microphone
        self._on_line = on_line
        self._talk: asyncio.Task[None] | None = None
        self._cues: dict[type[Frame], asyncio.Event] = {
            kind: asyncio.Event()
            for kind in (BotStartedSpeakingFrame, BotStoppedSpeakingFrame, UserStoppedSpeakingFrame)
        }

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Watch who speaks; pass everything on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._talk = self.create_task(self._run())
        elif type(frame) in self._cues:
            self._cues[type(frame)].set()

    async def cleanup(self) -> None:
        """End talking."""
        await super().cleanup()  # type: ignore[no-untyped-call]  # Pipecat leaves it untyped
        if self._talk is not None:
            await self.cancel_task(self._talk)

    async def _run(self) -> None:
        speech = {line: line.speech() for line in self._script if line.speaker == "user"}
        await asyncio.sleep(_ANSWERING_SECONDS)
        while not self.through.is_set():
            for line in self._script:
                for cue in self._cues.values():
                    cue.clear()
                if line.speaker == "bot":
                    await self._say_as_bot(line)
                else:
                    await self._say_as_user(line, speech[line])
            await asyncio.sleep(_HANGING_UP_SECONDS)
            if not self._again:
                self.through.set()

    async def _say_as_bot(self, line: Line) -> None:
        self._on_line(line)
        await self.push_frame(TTSSpeakFrame(line.text))
        cut_in = self._cut_in_after(line)
        if cut_in is None:
            await self._cues[BotStoppedSpeakingFrame].wait()
        else:
            await self._cues[BotStartedSpeakingFrame].wait()
            await asyncio.sleep(cut_in)

    async def _say_as_user(self, line: Line, speech: Speech) -> None:
        if line.cuts_in_seconds is None:
            await asyncio.sleep(_THINKING_SECONDS)
        self._on_line(line)
        self._microphone.say(speech)
        await self._cues[UserStoppedSpeakingFrame].wait()

    def _cut_in_after(self, line: Line) -> float | None:
        following = self._script.index(line) + 1
        return self._script[following].cuts_in_seconds if following < len(self._script) else None


async def converse(
    recording: FrameProcessor,
    script: Sequence[Line],
    *,
    hang_up: asyncio.Event,
    seconds: float | None = None,
    on_start: Callable[[], None] = lambda: None,
    on_line: OnLine = lambda line: None,
) -> None:
    """Hold the conversation, recorded by the processor `recording`, and hang up.

    Args:
        recording: Last in the pipeline, where what was played comes by.
        script: Bot and user in turn.
        hang_up: Set it to hang up before the end.
        seconds: Repeat the script until then; hang up after its last line if None.
        on_start: Told when the pipeline has started.
        on_line: Told of each line as it begins.
    """
    params = TransportParams(
        audio_in_enabled=True,
        audio_in_sample_rate=MICROPHONE_RATE,
        audio_out_enabled=True,
        audio_out_sample_rate=SPEAKER_RATE,
        audio_out_end_silence_secs=0,
    )
    microphone = Microphone(params)
    dialogue = Dialogue(script, microphone, seconds is not None, on_line)
    turns = UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[
            SpeechTimeoutUserTurnStopStrategy(
                user_speech_timeout=_PAUSE_SECONDS, wait_for_transcript=False
            )
        ],
    )
    pipeline = Pipeline(
        [
            microphone,
            VADProcessor(vad_analyzer=Loudness(params=VADParams(min_volume=0.0))),
            UserTurnProcessor(user_turn_strategies=turns),
            dialogue,
            Voice(line for line in script if line.speaker == "bot"),
            Speaker(params),
            recording,
        ]
    )
    worker = PipelineWorker(
        pipeline,
        enable_rtvi=False,
        idle_timeout_secs=None,
        params=PipelineParams(
            audio_in_sample_rate=MICROPHONE_RATE, audio_out_sample_rate=SPEAKER_RATE
        ),
    )
    started = asyncio.Event()

    async def on_pipeline_started(_: PipelineWorker, __: Frame) -> None:
        on_start()
        started.set()

    worker.add_event_handler("on_pipeline_started", on_pipeline_started)

    async def end() -> None:
        await started.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(dialogue.through, hang_up)
        # What the bot was about to say is not waited for.
        await worker.queue_frames([InterruptionFrame(), EndFrame()])

    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    ending = asyncio.create_task(end())
    try:
        await runner.run()
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    task = asyncio.current_task()
    if task is not None and task.cancelling():  # which the runner takes for its own
        raise asyncio.CancelledError


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
