"""When the bot's audio is heard, as told by when its frames come.

An output transport hands a frame on when it has written it. What that means differs: a websocket
transport sends a frame and then waits for as long as the ones before it play, so that the frame
begins to play about when it comes here. A sound card, or a track that takes audio as it is
played, hands it on when it ends. One frame in the wrong place is what the difference makes.

What tells them apart is the first frame of what the bot says: the transport says that the bot
has started to speak right before it writes that frame.
"""

from __future__ import annotations

MAX_FRAME_SECONDS = 0.2
"""Longer frames were not cut by a transport's output: nobody knows when they play."""

TOLERANCE_SECONDS = 0.005


class Playout:
    """Follows one bot. Times are seconds on the recording's clock source."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._cut = self._interrupted = False
        self._ahead = 0.0
        self._until = float("-inf")

    def started(self, at: float) -> None:
        """The bot begins to speak: its next frame is being written."""
        # While something is playing, waiting for it is what takes the time.
        self._started = at if at >= self._until - TOLERANCE_SECONDS else None
        self._interrupted = self._cut = False

    def interrupted(self, at: float) -> None:
        """The bot was interrupted."""
        self._interrupted = True
        self._until = min(self._until, at)

    def stopped(self) -> None:
        """The bot stopped: if it was interrupted, no more of that is heard."""
        self._cut, self._interrupted = self._interrupted, False

    def ends(self, at: float, seconds: float, *, speech: bool) -> float | None:
        """Return when a frame's last sample is heard; None if the frame is not heard at all.

        Args:
            at: When the frame came.
            seconds: Its length.
            speech: Whether it is speech, which ends with an interruption.
        """
        short = seconds <= MAX_FRAME_SECONDS
        if self._started is not None:
            if short:
                self._ahead = max(0.0, seconds - (at - self._started))
            self._started = None
        ahead = 0.0
        if short:
            ahead = self._ahead if self._ahead < seconds else seconds
        if self._cut:
            self._cut = False
            if speech and ahead > seconds / 2:
                return None  # being sent when the bot was interrupted: others were to play first
        end, until = at + ahead, self._until + seconds
        self._until = end if end > until else until
        return end
