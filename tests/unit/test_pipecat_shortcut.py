"""The shorter way of frames of audio: all see what they see on Pipecat's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from headless import (
    Frame,
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    StartFrame,
    SystemClock,
    TaskManager,
    TTSAudioRawFrame,
)
from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    InterruptionFrame,
    TextFrame,
    UserAudioRawFrame,
)
from pipecat.observers.base_observer import BaseObserver, FrameProcessed, FramePushed
from pipecat.pipeline.worker_observer import WorkerObserver

from recorder.pipecat import onlookers, shortcut
from recorder.pipecat.shortcut import FRAME_EVENTS, ShortcutProcessor

DOWN, UP = FrameDirection.DOWNSTREAM, FrameDirection.UPSTREAM
AUDIO = (InputAudioRawFrame, OutputAudioRawFrame, TTSAudioRawFrame)
Seen = list[tuple[Any, ...]]


def told(frame: Frame) -> str:
    """What a frame says of itself, but for what differs from one error to the next."""
    return frame.error if isinstance(frame, ErrorFrame) else str(frame)


class Taking(ShortcutProcessor):
    """Notes what it takes."""

    def __init__(self, seen: Seen, **options: Any) -> None:
        super().__init__(**{"enable_direct_mode": True, **options})
        self.seen = seen
        self._shortcuts = dict.fromkeys(AUDIO, self._note)

    def _note(self, frame: Frame) -> None:
        self.seen.append(("taken", str(frame)))

    def _take(self, frame: Frame, direction: FrameDirection) -> None:
        if direction is DOWN and type(frame) in AUDIO:
            self._note(frame)


class OfPushes(BaseObserver):
    """Notes what is pushed, each time or the first."""

    def __init__(self, *, every: bool) -> None:
        super().__init__(observe_every_push=every)
        self.seen: Seen = []

    async def on_push_frame(self, data: FramePushed) -> None:
        assert data.timestamp > 0
        self.seen.append((data.source.name, told(data.frame), data.direction, data.first_push))


class OfAll(OfPushes):
    """Notes what is processed, too."""

    async def on_process_frame(self, data: FrameProcessed) -> None:
        assert data.timestamp > 0
        self.seen.append((data.processor.name, told(data.frame), data.direction))


class Neighbour(FrameProcessor):
    """Notes what is queued at it."""

    def __init__(self, name: str, seen: Seen) -> None:
        super().__init__(name=name, enable_direct_mode=True)
        self.seen = seen
        self.breaks = False

    async def queue_frame(self, frame: Frame, direction: FrameDirection = DOWN, *_: Any) -> None:
        self.seen.append((self.name, told(frame), direction))
        if self.breaks and not isinstance(frame, ErrorFrame):
            raise ValueError("broken")


class Observer(BaseObserver):
    """Notes what it is told; `breaks_at` names a method that raises."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen
        self.breaks_at = ""

    async def on_process_frame(self, data: FrameProcessed) -> None:
        self._note("processed", data.processor.name, data)

    async def on_push_frame(self, data: FramePushed) -> None:
        assert data.first_push
        self._note("pushed", f"{data.source.name} to {data.destination.name}", data)

    def _note(self, what: str, who: str, data: FrameProcessed | FramePushed) -> None:
        assert data.timestamp > 0
        self.seen.append((what, who, told(data.frame), data.direction))
        if self.breaks_at == what and not isinstance(data.frame, ErrorFrame):
            raise ValueError("broken")


class Row:
    """A processor between two others, set up and started."""

    def __init__(
        self,
        processor: ShortcutProcessor,
        seen: Seen,
        *,
        observed: bool = True,
        observer: BaseObserver | None = None,
    ) -> None:
        self.processor = processor
        self.seen = seen
        self.before, self.behind = Neighbour("before", seen), Neighbour("behind", seen)
        self.told = Observer(seen)
        self.observer = observer or (self.told if observed else None)

    async def start(self, *, alone: bool = False) -> None:
        clock = SystemClock()
        clock.start()
        worker: Any = SimpleNamespace(turn_tracking_observer=None)
        setup = FrameProcessorSetup(
            clock=clock, task_manager=TaskManager(), pipeline_worker=worker, observer=self.observer
        )
        if not alone:
            self.before.link(self.processor)
            self.processor.link(self.behind)
        for one in (self.before, self.processor, self.behind):
            await one.setup(setup)
        frame = StartFrame()
        frame.name = "StartFrame"  # not numbered, so that two are alike
        await self.processor.queue_frame(frame)
        self.seen.clear()


