"""Traces: a bot that sends faster than is heard, and is interrupted."""

from __future__ import annotations

from collections.abc import Iterator

from traces.call import Call, ahead, all_at_once, as_it_plays
from traces.trace import Trace


def traces() -> Iterator[Trace]:
    """Return them."""
    yield (
        Call("interrupted-unpaced", 6, "5 s of bot speech, sent at once, interrupted after 1 s")
        .mic(speech=((2, 3.5),))
        .say(1, 5, chunk=0.02, handover=all_at_once, interrupted=2)
        .trace()
    )
    yield (
        Call("sentences-unpaced", 14, "3 sentences, each sent at once, with pauses between")
        .mic(speech=((12.5, 13.5),))
        .say(0.5, 3, chunk=0.02, handover=all_at_once)
        .say(4.2, 4, chunk=0.02, handover=all_at_once)
        .say(9, 3, chunk=0.02, handover=all_at_once)
        .trace()
    )
    yield (
        Call("interrupted-sentences", 14, "3 sentences sent at once; the second is cut off")
        .mic(speech=((6, 8),))
        .say(0.5, 3, chunk=0.02, handover=all_at_once)
        .say(4.2, 4, chunk=0.02, handover=all_at_once, interrupted=6)
        .say(9, 3, chunk=0.02, handover=all_at_once)
        .trace()
    )
    yield (
        Call("sentences-queued", 12, "3 sentences sent within 1 s, heard one after the other")
        .mic(speech=((10, 11.5),))
        .say(1, 3, chunk=0.02, handover=all_at_once)
        .say(1.4, 2, chunk=0.02, handover=all_at_once, plays_at=4)
        .say(1.8, 3, chunk=0.02, handover=all_at_once, plays_at=6)
        .trace()
    )
    yield (
        Call("sentences-queued-interrupted", 10, "the same, cut off in the second sentence")
        .mic(speech=((5, 8),))
        .say(1, 3, chunk=0.02, handover=all_at_once)
        .say(1.4, 2, chunk=0.02, handover=all_at_once, plays_at=4, interrupted=5, told=False)
        .say(1.8, 3, chunk=0.02, handover=all_at_once, plays_at=6, interrupted=5)
        .say(6.5, 2, chunk=0.02, handover=all_at_once)
        .trace()
    )
    yield (
        Call("unpaced-500ms-chunks", 9, "unpaced speech in chunks of 500 ms")
        .mic(speech=((6.5, 8.5),))
        .say(1, 5, chunk=0.5, handover=all_at_once)
        .trace()
    )
    yield (
        Call("one-chunk-sentences", 9, "sentences of one chunk each, sent at once")
        .mic(speech=((6.5, 8.5),))
        .say(1, 0.8, chunk=0.8, handover=all_at_once)
        .say(2.5, 1.2, chunk=1.2, handover=all_at_once)
        .say(4.2, 1, chunk=1, handover=all_at_once, interrupted=4.9)
        .trace()
    )
    yield (
        Call("queue-of-1s", 10, "a transport that runs up to 1 s ahead")
        .mic(speech=((7.5, 9.5),))
        .say(1, 6, chunk=0.02, handover=ahead(1.0))
        .trace()
    )
    yield (
        Call("queue-of-1s-interrupted", 12, "up to 1 s ahead; cleared at an interruption")
        .mic(speech=((3.5, 5),))
        .say(1, 6, chunk=0.02, handover=ahead(1.0), interrupted=3.7)
        .say(5.5, 4, chunk=0.02, handover=ahead(1.0), interrupted=8)
        .trace()
    )
    yield (
        Call("paced-40ms", 10, "bot in chunks of 40 ms, handed on when they have been played")
        .mic(speech=((8, 9.5),))
        .say(1, 3)
        .say(5, 2.6)
        .trace()
    )
    yield (
        Call("paced-40ms-as-it-plays", 10, "bot in chunks of 40 ms, handed on as they begin")
        .mic(speech=((8, 9.5),))
        .say(1, 3, handover=as_it_plays)
        .say(5, 2.6, handover=as_it_plays)
        .trace()
    )
    yield (
        Call("paced-40ms-interrupted", 9, "bot in chunks of 40 ms, interrupted twice")
        .mic(speech=((2.9, 4), (6, 7)))
        .say(1, 5, interrupted=3.06)
        .say(4.5, 4, interrupted=6.21)
        .trace()
    )
    call = Call("rapid-interruptions", 10, "8 sentences of 3 s, each cut off after 0.7 s")
    call.mic(speech=((0.2, 0.9),))
    for n in range(8):
        start = 0.5 + 1.1 * n
        call.say(start, 3, chunk=0.02, handover=all_at_once, interrupted=start + 0.7)
    yield call.trace()
    yield (
        Call("synthesis-falls-behind", 11, "the bot has nothing to play for 0.5 s in a sentence")
        .mic(speech=((8, 10),))
        .say(1, 2)
        .say(3.5, 3)
        .trace()
    )
    yield (
        Call("played-late-start", 9, "sent at once, played 0.3 s later; the transport tells")
        .mic(speech=((7, 8.5),))
        .say(1, 5, chunk=0.02, handover=all_at_once, plays_at=1.3, played_every=0.1)
        .trace()
    )
    yield (
        Call("played-late-interrupted", 9, "the same, interrupted after 2 s")
        .mic(speech=((3, 5),))
        .say(
            1, 5, chunk=0.02, handover=all_at_once, plays_at=1.3, played_every=0.1, interrupted=3.3
        )
        .say(5.5, 2, chunk=0.02, handover=all_at_once, plays_at=5.7, played_every=0.1)
        .trace()
    )
