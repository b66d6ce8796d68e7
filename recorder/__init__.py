"""Durable call recording for voice bots: the audio side and the composition root."""

from recorder.frame_limits import InvalidFrame
from recorder.names import InvalidName
from recorder.recovered import Outcome, Recovered
from recorder.result import Gap, OutputResult, RecordingResult, State
from recorder.service import Recorder
from recorder.session import Session
from recorder.settings import Settings, SettingsError
from recorder.speakers import Track
from uploader.clock import Clock, SystemClock, VirtualClock
from uploader.errors import BotRecorderError

__all__ = [
    "BotRecorderError",
    "Clock",
    "Gap",
    "InvalidFrame",
    "InvalidName",
    "Outcome",
    "OutputResult",
    "Recorder",
    "RecordingResult",
    "Recovered",
    "Session",
    "Settings",
    "SettingsError",
    "State",
    "SystemClock",
    "Track",
    "VirtualClock",
]