def frames() -> list[Frame]:
    """One of each, named so that two lists are alike."""
    made: list[Frame] = [
        InputAudioRawFrame(b"\0\0", 16_000, 1),
        TTSAudioRawFrame(b"\0\0", 24_000, 1),
        UserAudioRawFrame(b"\0\0", 16_000, 1, user_id="ann"),
        TextFrame("text"),
        OutputAudioRawFrame(b"\0\0", 24_000, 1),
        InterruptionFrame(),
        EndFrame(),
        InputAudioRawFrame(b"\1\1", 16_000, 1),
        CancelFrame(),
        InputAudioRawFrame(b"\2\2", 16_000, 1),
    ]
    for number, frame in enumerate(made):
        frame.name = f"{type(frame).__name__}#{number}"
    return made


async def both(
    monkeypatch: pytest.MonkeyPatch,
    play: Callable[[Row], Any],
    *,
    observed: bool = True,
    alone: bool = False,
) -> Seen:
    """Have the same played on both ways; return what was seen, which must be the same."""
    found = []
    for known in (False, True):
        monkeypatch.setattr(shortcut, "_is_known", known)
        seen: Seen = []
        row = Row(Taking(seen, name="middle"), seen, observed=observed)
        await row.start(alone=alone)
        assert row.processor.is_short is known
        await play(row)
        found.append(list(seen))
        await row.processor.cleanup()
    assert found[0] == found[1]
    return found[0]


def test_pipecat_is_as_it_is_known_here() -> None:
    """Fails with a new Pipecat: compare what has changed, then add its digest."""
    assert shortcut.source_digest() in shortcut._KNOWN


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("direction", [DOWN, UP])
async def test_all_see_the_same(
    monkeypatch: pytest.MonkeyPatch, direction: FrameDirection, observed: bool, alone: bool
) -> None:
    async def play(row: Row) -> None:
        for frame in frames():
            await row.processor.queue_frame(frame, direction)

    seen = await both(monkeypatch, play, observed=observed, alone=alone)
    taken = [name.partition("(")[0] for what, name, *_ in seen if what == "taken"]
    expected = ["InputAudioRawFrame#0", "TTSAudioRawFrame#1", "OutputAudioRawFrame#4"]
    assert taken == ([*expected, "InputAudioRawFrame#7"] if direction is DOWN else [])
    assert any(what == "pushed" for what, *_ in seen) is (observed and not alone)


@pytest.mark.parametrize("by_queue", [False, True])
@pytest.mark.parametrize("at", ["behind", "processed", "pushed"])
async def test_what_others_raise_becomes_an_error_frame(
    monkeypatch: pytest.MonkeyPatch, at: str, by_queue: bool
) -> None:
    async def play(row: Row) -> None:
        row.behind.breaks = at == "behind"
        row.told.breaks_at = at
        for frame in frames()[:2]:
            if by_queue:
                await row.processor.queue_frame(frame)
            else:
                try:
                    await row.processor.process_frame(frame, DOWN)
                except ValueError as error:
                    row.seen.append(("raised", str(error)))

    seen = await both(monkeypatch, play)
    errors = [one for one in seen if one[0] == "before"]
    if at == "processed":
        assert len(errors) == (2 if by_queue else 0)
    else:
        assert len(errors) == 2


async def test_callbacks_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(row: Row) -> None:
        async def called(processor: FrameProcessor, frame: Frame, _: FrameDirection) -> None:
            row.seen.append(("called", processor.name, str(frame)))

        await row.processor.queue_frame(frames()[0], DOWN, called)

    assert [one[0] for one in await both(monkeypatch, play)][-1] == "called"


async def test_it_traces_as_pipecat_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(row: Row) -> None:
        sink = logger.add(lambda text: row.seen.append(("log", text)), level=0, format="{message}")
        await row.processor.queue_frame(frames()[0])
        logger.remove(sink)

    seen = await both(monkeypatch, play)
    assert ("log", "Pushing InputAudioRawFrame#0") in [(one[0], one[1][:28]) for one in seen]


