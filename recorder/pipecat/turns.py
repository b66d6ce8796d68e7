"""Who speaks from when to when, in samples: marks for the recording, runs of speech for events."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from recorder.placement import JITTER_SECONDS

Speaker = Literal["user", "bot"]

PRE_ROLL_SECONDS = 1.0
"""A user's run begins so long before speech was noticed: noticing takes time."""

AHEAD_SECONDS = 0.1
"""Audio that ends later than this after its speaker was said to have stopped was sent ahead."""


class Run(NamedTuple):
    """Speech without a pause: samples [start, end) of the recording.

    `begins` says that there is no audio right before it. Where audio begins and ends is known here
    to within the jitter: frames are placed by what comes after them, too.
    """

    start: int
    end: int
    begins: bool = False


@dataclass(slots=True)
class Turn:
    """Who said what from when to when in one turn of the conversation.

    Attributes:
        number: Of the turn; None until it has ended.
        runs: By speaker, oldest first.
    """

    number: int | None = None
    runs: dict[Speaker, list[Run]] = field(default_factory=lambda: {"user": [], "bot": []})

    def first(self) -> list[Run]:
        """Return each speaker's first run, of those who spoke."""
        return [runs[0] for runs in self.runs.values() if runs]


class Listener:
    """Told by `Speech` what it finds. All of it must be quick and raise nothing."""

    def mark_start(self, speaker: Speaker, at: float) -> None:
        """A speaker began."""

    def mark_end(self, speaker: Speaker, at: float, interrupted: bool, turn: int | None) -> None:
        """A speaker ended, who had begun in this turn of the conversation, if that is known."""

    def run_ended(self, speaker: Speaker, run: Run) -> None:
        """A run of speech is complete."""

    def turn_ended(self, turn: Turn) -> None:
        """A turn is over, and all speech that began in it."""


