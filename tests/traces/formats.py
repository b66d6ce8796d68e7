"""Traces: rates, channels, encodings and sizes of frames."""

from __future__ import annotations

from collections.abc import Iterator

from traces.arrivals import stall
from traces.call import Call
from traces.sources import Format
from traces.trace import Trace

RATES = (8_000, 16_000, 24_000, 44_100, 48_000)


def traces() -> Iterator[Trace]:
    """Return them."""
    for rate in RATES:
        if rate != 24_000:
            yield (
                Call(f"resampled-{rate}", 2, f"2 s at {rate} Hz, to the last sample")
                .mic(form=Format(rate))
                .trace()
            )
    call = Call("rate-changes", 14, "8, 16, 24, 44.1 and 48 kHz in one call, in mid-speech")
    for index, rate in enumerate((*RATES, 16_000, 8_000)):
        call.mic(start=2.0 * index, end=2.0 * index + 2, form=Format(rate))
    yield call.trace()
    call = Call("rate-changes-bot", 9, "a bot whose sentences come at 24, 16 and 48 kHz")
    call.mic(speech=((7.5, 8.5),))
    for index, rate in enumerate((24_000, 16_000, 48_000)):
        call.say(0.5 + 2.2 * index, 1.8, form=Format(rate))
    yield call.trace()
    yield (
        Call("rate-change-in-a-stall", 9, "16 kHz becomes 24 kHz while the network stalls")
        .mic(end=3, arrival=stall(2.5, 0.8))
        .mic(start=3, form=Format(24_000), arrival=stall(2.5, 0.8))
        .trace()
    )
    yield (
        Call("stereo", 6, "stereo frames, both channels different")
        .mic(form=Format(24_000, channels=2))
        .say(1, 3, form=Format(24_000, channels=2))
        .trace()
    )
    yield (
        Call("channel-changes", 9, "mono, stereo, four channels and mono again")
        .mic(end=2)
        .mic(start=2, end=4, form=Format(channels=2))
        .mic(start=4, end=6, form=Format(channels=4))
        .mic(start=6)
        .trace()
    )
    yield (
        Call("odd-frames", 8, "frames of 1, 0, 333, 7 and 1000 samples")
        .mic(sizes=(1, 0, 333, 7, 1000))
        .trace()
    )
    yield (
        Call("10ms-frames-11025", 8, "110 samples at 11025 Hz")
        .mic(form=Format(11_025, frame=110 / 11_025))
        .trace()
    )
    for encoding in ("mulaw", "alaw"):
        yield (
            Call(f"telephony-{encoding}", 8, f"8 kHz {encoding}, sentences and a stall")
            .mic(
                speech=((0.5, 4), (4.6, 7.5)),
                form=Format(8000, encoding=encoding),  # type: ignore[arg-type]
                arrival=stall(2, 0.8),
            )
            .trace()
        )
