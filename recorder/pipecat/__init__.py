"""The recorder as a processor of Pipecat pipelines: the extra `bot-recorder[pipecat]`."""

try:
    from recorder.pipecat.processor import RecorderProcessor, TurnAudioData
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "pipecat":
        raise
    raise ImportError(
        "recorder.pipecat needs Pipecat: pip install 'bot-recorder[pipecat]'"
    ) from error

__all__ = ["RecorderProcessor", "TurnAudioData"]
