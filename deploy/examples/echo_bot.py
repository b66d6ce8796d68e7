"""What the bot says: here an echo, so that the examples need no account of any service.

Replace `bot_processors` by your own services; everything around them stays as it is. With
`pip install 'pipecat-ai[deepgram,openai,cartesia]'`, for example:

    def bot_processors() -> list[FrameProcessor]:
        context = LLMContextAggregatorPair(LLMContext([{"role": "system", "content": "..."}]))
        return [
            DeepgramSTTService(api_key=...),
            context.user(),
            OpenAILLMService(api_key=...),
            CartesiaTTSService(api_key=..., voice_id=...),
        ]

Place `context.assistant()` behind the recorder, as Pipecat's own examples place it behind the
output transport.
"""

from __future__ import annotations

import numpy as np
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

LOUD_RMS = 500.0
"""Of 16-bit samples: what is louder is speech."""
PAUSE_SECONDS = 0.6
MAX_SECONDS = 30.0


def bot_processors() -> list[FrameProcessor]:
    """Return what stands between the transport's input and its output."""
    return [Echo()]


class Echo(FrameProcessor):
    """Says back what the user said, once they pause."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = bytearray()
        self._quiet_seconds = 0.0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Listen; pass everything on, for the recorder hears the user by these frames."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self._hear(frame)

    async def _hear(self, frame: InputAudioRawFrame) -> None:
        samples = np.frombuffer(frame.audio, np.int16).astype(np.float64)
        seconds = len(samples) / frame.num_channels / frame.sample_rate
        loud = len(samples) > 0 and float(np.sqrt(np.mean(samples**2))) >= LOUD_RMS
        if loud or self._heard:
            self._heard += frame.audio
        self._quiet_seconds = 0.0 if loud else self._quiet_seconds + seconds
        full = len(self._heard) >= 2 * frame.num_channels * frame.sample_rate * MAX_SECONDS
        if self._heard and (self._quiet_seconds >= PAUSE_SECONDS or full):
            said, self._heard = bytes(self._heard), bytearray()
            await self.push_frame(TTSStartedFrame())
            await self.push_frame(TTSAudioRawFrame(said, frame.sample_rate, frame.num_channels))
            await self.push_frame(TTSStoppedFrame())
