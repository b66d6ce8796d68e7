"""Where each frame belongs on the recording's sample clock. Pure: records in, runs out.

A *run* is audio of one track without a break: its output position is fixed by its first frame, and
every later frame lies directly behind the one before, however jittered it arrived. Whether a pause
in arrivals was silence or a stall can only be told from what comes next, so a frame is decided on
when `look_ahead` has passed since it was written, or later while a burst goes on (see
`recorder.placement`). From then on its place is final.

Two bounds follow, with `hold_back = look_ahead + reach`:

* A frame written at W is never placed before W - reach; but a `capture` track that was heard within
  `stall` goes on where it was.
* So when `now >= end + hold_back`, and no capture track has fallen silent before `end` less than
  `stall` ago, nothing undecided can land before `end`: `end` may be sealed.

Nothing here depends on chunk lengths or on how often it is called; that is what makes recordings
bit-identical whatever the chunk length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from recorder.batches import LEAST_BATCH, Batches
from recorder.drift import Drift
from recorder.grid import Grid, plain_length
from recorder.journal_format import Rows
from recorder.pending import Pending
from recorder.placement import NS, TIMESTAMP_NS, Placement
from recorder.records import Kind, Record
from recorder.runs import Piece, Run, Source, TrackState

MAX_ORIGINS = 16
"""How many runs back a playback position may lie."""

__all__ = ["NS", "Lost", "Piece", "Run", "Source", "Timeline", "TrackState", "Turn"]


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


class Timeline:
    """Decides on records in journal order.

    Args:
        sample_rate: Of the recording, Hz.
        hold_back_seconds: Sum of look-ahead and reach; each gets half.
        stall_seconds: How long a capture track that falls silent may be stalled.

    Attributes:
        least_batch: How many frames must be decided on at once to be taken by the many.
    """

    def __init__(
        self, sample_rate: int, hold_back_seconds: float, stall_seconds: float = 0.0
    ) -> None:
        self.sample_rate = sample_rate
        self.look_ahead_ns = int(hold_back_seconds * NS / 2)
        self.reach = int(hold_back_seconds * sample_rate / 2)
        self.stall_ns = int(stall_seconds * NS)
        self.placement = Placement(sample_rate, self.look_ahead_ns, self.stall_ns)
        self.tracks: list[TrackState] = []
        self.runs: list[Run] = []
        self.turns: list[Turn] = []
        self.lost: list[Lost] = []
        self.pauses: list[list[int | None]] = []
        self.decided_ns = 0
        self.length: int | None = None
        self.least_batch = LEAST_BATCH
        self._pending = Pending()
        self._runs_begun = 0

    def position(self, at_ns: int) -> int:
        """Return the sample position of a time, ns after the recording's start."""
        return self.placement.position(at_ns)

    def feed(self, record: Record, payload: Any = None) -> None:
        """Take one record; `payload` is its decoded JSON, for kinds that carry it."""
        self._pending.append(record, payload)

    def feed_rows(self, rows: Rows, payloads: dict[int, Any]) -> None:
        """Take many records, as rows of `recorder.records.PLACED`; payloads by their index."""
        self._pending.extend(rows, payloads)

    def advance(self, now_ns: int, *, final: bool = False) -> None:
        """Decide on everything that was written long enough before `now_ns`; or on all, if final.

        All records written before `now_ns` must have been fed.
        """
        if not final:
            now_ns -= 1  # in this very nanosecond more may be written
        horizon = now_ns - self.look_ahead_ns
        decided_ns = now_ns if final else horizon
        pending = self._pending
        count = self._due(None if final else horizon)
        batches = None
        if count >= self.least_batch:
            rows = pending.rows[:count]
            batches = Batches(self.placement, self.reach, self.tracks, rows, self.least_batch)
        done = 0
        while done < count:
            if batches is not None and (taken := batches.take(done)):
                done += taken
                pending.drop(taken)
                continue
            record = pending[0]
            if not self._decide(record, pending.payload(), None if final else now_ns):
                decided_ns = record.written_ns - 1
                break
            done += 1
            pending.drop(1)
        self.decided_ns = max(self.decided_ns, decided_ns)
        for state in self.tracks:  # what ended before a frame not yet decided on cannot go on
            if state.run is not None and (final or state.cursor < self._reachable(state)):
                self._close(state)

    def _due(self, horizon: int | None) -> int:
        """Return how many of the oldest records were written until then, ns; None: all."""
        pending = self._pending
        if not len(pending) or horizon is None:
            return len(pending)
        late = pending.rows["written_ns"] > horizon
        return int(late.argmax()) if late.any() else len(late)

    def _reachable(self, state: TrackState) -> int:
        """Return the first position that audio not yet decided on can have on a track."""
        reachable = self.position(self.decided_ns) - self.reach
        if self._may_be_stalled(state, self.decided_ns):
            return min(reachable, state.cursor)
        return reachable

    def _may_be_stalled(self, state: TrackState, at_ns: int) -> bool:
        return state.heard_ns is not None and at_ns - state.heard_ns <= self.stall_ns

    @property
    def settled(self) -> int:
        """Output position up to which every placement is final."""
        if self.length is not None:
            return self.length
        reachable = [self._reachable(state) for state in self.tracks]
        return max(0, min([self.position(self.decided_ns) - self.reach, *reachable]))

    @property
    def pending(self) -> int:
        """Records fed and not decided on."""
        return len(self._pending)

    @property
    def stopping(self) -> bool:
        """Whether a stop was fed that is not decided on yet."""
        return bool((self._pending.rows["kind"] == Kind.STOP).any())

    @property
    def oldest_pending(self) -> Record | None:
        """The oldest record not decided on."""
        return self._pending[0] if len(self._pending) else None

    def state(self) -> dict[str, Any]:
        """Return everything decided so far as plain JSON types, for `restore`."""
        open_runs = {state.name: state.run.number for state in self.tracks if state.run}
        return {
            "tracks": [state.state() for state in self.tracks],
            "open_runs": open_runs,
            "runs": [run.state() for run in self.runs],
            "runs_begun": self._runs_begun,
            "turns": [_plain(turn) for turn in self.turns],
            "lost": [_plain(lost) for lost in self.lost],
            "pauses": self.pauses,
            "decided_ns": self.decided_ns,
            "length": self.length,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; feed what was undecided then, and go on."""
        self.runs = [Run.from_state(run) for run in state["runs"]]
        by_number = {run.number: run for run in self.runs}
        self.tracks = [TrackState.from_state(track) for track in state["tracks"]]
        for track in self.tracks:
            number = state["open_runs"].get(track.name)
            track.run = by_number[number] if number is not None else None
        self._runs_begun = state["runs_begun"]
        self.turns = [Turn(**turn) for turn in state["turns"]]
        self.lost = [Lost(**lost) for lost in state["lost"]]
        self.pauses = [list(pause) for pause in state["pauses"]]
        self.decided_ns = state["decided_ns"]
        self.length = state["length"]

    def copy(self) -> Self:
        """Return a timeline of its own that stands where this one does."""
        other = type(self)(self.sample_rate, 0)
        other.look_ahead_ns, other.reach, other.stall_ns = (
            self.look_ahead_ns,
            self.reach,
            self.stall_ns,
        )
        other.placement = self.placement
        other.least_batch = self.least_batch
        other.runs = [run.copy() for run in self.runs]
        runs = {run.number: run for run in other.runs}
        other.tracks = [
            state.copy(None if state.run is None else runs[state.run.number])
            for state in self.tracks
        ]
        other.turns = [replace(turn) for turn in self.turns]
        other.lost = [replace(lost) for lost in self.lost]
        other.pauses = [pause.copy() for pause in self.pauses]
        other.decided_ns, other.length = self.decided_ns, self.length
        other._pending = self._pending.copy()
        other._runs_begun = self._runs_begun
        return other

    def oldest_segment(self, reading: int) -> int:
        """Return the first journal segment still needed; `reading` is where the reader stands."""
        needed = [run.pieces[0].segment for run in self.runs if run.pieces]
        if len(self._pending):
            needed.append(self._pending[0].segment)
        return min([reading, *needed])

    def forget_before(self, position: int, runs_before: dict[int, int]) -> None:
        """Drop what only concerns samples before `position`.

        Args:
            position: Everything before it is sealed.
            runs_before: Per run number, the first input sample still needed.
        """
        kept = []
        for run in self.runs:
            if run.closed and run.end <= position:
                continue
            run.forget_before(position, runs_before.get(run.number, 0))
            kept.append(run)
        self.runs = kept

    # -- decisions ---------------------------------------------------------------------------

    def _decide(self, record: Record, payload: Any, known_ns: int | None) -> bool:
        """Decide on a record; return whether that was possible by what is known until then."""
        kind = record.kind
        if kind is Kind.AUDIO:
            return self._place(record, known_ns)
        if kind is Kind.TRACK:
            self._join(record, payload)
        elif kind is Kind.CLEAR:
            state = self.tracks[record.track]
            self._clear(state, self._point(record, state.late))
        elif kind is Kind.PLAYED:
            self._note_played(self.tracks[record.track], record)
        elif kind is Kind.PAUSE:
            self.pauses.append([self._point(record), None])
            for state in self.tracks:
                state.heard_ns = None  # what comes after a pause is not what came late before it
        elif kind is Kind.RESUME:
            self.pauses[-1][1] = self._point(record)
        elif kind is Kind.TURN_START:
            start = max(0, self.position(record.at_ns))
            self.turns.append(Turn(len(self.turns) + 1, record.track, start))
        elif kind is Kind.TURN_END:
            end = self.position(record.at_ns)
            if self.tracks[record.track].source == "playout":
                self.tracks[record.track].heard_ns = None  # it is silent because it has ended
            self._end_turn(record.track, end, payload)
        elif kind is Kind.LOST:
            start = self.position(record.at_ns)
            end = max(start, self.position(record.written_ns))
            name, frames, reason = payload["track"], payload["frames"], payload["reason"]
            until = None if payload.get("open") else end
            self.lost.append(Lost(name, max(0, start), until, frames, reason))
        elif kind is Kind.STOP:
            self._stop(self.position(record.at_ns), bool(payload["discard_unheard"]))
        return True

    def _join(self, record: Record, payload: Any) -> None:
        """Add a track, or take note of whose a track is that is there already."""
        if record.track == len(self.tracks):
            state = TrackState(payload["name"], payload["source"])
            if state.source == "capture":  # its first frames may be in a stall already
                state.heard_ns = record.written_ns
            self.tracks.append(state)
        self.tracks[record.track].participant = payload.get("participant")

    def _place(self, record: Record, known_ns: int | None) -> bool:
        state = self.tracks[record.track]
        earliest = 0
        if not self._may_be_stalled(state, record.written_ns):
            earliest = self.position(record.written_ns) - self.reach
        if state.cursor < earliest:
            self._close(state)  # as `advance` has done, if it was asked in between
        found = self.placement.start(record, state, self._pending.later, known_ns, earliest)
        if found is None:
            return False
        start = max(found.position, earliest)
        state.following = max(found.following, state.following - 1)
        run, samples = state.run, record.samples
        if run is None or start != state.cursor or run.grid.rate_in != record.sample_rate:
            run = self._begin(state, record, start, found.arrival)
        self._keep_time(state, run, record, samples)
        run.add(samples, record.channels, record.segment, record.offset)
        grid = run.grid
        state.cursor = run.start + grid.output(run.count)
        state.media = run.media + plain_length(run.count, grid.rate_in, grid.rate_out)
        if state.joined is None:
            state.joined = start
        if state.source == "playout":
            ahead = state.cursor - self.position(record.at_ns)
            if ahead > self.placement.jitter:
                state.ahead = True  # it has its own pace: a stall does not end in a burst
        state.heard_ns = None if state.ahead else record.written_ns
        if record.time_ns is not None or state.next_ns is not None:
            self._note_time(state, record)
        return True

    def _begin(self, state: TrackState, record: Record, start: int, arrival: int | None) -> Run:
        """Begin a run; by its arrival, if any, it is known again how its source's clock stands."""
        before = state.run
        self._close(state)
        if arrival is not None:
            state.shift, state.ahead = start - arrival, False
        if arrival is not None or before is None:
            state.drift, state.late = Drift(), 0
        else:
            state.drift.go_on(before.grid.inserted)
        self._runs_begun += 1
        grid = Grid(record.sample_rate, self.sample_rate)
        run = Run(self._runs_begun, record.track, start, state.media, grid)
        state.run = run
        state.origins = [*state.origins[1 - MAX_ORIGINS :], [run.media, start]]
        self.runs.append(run)
        return run

    def _keep_time(self, state: TrackState, run: Run, record: Record, samples: int) -> None:
        """Note how late a frame of a run is, and stretch the blocks that begin with it."""
        grid, drift = run.grid, state.drift
        while drift.blocks * grid.block_in < run.count + samples:
            block = drift.blocks
            # Where a source's place is known otherwise, only what changes slowly is its clock.
            steps = record.time_ns is not None or state.source == "playout"
            extra = drift.next_block(grid.block_out, self.sample_rate, grid.inserted, steps=steps)
            if block:
                grid.stretch(block, extra)
                state.origins[-1][1] += extra  # of the audio from here on
        due = self.position(record.at_ns) - plain_length(samples, grid.rate_in, grid.rate_out)
        drift.note(due - run.start - plain_length(run.count, grid.rate_in, grid.rate_out))

    def _note_time(self, state: TrackState, record: Record) -> None:
        """Note the media time at which the next frame follows without a break."""
        length_ns = record.samples * NS // record.sample_rate
        if record.time_ns is None:
            state.next_ns = None
        elif (
            state.next_ns is not None and abs(record.time_ns - state.next_ns) < TIMESTAMP_NS
        ):  # rounding must not add up
            state.next_ns += length_ns
        else:
            state.next_ns = record.time_ns + length_ns

    def _note_played(self, state: TrackState, record: Record) -> None:
        """Compare where audio was placed with where it is reported to have been played."""
        media = self.position(record.time_ns or 0)
        again, state.played = media == state.played, media
        if again and media >= state.media - self.placement.jitter:
            return  # all of it was played, some time before
        for begin, start in reversed(state.origins):
            if begin <= media:
                state.late = self.position(record.at_ns) - (start + media - begin)
                state.delay = state.shift + state.late
                return

    def _point(self, record: Record, late: int = 0) -> int:
        """Return where a mark changes samples; never where they may have been sealed already.

        What is played so much later than it was placed is cut so much earlier.
        """
        earliest = self.position(record.written_ns) - self.reach
        return max(0, earliest, self.position(record.at_ns) - late)

    def _clear(self, state: TrackState, position: int) -> None:
        if state.cursor <= position:
            return
        self._close(state)
        for run in self.runs:
            if self.tracks[run.track] is state and run.end > position:
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


def _plain(one: Turn | Lost) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}
