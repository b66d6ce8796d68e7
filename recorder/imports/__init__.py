"""Recordings that somebody else has made, brought under the same roof."""

from recorder.imports.audio import UnreadableSource
from recorder.imports.importing import Imported, import_recording
from recorder.imports.request import ImportRefused, ImportRequest

__all__ = [
    "ImportRefused",
    "ImportRequest",
    "Imported",
    "UnreadableSource",
    "import_recording",
]
