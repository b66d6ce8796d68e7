"""What a manifest says of where a recording comes from, and whether all of it came."""

from __future__ import annotations

from recorder.catalog import Document

ROUNDING_SAMPLES = 1
"""Where files of another rate were resampled, their end falls between two samples."""


def imported_from(manifest: Document) -> Document | None:
    """Return what a manifest says of an import; None for a recording that was made here."""
    found = manifest.values.get("imported")
    return Document(found) if isinstance(found, dict) and found else None


def missing_samples(manifest: Document) -> int:
    """Return how many samples at its end an import lacks: it was cut off, and then recovered."""
    imported = imported_from(manifest)
    if imported is None:
        return 0
    missing = imported.count("samples") - manifest.count("samples")
    return missing if missing > ROUNDING_SAMPLES else 0
