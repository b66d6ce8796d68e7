"""What a manifest claims there is, and the one way in which comparisons with it are entered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from recorder.catalog import Document
from recorder.containers import Codec, Container, container
from recorder.verification.report import Ledger, MissingAudio
from recorder.verification.scan import Wanted
from recorder.waveform import Shape
from uploader.checksum import decode
from uploader.manifest import MANIFEST

FINAL = ("completed", "completed_with_gaps")
WAV = container("wav")


@dataclass(frozen=True, slots=True)
class ListedChunk:
    """A chunk as the manifest lists it, all positions on the recording's clock."""

    wanted: Wanted
    number: int
    first_sample: int
    samples: int
    tracks: tuple[str, ...]
    lost: bool

    @property
    def end(self) -> int:
        """The sample behind its last."""
        return self.first_sample + self.samples


@dataclass(frozen=True, slots=True)
class Continuation:
    """Late audio attached as a recording of its own: where, and what is said of it."""

    folder: str
    first_sample: int
    samples: int | None


@dataclass(frozen=True, slots=True)
class WantedFile:
    """An object that is no WAV file, as its manifest describes it.

    Attributes:
        kind: What it is.
        key: Where it is.
        bytes: Its size.
        checksum: CRC-64/NVME of its bytes.
        samples: Of the audio it is of.
        sample_rate: Hz, of that.
        shape: Of a waveform, what it must say of itself.
    """

    kind: Literal["peaks", "export"]
    key: str
    bytes: int
    checksum: int | None
    samples: int
    sample_rate: int
    shape: Shape | None = None


@dataclass(slots=True)
class Claims:
    """What one manifest says there is.

    Attributes:
        folder: Key prefix of everything of it.
        recording_id: Whose objects they are.
        final: Whether it claims that the recording is complete.
        kept: Whether chunk objects are there.
        first_sample: Where on the recording's clock it begins: 0 but for continuations.
        samples: Its length.
        sample_rate: Hz.
        form: Format of its outputs.
        tracks: All of them, in order.
        chunks: In order.
        whole: Whether the chunks' numbers add up, so that they can be rendered.
        objects: Outputs and clips that should be complete.
        named: Keys that may be there, apart from chunks.
        leftovers: Keys of objects that could not be deleted.
        gaps: Missing audio.
        continuations: Late audio.
        files: Further objects that should be complete: the waveform, exports.
    """

    folder: str
    recording_id: str
    final: bool = False
    kept: bool = True
    first_sample: int = 0
    samples: int = 0
    sample_rate: int = 0
    form: Container | Codec = WAV
    tracks: tuple[str, ...] = ()
    chunks: list[ListedChunk] = field(default_factory=list)
    whole: bool = False
    objects: list[Wanted] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    leftovers: frozenset[str] = frozenset()
    gaps: list[MissingAudio] = field(default_factory=list)
    continuations: list[Continuation] = field(default_factory=list)
    files: list[WantedFile] = field(default_factory=list)

    @property
    def manifest_key(self) -> str:
        """Key of the manifest."""
        return self.folder + MANIFEST

    @property
    def end(self) -> int:
        """The sample behind its last, on the recording's clock."""
        return self.first_sample + self.samples


class Reading:
    """A manifest that is being read.

    Args:
        manifest: Its content.
        claims: What it says; filled while it is read.
        ledger: Where comparisons are entered.
    """

    def __init__(self, manifest: Document, claims: Claims, ledger: Ledger) -> None:
        self.manifest = manifest
        self.claims = claims
        self.ledger = ledger

    def equal(self, check: str, expected: object, found: object) -> bool:
        """Enter a comparison of the manifest with itself."""
        return self.ledger.equal(self.claims.manifest_key, check, expected, found)

    def holds(self, good: bool, check: str, expected: str, found: str) -> bool:
        """Enter one that was made."""
        return self.ledger.holds(good, self.claims.manifest_key, check, expected, found)

    def seconds(self, check: str, samples: int, found: float) -> None:
        """Enter whether a length in seconds is that in samples, to the microsecond."""
        rate = self.claims.sample_rate
        expected = round(samples / rate, 6) if rate > 0 else 0.0
        said = f"{expected:.6f} ({samples} samples at {rate} Hz)"
        self.holds(abs(expected - found) < 2e-6, check, said, f"{found:.6f}")

    def checksum(self, check: str, text: str) -> int | None:
        """Return a checksum; None, and a finding, if it is none."""
        try:
            return decode(text)
        except ValueError:
            self.holds(False, check, "base64 of 8 bytes", repr(text) if text else "none")
            return None

    def once(self, what: str, names: Iterable[str]) -> None:
        """Enter whether each name is listed once."""
        for name, times in Counter(names).items():
            self.equal(f"{what} {name!r}, times listed", 1, times)


def texts(document: Document, name: str) -> tuple[str, ...]:
    """Return the strings of a list; empty if there is none."""
    value = document.values.get(name)
    found = value if isinstance(value, list) else []
    return tuple(item for item in found if isinstance(item, str))
