"""What is said in the demo, and the samples of it.

The voices are synthetic (espeak-ng); `samples/README.md` says how they were made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recorder.player import open_wav

SAMPLES = Path(__file__).with_name("samples")


@dataclass(frozen=True, slots=True)
class Line:
    """Something said.

    Attributes:
        speaker: Who says it.
        text: The words.
        sample: File of the speech, in `samples`.
        cuts_in_seconds: A user's line that begins so long after the bot began the line before it,
            and interrupts it; None to wait until the bot has finished.
    """

    speaker: Literal["user", "bot"]
    text: str
    sample: str
    cuts_in_seconds: float | None = None

    def speech(self) -> Speech:
        """Read the sample.

        Raises:
            InputError: It is not there.
        """
        with open_wav(SAMPLES / self.sample) as file:
            pcm = b"".join(frame for frame, _ in file.frames())
            return Speech(pcm, file.sample_rate)


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech, 16-bit mono PCM."""

    pcm: bytes
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.pcm) / 2 / self.sample_rate


SCRIPT = (
    Line("bot", "Doctor Lind's office. How can I help?", "bot-1.wav"),
    Line("user", "Hi. I need to move my appointment.", "user-1.wav"),
    Line("bot", "Sure. I have Tuesday at nine, Wednesday at ten, or Friday.", "bot-2.wav"),
    Line("user", "Sorry, wait. Is Thursday free?", "user-2.wav", cuts_in_seconds=1.8),
    Line("bot", "It is. Thursday at eleven, see you then.", "bot-3.wav"),
    Line("user", "Great, thank you. Bye!", "user-3.wav"),
)
"""Bot and user in turn; the bot begins."""
