"""The recorder as a processor of Pipecat pipelines: the extra `bot-recorder[pipecat]`."""

from recorder.pipecat.processor import RecorderProcessor, TurnAudioData

__all__ = ["RecorderProcessor", "TurnAudioData"]
