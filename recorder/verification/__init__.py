"""Proves a recording: its objects, read back from the store, against its manifest."""

from recorder.verification.objects import Step
from recorder.verification.report import Counts, Finding, MissingAudio, Proof, Report
from recorder.verification.verify import UnreadableManifest, verify

__all__ = [
    "Counts",
    "Finding",
    "MissingAudio",
    "Proof",
    "Report",
    "Step",
    "UnreadableManifest",
    "verify",
]
