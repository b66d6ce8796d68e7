"""Traces: silence of all kinds, and speakers that come and go."""

from __future__ import annotations

from collections.abc import Iterator

from traces.call import Call, ahead, all_at_once
from traces.network import SENTENCES
from traces.sources import Format
from traces.trace import Trace


def traces() -> Iterator[Trace]:
    """Return them."""
    yield (
        Call("conversation", 16, "sentences in turn, frames without a break")
        .mic(speech=((0.5, 3), (7, 9.5)))
        .say(3.2, 3.4)
        .say(10, 4)
        .trace()
    )
    yield (
        Call("conversation-24k", 16, "the same, all at the recording's rate")
        .mic(speech=((0.5, 3), (7, 9.5)), form=Format(24_000))
        .say(3.2, 3.4)
        .say(10, 4)
        .trace()
    )
    yield (
        Call("both-at-once", 10, "user and bot speak at the same time")
        .mic(speech=SENTENCES)
        .say(1, 3)
        .say(5, 4)
        .trace()
    )
    yield (
        Call("ends-in-silence", 8, "the last 2 s nobody sends anything")
        .mic(speech=((0.5, 5.9),), end=6)
        .trace()
    )
    yield (
        Call("starts-in-silence", 9, "the first 3 s nobody sends anything")
        .mic(start=3)
        .say(5, 2)
        .trace()
    )
    yield (
        Call("mute", 12, "nothing is sent for 2 s, and again for 0.5 s")
        .mic(muted=((3, 5), (8, 8.5)))
        .say(4, 3)
        .trace()
    )
    yield (
        Call("mute-in-bot-speech", 12, "the user is muted while the bot speaks")
        .mic(muted=((2, 7),))
        .say(2.2, 4.4)
        .trace()
    )
    yield (
        Call("frames-only-in-speech", 13, "a source that sends nothing in pauses")
        .mic(muted=((0, 0.6), (3.1, 3.9), (7.2, 8.4), (11.4, 13)))
        .trace()
    )
    yield (
        Call("long-silence", 75, "60 s without a frame of anybody's")
        .mic(speech=((0.5, 4), (66, 73)), muted=((4, 65),))
        .say(1, 2)
        .say(67, 3)
        .trace()
    )
    yield (
        Call("long-silent-frames", 75, "60 s of silent frames")
        .mic(speech=((0.5, 4), (66, 73)))
        .say(1, 2)
        .say(67, 3)
        .trace()
    )
    yield Call("no-user", 9, "only the bot speaks").say(1, 3).say(5, 3).trace()
    yield (
        Call("no-user-unpaced", 9, "only the bot, unpaced").say(1, 5, handover=all_at_once).trace()
    )
    yield Call("no-bot", 9, "only the user speaks").mic(speech=SENTENCES).trace()
    yield Call("nobody", 6, "nothing at all").trace()
    yield (
        Call("user-joins-late", 10, "the user's first frame comes after 4 s")
        .mic(start=4, speech=((4.2, 9),))
        .say(1, 2)
        .say(6, 2)
        .trace()
    )
    yield (
        Call("two-microphones", 8, "two users speak at once for 2 s")
        .mic("user", speech=((1, 5),))
        .mic("user-2", speech=((3, 7),))
        .trace()
    )
    yield (
        Call("three-come-and-go", 14, "three microphones; two join and one leaves in mid-call")
        .mic("user", speech=((0.5, 5),), end=6)
        .mic("user-2", speech=((3, 8), (9, 13)), start=2.5, form=Format(24_000))
        .mic("user-3", speech=((6, 12),), start=5.5, end=12.5, form=Format(48_000))
        .say(2, 3)
        .trace()
    )
    yield (
        Call("paused-recording", 12, "recording is paused for 3 s in mid-speech", in_pipecat=False)
        .mic()
        .say(2, 6)
        .pause(4, 7)
        .trace()
    )
    yield (
        Call("blocks-of-1s", 8, "8 s in blocks of 1 s, continuous speech", block_seconds=1.0)
        .mic(form=Format(24_000))
        .say(0.5, 7)
        .trace()
    )
    yield (
        Call("one-second-frames", 8, "frames of 1 s, continuous speech")
        .mic(form=Format(24_000, frame=1.0))
        .trace()
    )
    yield (
        Call("one-second-frames-both", 9, "frames of 1 s; the bot's as fast as they come")
        .mic(form=Format(16_000, frame=1.0))
        .say(2, 5, chunk=1.0, handover=ahead(30))
        .trace()
    )
