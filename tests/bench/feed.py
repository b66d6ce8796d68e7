"""Feeding calls faster than real time, in steps of virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from bench.audio import DIFFERENT, FRAMES_PER_SECOND, RATE, bot_frames, pcm, user_frames
from pipecat.frames.frames import InputAudioRawFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from recorder import Session, VirtualClock

STEP_SECONDS = 30
"""A chunk: after each, what is due is sealed and sent, as it is in real time."""

FIRST_STEP_SECONDS = 32
"""The first ends with the hold-back behind it: later, and more would wait than in real time."""

Feed = Callable[[int, int], Awaitable[None]]
"""Feeds the frames from one number up to another."""


def steps(seconds: int) -> Iterator[tuple[int, int]]:
    """The frames of each step, [first, end)."""
    begin, end = 0, FIRST_STEP_SECONDS
    while begin < seconds:
        end = min(seconds, end)
        yield begin * FRAMES_PER_SECOND, end * FRAMES_PER_SECOND
        begin, end = end, end + STEP_SECONDS


def ends_step(number: int, per_second: int = FRAMES_PER_SECOND) -> bool:
    """Whether a step ends with so many frames."""
    late = (FIRST_STEP_SECONDS - STEP_SECONDS) * per_second
    return number > late and not (number - late) % (STEP_SECONDS * per_second)


def session_feed(call: Session, clock: VirtualClock, user_rate: int) -> Feed:
    """Both tracks by writers of the session."""
    user, bot = pcm(user_rate, 1), pcm(RATE, 2)
    write_user, write_bot = call.writer("user", user_rate).write, call.writer("bot", RATE).write
    zero, advance_to = call.zero, clock.advance_to

    async def feed(first: int, end: int) -> None:
        for number in range(first, end):
            advance_to(zero + (number + 1) / FRAMES_PER_SECOND)
            write_user(user[number % DIFFERENT])
            write_bot(bot[number % DIFFERENT])

    return feed


def processor_feed(
    processor: FrameProcessor, clock: VirtualClock | None, user_rate: int, zero: float = 0.0
) -> Feed:
    """Both tracks by `process_frame`, as Pipecat calls it."""
    user: list[InputAudioRawFrame] = user_frames(user_rate)
    bot: list[TTSAudioRawFrame] = bot_frames()
    process_frame, down = processor.process_frame, FrameDirection.DOWNSTREAM

    async def feed(first: int, end: int) -> None:
        for number in range(first, end):
            if clock is not None:
                clock.advance_to(zero + (number + 1) / FRAMES_PER_SECOND)
            await process_frame(user[number % DIFFERENT], down)
            await process_frame(bot[number % DIFFERENT], down)

    return feed
