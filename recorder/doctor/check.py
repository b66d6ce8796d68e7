"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from recorder.doctor.iam import Grant


class Status(StrEnum):
    """How a check ended.

    OK: As it should be, or not needed.
    WARN: Recording works; something costs more, is less safe, or is not done.
    FAIL: Recording does not work, or audio can be lost.
    """

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        area: Its section: `bucket`, `lifecycle`, `spool`, `machine`.
        name: What was checked.
        status: How it ended.
        found: What was found, for people.
        fix: What to do about it; empty if nothing is to be done.
        grants: The IAM permissions that are missing.
    """

    area: str
    name: str
    status: Status
    found: str
    fix: str = ""
    grants: tuple[Grant, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {
            "area": self.area,
            "name": self.name,
            "status": str(self.status),
            "found": self.found,
            "fix": self.fix,
            "missing": [grant.action for grant in self.grants],
        }
