"""The events of a recorder in a pipeline, and who is told of them."""

from __future__ import annotations

from typing import Protocol

from recorder.pipecat.turns import Speaker

AUDIO, TRACK_AUDIO = "on_audio_data", "on_track_audio_data"
TURN_AUDIO: dict[Speaker, str] = {"user": "on_user_turn_audio", "bot": "on_bot_turn_audio"}
RUN_AUDIO: dict[Speaker, str] = {
    "user": "on_user_turn_audio_data",
    "bot": "on_bot_turn_audio_data",
}
STARTED, STOPPED = "on_recording_started", "on_recording_stopped"
COMPLETED = "on_recording_completed"
CHUNK_UPLOADED, UPLOAD_ERROR = "on_chunk_uploaded", "on_upload_error"

EVENTS = (
    AUDIO,
    TRACK_AUDIO,
    *TURN_AUDIO.values(),
    *RUN_AUDIO.values(),
    STARTED,
    STOPPED,
    COMPLETED,
    CHUNK_UPLOADED,
    UPLOAD_ERROR,
)


class Handlers(Protocol):
    """Who is told of events."""

    def wanted(self, *names: str) -> bool:
        """Return whether any of these events has a handler."""
        ...

    async def call(self, name: str, *arguments: object) -> None:
        """Call an event's handlers, one after the other; what they raise is logged."""

    async def call_with_turn(self, name: str, number: int, audio: bytes, sample_rate: int) -> None:
        """Call the handlers of a turn's audio."""
