"""Where each frame belongs on the recording's sample clock. Pure: records in, runs out.

A *run* is audio of one track without a break: its output position is fixed by its first frame, and
every later frame lies directly behind the one before, however jittered it arrived. Whether a pause
in arrivals was silence or a stall can only be told from what comes next, so a frame is decided on
when `look_ahead` has passed since it was written. From then on its place is final.

Two bounds follow, with `hold_back = look_ahead + reach`:

* A frame written at W is never placed before W - reach.
* So when `now >= end + hold_back`, nothing undecided can land before `end`: `end` may be sealed.

Nothing here depends on chunk lengths or on how often it is called; that is what makes recordings
bit-identical whatever the chunk length.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recorder.records import Kind, Record

Source = Literal["capture", "playout"]
"""`capture`: a microphone; late frames were late, audio cannot come before it was spoken.
`playout`: what a bot sends; it may run ahead of real time, and then plays on without a break."""

JITTER_SECONDS = 0.06
"""A frame later than this against its run begins a new one, if those after it are late too."""

NS = 1_000_000_000


@dataclass(slots=True)
class Piece:
    """One frame inside a run: input samples [first, first + count) lie at `offset` of `segment`."""

    first: int
    count: int
    channels: int
    segment: int
    offset: int


@dataclass(slots=True)
class Run:
    """Audio without a break.

    Attributes:
        number: Unique in the recording, ascending.
        track: Track index.
        start: Output position of its first sample.
        sample_rate: Of its input, Hz.
        count: Input samples so far.
        limit: Output position it is cut off at (not heard beyond), or None.
        closed: No more input will come.
        pieces: Its frames, oldest first; those no longer needed are dropped.
    """

    number: int
    track: int
    start: int
    sample_rate: int
    count: int = 0
    limit: int | None = None
    closed: bool = False
    pieces: list[Piece] = field(default_factory=list)


@dataclass(slots=True)
class Turn:
    """One speaking turn, in output samples; `end` is None while it goes on.

    `conversation_turn` is the number of the conversation's turn it belongs to, where that is known.
    """

    number: int
    track: int
    start: int
    end: int | None = None
    interrupted: bool = False
    conversation_turn: int | None = None


@dataclass(slots=True)
class Lost:
    """Audio that is missing: a gap, in output samples; `end` is None where nobody can know it."""

    track: str
    start: int
    end: int | None
    frames: int
    reason: str


@dataclass(slots=True)
class TrackState:
    """One track: its name, kind of source, next output position and open run.

    `participant` says whose it is, where that is known; `joined` is its first sample of audio.
    """

    name: str
    source: Source
    cursor: int = 0
    run: Run | None = None
    participant: str | None = None
    joined: int | None = None


class Timeline:
    """Decides on records in journal order.

    Args:
        sample_rate: Of the recording, Hz.
        hold_back_seconds: Sum of look-ahead and reach; each gets half.
    """

    def __init__(self, sample_rate: int, hold_back_seconds: float) -> None:
        self.sample_rate = sample_rate
        self.look_ahead_ns = int(hold_back_seconds * NS / 2)
        self.reach = int(hold_back_seconds * sample_rate / 2)
        self.jitter = int(JITTER_SECONDS * sample_rate)
        self.tracks: list[TrackState] = []
        self.runs: list[Run] = []
        self.turns: list[Turn] = []
        self.lost: list[Lost] = []
        self.pauses: list[list[int | None]] = []
        self.decided_ns = 0
        self.length: int | None = None
        self._pending: deque[tuple[Record, Any]] = deque()
        self._runs_begun = 0

    def position(self, at_ns: int) -> int:
        """Return the sample position of a time, ns after the recording's start."""
        return (at_ns * self.sample_rate + NS // 2) // NS

    def feed(self, record: Record, payload: Any = None) -> None:
        """Take one record; `payload` is its decoded JSON, for kinds that carry it."""
        self._pending.append((record, payload))

    def advance(self, now_ns: int, *, final: bool = False) -> None:
        """Decide on everything that was written long enough before `now_ns`; or on all, if final.

        All records written before `now_ns` must have been fed.
        """
        horizon = now_ns - self.look_ahead_ns
        pending = self._pending
        while pending and (final or pending[0][0].written_ns <= horizon):
            record, payload = pending.popleft()
            self._decide(record, payload)
        self.decided_ns = max(self.decided_ns, now_ns if final else horizon)
        # A frame not yet decided on lands no earlier than this; what ended before cannot go on.
        reachable = self.position(self.decided_ns) - self.reach
        for state in self.tracks:
            if state.run is not None and (final or state.cursor < reachable):
                self._close(state)

    @property
    def settled(self) -> int:
        """Output position up to which every placement is final."""
        if self.length is not None:
            return self.length
        return max(0, self.position(self.decided_ns) - self.reach)

    @property
    def pending(self) -> int:
        """Records fed and not decided on."""
        return len(self._pending)

    @property
    def stopping(self) -> bool:
        """Whether a stop was fed that is not decided on yet."""
        return any(record.kind is Kind.STOP for record, _ in self._pending)

    @property
    def oldest_pending(self) -> Record | None:
        """The oldest record not decided on."""
        return self._pending[0][0] if self._pending else None

    def state(self) -> dict[str, Any]:
        """Return everything decided so far as plain JSON types, for `restore`."""
        open_runs = {state.name: state.run.number for state in self.tracks if state.run}
        return {
            "tracks": [
                {
                    "name": state.name,
                    "source": state.source,
                    "cursor": state.cursor,
                    "participant": state.participant,
                    "joined": state.joined,
                }
                for state in self.tracks
            ],
            "open_runs": open_runs,
            "runs": [asdict(run) for run in self.runs],
            "runs_begun": self._runs_begun,
            "turns": [asdict(turn) for turn in self.turns],
            "lost": [asdict(lost) for lost in self.lost],
            "pauses": self.pauses,
            "decided_ns": self.decided_ns,
            "length": self.length,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; feed what was undecided then, and go on."""
        self.runs = [
            Run(**{**run, "pieces": [Piece(**piece) for piece in run["pieces"]]})
            for run in state["runs"]
        ]
        by_number = {run.number: run for run in self.runs}
        self.tracks = [TrackState(**track) for track in state["tracks"]]
        for track in self.tracks:
            number = state["open_runs"].get(track.name)
            track.run = by_number[number] if number is not None else None
        self._runs_begun = state["runs_begun"]
        self.turns = [Turn(**turn) for turn in state["turns"]]
        self.lost = [Lost(**lost) for lost in state["lost"]]
        self.pauses = [list(pause) for pause in state["pauses"]]
        self.decided_ns = state["decided_ns"]
        self.length = state["length"]

    def oldest_segment(self, reading: int) -> int:
        """Return the first journal segment still needed; `reading` is where the reader stands."""
        needed = [run.pieces[0].segment for run in self.runs if run.pieces]
        if self._pending:
            needed.append(self._pending[0][0].segment)
        return min([reading, *needed])

    def forget_before(self, position: int, runs_before: dict[int, int]) -> None:
        """Drop what only concerns samples before `position`.

        Args:
            position: Everything before it is sealed.
            runs_before: Per run number, the first input sample still needed.
        """
        kept = []
        for run in self.runs:
            if run.closed and self.run_end(run) <= position:
                continue
            needed = runs_before.get(run.number, 0)
            unneeded = bisect_right(run.pieces, needed, key=_piece_end)
            del run.pieces[:unneeded]
            kept.append(run)
        self.runs = kept

    def run_end(self, run: Run) -> int:
        """Return the output position behind a run's last sample so far."""
        end = run.start + self.output_length(run.count, run.sample_rate)
        return end if run.limit is None else min(end, run.limit)

    def output_length(self, count: int, rate: int) -> int:
        """Return how many output samples `count` input samples make, rounded half up."""
        return (count * self.sample_rate + rate // 2) // rate

    # -- decisions ---------------------------------------------------------------------------

    def _decide(self, record: Record, payload: Any) -> None:
        kind = record.kind
        if kind is Kind.AUDIO:
            self._place(record)
        elif kind is Kind.TRACK:
            self._join(record.track, payload)
        elif kind is Kind.CLEAR:
            self._clear(self.tracks[record.track], self._point(record))
        elif kind is Kind.PAUSE:
            self.pauses.append([self._point(record), None])
        elif kind is Kind.RESUME:
            self.pauses[-1][1] = self._point(record)
        elif kind is Kind.TURN_START:
            start = max(0, self.position(record.at_ns))
            self.turns.append(Turn(len(self.turns) + 1, record.track, start))
        elif kind is Kind.TURN_END:
            end = self.position(record.at_ns)
            self._end_turn(record.track, end, payload)
        elif kind is Kind.LOST:
            start = self.position(record.at_ns)
            end = max(start, self.position(record.written_ns))
            name, frames, reason = payload["track"], payload["frames"], payload["reason"]
            until = None if payload.get("open") else end
            self.lost.append(Lost(name, max(0, start), until, frames, reason))
        elif kind is Kind.STOP:
            self._stop(self.position(record.at_ns), bool(payload["discard_unheard"]))

    def _join(self, track: int, payload: Any) -> None:
        """Add a track, or take note of whose a track is that is there already."""
        if track == len(self.tracks):
            self.tracks.append(TrackState(payload["name"], payload["source"]))
        self.tracks[track].participant = payload.get("participant")

    def _place(self, record: Record) -> None:
        state = self.tracks[record.track]
        count = record.length // (2 * record.channels)
        rate = record.sample_rate
        run = state.run
        if run is not None and run.sample_rate != rate:
            self._close(state)
            run = None
        start = state.cursor + self._silence_before(record, state, count)
        start = max(start, self.position(record.written_ns) - self.reach)
        if state.joined is None:
            state.joined = start
        if run is None or start != state.cursor:
            self._close(state)
            self._runs_begun += 1
            run = Run(self._runs_begun, record.track, start, rate)
            state.run = run
            self.runs.append(run)
        run.pieces.append(Piece(run.count, count, record.channels, record.segment, record.offset))
        run.count += count
        state.cursor = run.start + self.output_length(run.count, rate)

    def _silence_before(self, record: Record, state: TrackState, count: int) -> int:
        """Return how many samples of silence belong between the track's end and this frame."""
        samples = self.output_length(count, record.sample_rate)
        lag = self.position(record.at_ns) - samples - state.cursor
        # The first frame of a track has nothing to be continuous with: its place is exact.
        tolerance = self.jitter if state.cursor else 0
        if lag <= tolerance:
            return 0
        if state.source == "playout":
            return lag
        # Silence is what every following frame lags by; what a burst makes up for was a stall.
        horizon = record.written_ns + self.look_ahead_ns
        cursor = state.cursor + samples
        for later, _ in self._pending:
            if later.written_ns > horizon:
                break
            if later.track != record.track:
                continue
            if later.kind is Kind.CLEAR:
                break
            if later.kind is Kind.AUDIO:
                count = later.length // (2 * later.channels)
                samples = self.output_length(count, later.sample_rate)
                lag = min(lag, self.position(later.at_ns) - samples - cursor)
                if lag <= tolerance:
                    return 0
                cursor += samples
        return lag

    def _point(self, record: Record) -> int:
        """Return where a mark changes samples; never where they may have been sealed already."""
        earliest = self.position(record.written_ns) - self.reach
        return max(0, earliest, self.position(record.at_ns))

    def _clear(self, state: TrackState, position: int) -> None:
        if state.cursor <= position:
            return
        self._close(state)
        for run in self.runs:
            if self.tracks[run.track] is state and self.run_end(run) > position:
                run.limit = max(position, run.start)
        state.cursor = position

    def _end_turn(self, track: int, position: int, payload: Any) -> None:
        for turn in reversed(self.turns):
            if turn.track == track and turn.end is None:
                turn.end = max(turn.start, position)
                turn.interrupted = bool(payload["interrupted"])
                turn.conversation_turn = payload.get("conversation_turn")
                return

    def _stop(self, position: int, discard_unheard: bool) -> None:
        if discard_unheard:
            for state in self.tracks:
                if state.source == "playout":  # what a microphone gave was said, early or not
                    self._clear(state, position)
        position = max([position, *(state.cursor for state in self.tracks)])
        self.length = position
        for state in self.tracks:
            self._close(state)
        for turn in self.turns:
            turn.start = min(turn.start, position)
            turn.end = position if turn.end is None else min(turn.end, position)
        if self.pauses and self.pauses[-1][1] is None:
            self.pauses[-1][1] = position

    def _close(self, state: TrackState) -> None:
        if state.run is not None:
            state.run.closed = True
            state.run = None


def _piece_end(piece: Piece) -> int:
    return piece.first + piece.count
