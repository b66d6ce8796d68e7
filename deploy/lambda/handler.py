"""What the cloud function calls: `handler.handler`. All of it is in bot-recorder itself."""

from recorder.postprocess.function import handler

__all__ = ["handler"]