@pytest.mark.parametrize("event", sorted(FRAME_EVENTS))
async def test_handlers_of_frames_are_called(monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    async def play(row: Row) -> None:
        row.processor.add_event_handler(
            event, lambda _processor, frame: row.seen.append((event, str(frame)))
        )
        assert not row.processor.is_short
        await row.processor.queue_frame(frames()[0])

    assert event in [one[0] for one in await both(monkeypatch, play)]


def test_pipecat_has_these_events_and_no_other_of_frames() -> None:
    events = FrameProcessor()._event_handlers
    assert {name for name in events if name.endswith("_frame")} == FRAME_EVENTS


async def test_a_push_of_ones_own_is_used() -> None:
    seen: Seen = []

    class Own(Taking):
        async def push_frame(self, frame: Frame, direction: FrameDirection = DOWN) -> None:
            seen.append(("own", str(frame)))

    row = Row(Own(seen), seen)
    await row.start()
    await row.processor.queue_frame(frames()[0])
    assert [one[0] for one in seen] == ["processed", "taken", "own"]


async def test_a_way_of_processing_of_ones_own_is_used() -> None:
    seen: Seen = []

    class Own(Taking):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            seen.append(("own", str(frame)))
            await super().process_frame(frame, direction)

    row = Row(Own(seen), seen)
    await row.start()
    await row.processor.queue_frame(frames()[0])
    assert [one[0] for one in seen] == ["own", "processed", "taken", "pushed", "behind"]


async def test_a_push_that_was_put_in_place_is_used() -> None:
    seen: Seen = []
    processor = Taking(seen)

    async def push_frame(frame: Frame, direction: FrameDirection = DOWN) -> None:
        seen.append(("own", str(frame)))

    processor.push_frame = push_frame  # type: ignore[method-assign]  # as tests of bots do
    row = Row(processor, seen)
    await row.start()
    await row.processor.queue_frame(frames()[0])
    assert [one[0] for one in seen] == ["processed", "taken", "own"]


@pytest.mark.parametrize("name", shortcut._METHODS)
async def test_a_pipecat_that_was_patched_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inner: Any = getattr(FrameProcessor, name)
    calls = []

    async def patched(self: Any, *arguments: Any, **options: Any) -> None:
        calls.append(name)
        await inner(self, *arguments, **options)

    monkeypatch.setattr(FrameProcessor, name, patched)
    seen: Seen = []
    row = Row(Taking(seen), seen)
    await row.start()
    calls.clear()
    await row.processor.queue_frame(frames()[0])
    assert calls


async def test_with_a_queue_of_its_own_frames_go_through_it() -> None:
    seen: Seen = []
    row = Row(Taking(seen, enable_direct_mode=False), seen)
    await row.start()
    await row.processor.queue_frame(frames()[0])
    assert not seen  # it is for a task to take it
    await row.processor.cleanup()


def test_what_is_observed_is_handed_on_as_it_is_known_here() -> None:
    """Fails with a new Pipecat: compare what has changed, then add its digest."""
    assert onlookers.source_digest() in onlookers._KNOWN


KINDS: dict[str, Callable[[], OfPushes]] = {
    "first": lambda: OfPushes(every=False),
    "every": lambda: OfPushes(every=True),
    "all": lambda: OfAll(every=False),
}


@pytest.mark.parametrize("later", ["", *KINDS])
@pytest.mark.parametrize("kinds", [(), ("first",), ("first", "every"), ("all",), ("first", "all")])
async def test_a_pipelines_observers_see_the_same(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], later: str
) -> None:
    """Also one that comes in mid-call; some frames were pushed before, others were not."""
    found = []
    for known in (False, True):
        monkeypatch.setattr(shortcut, "_is_known", known)
        monkeypatch.setattr(onlookers, "_is_known", known)
        all_of_them = [KINDS[kind]() for kind in kinds]
        pipelines = WorkerObserver(observers=[*all_of_them])
        await pipelines.setup(TaskManager())
        row = Row(Taking([], name="middle"), [], observer=pipelines)
        await row.start()
        mine = frames()
        for number, frame in enumerate(mine):
            if number % 2:
                pushed = FramePushed(row.before, row.processor, frame, DOWN, 1)
                await pipelines.on_push_frame(pushed)
            await row.processor.queue_frame(frame)
            if later and number == 3:
                all_of_them.append(KINDS[later]())
                pipelines.add_observer(all_of_them[-1])
        await asyncio.sleep(0.01)
        found.append([one.seen for one in all_of_them])
        await pipelines.cleanup()
        await row.processor.cleanup()
    assert found[0] == found[1]
    assert all(found[1])


async def test_observers_are_not_bothered_with_what_they_do_not_want(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipelines = WorkerObserver(observers=[OfPushes(every=False)])
    await pipelines.setup(TaskManager())
    row = Row(Taking([], name="middle"), [], observer=pipelines)
    await row.start()
    told_of: list[str] = []

    async def note(data: FrameProcessed | FramePushed) -> None:
        told_of.append(type(data).__name__)

    frame = frames()[0]
    await pipelines.on_push_frame(FramePushed(row.before, row.processor, frame, DOWN, 1))
    monkeypatch.setattr(pipelines, "on_process_frame", note)
    monkeypatch.setattr(pipelines, "on_push_frame", note)
    await row.processor.queue_frame(frame)
    assert not told_of
    await row.processor.queue_frame(frames()[0])  # nobody has pushed that one before
    assert told_of == ["FramePushed"]
    await pipelines.cleanup()


def test_a_pipecat_without_its_source_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_source(_: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(sys.modules["inspect"], "getsource", no_source)
    assert shortcut.source_digest() == onlookers.source_digest() == ""
