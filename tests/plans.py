"""Plans for tests of what needs one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from recorder.plan import Plan


def make_plan(**changes: Any) -> Plan:
    """A plan as `Recorder.start` makes it, with some values changed."""
    values: dict[str, Any] = {
        "recording_id": "call",
        "sample_rate": 24_000,
        "chunk_samples": 24_000,
        "outputs": ("stereo",),
        "format": "wav",
        "part_bytes": 5 * 1024**2,
        "pre_roll_seconds": 1.0,
        "keep_chunks": False,
        "storage_class": None,
        "metadata": {},
        "tags": {},
        "location": "file:///nowhere",
        "day": "2026-01-01",
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "hold_back_seconds": 2.0,
        "tracks": ("user", "bot"),
        "token": "0123456789abcdef",
        **changes,
    }
    return Plan(**values)