class Speech:
    """Follows speakers through the frames of a pipeline.

    Times (`at`) are seconds on the recording's clock source, positions samples from its zero.

    Args:
        zero: Time of sample 0, seconds.
        sample_rate: Of the recording, Hz.
        listener: Told what is found.
        turn: Number of the conversation's turn that goes on; None where nobody counts.

    Attributes:
        user_until: Where the users' audio ends, so far.
        heard_until: Where the bot's audio ends, so far.
    """

    def __init__(
        self, zero: float, sample_rate: int, listener: Listener, turn: int | None = None
    ) -> None:
        self._zero = zero
        self._rate = sample_rate
        self._jitter = int(JITTER_SECONDS * sample_rate)
        self._listener = listener
        self._turn = Turn()
        self._number = turn
        self._user_audio: deque[Run] = deque()
        self._user_start: int | None = None
        self._user_end = 0
        self._bot_speaks = False
        self._bot_start: int | None = None
        self._bot_turn: Turn | None = None
        self._bot_number: int | None = None
        self._interrupted = False
        self._playing: asyncio.TimerHandle | None = None
        self.user_until = 0
        self.heard_until = 0

    def position(self, at: float) -> int:
        """Return the sample of a time."""
        return max(0, round((at - self._zero) * self._rate))

    def _time(self, position: int) -> float:
        return self._zero + position / self._rate

    def open_from(self, otherwise: int) -> int:
        """Return where the oldest speech begins that no ended turn has, or `otherwise`."""
        runs = [run.start for turn in (self._turn, self._bot_turn) if turn for run in turn.first()]
        starts = [start for start in (self._user_start, self._bot_start) if start is not None]
        return min([otherwise, *runs, *starts])

    # -- the user ------------------------------------------------------------------------------

    def user_audio(self, at: float, samples: int, sample_rate: int) -> None:
        """Audio of a user came."""
        rate, jitter = self._rate, self._jitter
        if sample_rate != rate:
            samples = (samples * rate + sample_rate // 2) // sample_rate
        now = round((at - self._zero) * rate)
        least = now if now > samples else samples
        until = self.user_until
        if self._user_audio and least - samples - until <= jitter:
            # Not by `min` and `max`, which are calls: this is asked for each frame.
            end, most = until + samples, now + jitter
            end = end if end < most else most
            end = end if end > least else least
            self.user_until = end if end > until else until
            return
        self._note_user_audio()
        self._user_audio.append(Run(least - samples, least))
        self.user_until = least
        self._note_user_audio()

    def _note_user_audio(self) -> None:
        """Note how far the last audio went, and forget what is too old to be in a run."""
        audio = self._user_audio
        if not audio:
            return
        audio[-1] = audio[-1]._replace(end=self.user_until)
        needed = self.user_until - int(PRE_ROLL_SECONDS * self._rate)
        if self._user_start is not None:
            needed = min(needed, self._user_start)
        while audio[0].end < needed:
            audio.popleft()

    def user_started(self, at: float) -> None:
        """Speech of the user was noticed."""
        if self._user_start is not None:
            return
        self._note_user_audio()
        early = self.position(at) - int(PRE_ROLL_SECONDS * self._rate)
        self._user_start = max(0, self._user_end, early)
        self._listener.mark_start("user", at)

    def user_stopped(self, at: float) -> None:
        """The user fell silent."""
        if self._user_start is None:
            return
        self._end_user_run(at)
        self._listener.mark_end("user", at, False, self._number)

    def _end_user_run(self, at: float) -> None:
        """Take note of what a user said: not of pauses in which there is no audio at all."""
        if self._user_start is None:
            return
        self._note_user_audio()
        begin, end = self._user_start, self.position(at)
        self._user_start, self._user_end = None, max(begin, end)
        said = [run for run in self._user_audio if run.end > begin]
        if said:
            first = said[0].start
            run = Run(max(begin, first), said[-1].end, begins=begin <= first)
            self._user_end = run.end
            self._add("user", run, self._turn)

    # -- the bot -------------------------------------------------------------------------------

    def bot_audio(self, at: float, samples: int, sample_rate: int) -> None:
        """Audio of the bot came: it plays behind what came before it, as on the timeline."""
        rate, until = self._rate, self.heard_until
        if sample_rate != rate:
            samples = (samples * rate + sample_rate // 2) // sample_rate
        start = round((at - self._zero) * rate) - samples
        if start - until <= (self._jitter if until else 0):
            start = until
        if self._bot_speaks and self._bot_start is None:
            self._bot_start, self._bot_turn = start, self._turn
            self._bot_number = self._number
            self._listener.mark_start("bot", self._time(start))
        self.heard_until = start + samples

    def bot_started(self) -> None:
        """The bot begins to speak: with its next audio."""
        if self._bot_speaks:
            return
        self._end_playing()
        self._bot_speaks = True
        self._interrupted = False

    def bot_stopped(self, at: float) -> None:
        """The bot has sent what it says; what was sent ahead may still be playing."""
        if not self._bot_speaks:
            return
        self._bot_speaks = False
        self._end_bot_run()
        ahead = self._time(self.heard_until) - at
        if ahead > AHEAD_SECONDS:
            self._playing = asyncio.get_running_loop().call_later(ahead, self._end_playing)
        else:
            self._bot_ended(self._time(self.heard_until))

    def interrupted(self, at: float) -> None:
        """The bot was interrupted: what it had sent ahead is not heard."""
        self.heard_until = min(self.heard_until, self.position(at))
        if self._bot_speaks:
            self._interrupted = True
        elif self._playing is not None:
            self._cancel_playing()
            self._interrupted = True
            self._bot_ended(at)

    def _end_bot_run(self) -> None:
        start, turn = self._bot_start, self._bot_turn
        self._bot_start = self._bot_turn = None
        if start is None or turn is None:
            return
        if self.heard_until > start:
            self._add("bot", Run(start, self.heard_until), turn)
        if turn.number is not None:
            self._listener.turn_ended(turn)

    def _end_playing(self) -> None:
        if self._cancel_playing():
            self._bot_ended(self._time(self.heard_until))

    def _bot_ended(self, at: float) -> None:
        self._listener.mark_end("bot", at, self._interrupted, self._bot_number)

    def _cancel_playing(self) -> bool:
        timer, self._playing = self._playing, None
        if timer is not None:
            timer.cancel()
        return timer is not None

    # -- turns ---------------------------------------------------------------------------------

    def turn_began(self, number: int) -> None:
        """A turn of the conversation began."""
        self._number = number

    def turn_ended(self, number: int, interrupted: bool = False) -> None:
        """A turn of the conversation ended.

        Speech belongs to the turn it began in: what the bot is still saying to this one, and what
        the user is saying to the next, which is what ended this.

        Args:
            number: Of the turn.
            interrupted: Whether the user spoke while the bot did, says who counts the turns.
        """
        if interrupted and (self._bot_speaks or self._playing is not None):
            self._interrupted = True
        self._number = number + 1
        turn, self._turn = self._turn, Turn()
        turn.number = number
        if self._bot_turn is not turn:
            self._listener.turn_ended(turn)

    def finish(self, at: float, *, cut_off: bool = False) -> Turn:
        """Recording stops: what is being said ends here.

        Args:
            at: When.
            cut_off: Whether the bot is not heard any further, either.

        Returns:
            The turn that goes on.
        """
        self.user_stopped(at)
        playing = self._cancel_playing()
        speaks = self._bot_speaks and self._bot_start is not None
        if cut_off:
            self.heard_until = min(self.heard_until, self.position(at))
            self._interrupted = self._interrupted or playing or speaks
        self._bot_speaks = False
        self._end_bot_run()
        if playing or speaks:
            self._bot_ended(self._time(self.heard_until))
        return self._turn

    def _add(self, speaker: Speaker, run: Run, turn: Turn) -> None:
        turn.runs[speaker].append(run)
        self._listener.run_ended(speaker, run)
