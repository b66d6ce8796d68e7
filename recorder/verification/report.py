"""What a verification found: findings, what was proved, and how much was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["output", "turn", "chunk", "peaks", "export"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that differs.

    Attributes:
        key: The object it is about; the manifest's, where the manifest contradicts itself.
        check: What was compared.
        expected: What should be there.
        found: What is there.
    """

    key: str
    check: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.key}: {self.check}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class Proof:
    """One object, all of whose bytes are what the manifest says.

    Attributes:
        key: The object.
        kind: What it is of.
        bytes: Its size.
        samples: Of each channel.
        sample_rate: Hz.
        checksum: CRC-64/NVME of the bytes that were read, base64.
        compared: Whether the manifest has a checksum, which this one equals.
        rendered: Whether its samples were made again from the chunks, and are the same; of a
            waveform, its points from the audio.
    """

    key: str
    kind: Kind
    bytes: int
    samples: int
    sample_rate: int
    checksum: str
    compared: bool
    rendered: bool


@dataclass(slots=True)
class Counts:
    """How much was looked at: objects and bytes read, and single comparisons made."""

    objects: int = 0
    bytes: int = 0
    checks: int = 0


@dataclass(frozen=True, slots=True)
class MissingAudio:
    """A gap that the manifest tells of: samples [start, end) of a track; None is not known."""

    folder: str
    track: str
    start: int
    end: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What came of verifying one recording, the late audio that belongs to it included.

    Attributes:
        recording_id: The id.
        folder: Key prefix of everything of it.
        url: Where that is.
        state: What the manifest says.
        samples: Length that the manifest says.
        sample_rate: Hz.
        duration_seconds: The length in seconds.
        findings: Everything that differs; empty if all is proved.
        proofs: The objects that are proved.
        gaps: Audio that the manifest says is missing.
        notes: What could not be looked at, or is not as strong a proof as it could be.
        continuations: Folders of late audio that was verified, too.
        other_days: Further days with a recording of this id, which were not looked at.
        counts: How much was looked at.
    """

    recording_id: str
    folder: str
    url: str
    state: str
    samples: int
    sample_rate: int
    duration_seconds: float
    findings: tuple[Finding, ...]
    proofs: tuple[Proof, ...]
    gaps: tuple[MissingAudio, ...]
    notes: tuple[str, ...]
    continuations: tuple[str, ...]
    other_days: tuple[str, ...]
    counts: Counts

    @property
    def ok(self) -> bool:
        """Whether the recording is final and nothing differs."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(slots=True)
class Ledger:
    """Where comparisons are entered.

    Attributes:
        findings: Those that failed.
        notes: Remarks.
        counts: How many.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def equal(self, key: str, check: str, expected: object, found: object, unit: str = "") -> bool:
        """Enter a comparison; return whether both are the same."""
        return self.holds(expected == found, key, check, _said(expected, unit), _said(found, unit))

    def holds(self, good: bool, key: str, check: str, expected: str, found: str) -> bool:
        """Enter a comparison that was made; return whether it is good."""
        self.counts.checks += 1
        if not good:
            self.findings.append(Finding(key, check, expected, found))
        return good


def _said(value: object, unit: str) -> str:
    text = "none" if value is None or value == "" else str(value)
    return f"{text} {unit}" if unit else text
