"""What FFmpeg decodes: every container and codec it knows. The only file that decodes by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np

from recorder.imports.audio import broken
from recorder.layouts import Samples

HOLE_SECONDS = 0.03
"""A packet that is so much later than the one before ended leaves a hole. Less is rounding: WebM
has times of whole milliseconds."""


class AvAudio:
    """See `recorder.imports.audio.Audio`."""

    def __init__(self, name: str, container: av.container.InputContainer) -> None:
        self._name = name
        self._container = container
        self._stream = stream = container.streams.audio[0]
        self.sample_rate = int(stream.codec_context.sample_rate or 0)
        self.channels = int(stream.codec_context.channels or 0)
        self.codec = str(stream.codec_context.name)
        self.created = _created(container.metadata)
        self.claimed: int | None = None
        if stream.duration is not None and stream.time_base is not None:
            self.claimed = int(stream.duration * stream.time_base * self.sample_rate)
        self._frames = self._decoded()
        self._first = next(self._frames, None)
        at = None if self._first is None else self._first[0]
        self.start_seconds = at or 0.0
        if self.claimed is None and len(container.streams) == 1 and container.duration:
            until = container.duration / av.time_base  # on the file's own clock
            self.claimed = int((until - self.start_seconds) * self.sample_rate)

    @classmethod
    def open(cls, path: Path, name: str) -> AvAudio:
        """Open a file.

        Raises:
            UnreadableSource: FFmpeg does not know it, or there is no audio in it.
        """
        try:
            container = av.open(str(path), options={"protocol_whitelist": "file"})
        except (av.FFmpegError, ValueError) as error:
            raise broken(name, _said(error)) from error
        try:
            if not container.streams.audio:
                raise broken(name, "there is no audio in it")
            return cls(name, container)
        except BaseException:
            container.close()
            raise

    def _decoded(self) -> Iterator[tuple[float | None, Samples]]:
        """Yield each frame's time, if it has one, and its samples."""
        resampler = None
        try:
            for frame in self._container.decode(self._stream):
                if resampler is None:  # what the file's head does not tell, the first frame does
                    self.sample_rate = frame.sample_rate
                    self.channels = len(frame.layout.channels)
                    resampler = av.AudioResampler("s16", frame.layout, frame.sample_rate)
                at = None if frame.pts is None else float(frame.pts * (frame.time_base or 0))
                for whole in resampler.resample(frame):
                    pcm = whole.to_ndarray().reshape(-1, self.channels)
                    yield at, pcm.astype(np.int16, copy=False)
                    at = None
        except (av.FFmpegError, ValueError) as error:
            raise broken(self._name, _said(error)) from error

    def blocks(self) -> Iterator[tuple[int, Samples]]:
        """See `Audio.blocks`; about a second at a time, less before a hole."""
        kept: list[Samples] = []
        begun = end = 0
        frame = self._first
        while frame is not None:
            at, pcm = frame
            due = end if at is None else round((at - self.start_seconds) * self.sample_rate)
            if due - end > HOLE_SECONDS * self.sample_rate:
                if kept:
                    yield begun, np.concatenate(kept)
                kept, begun, end = [], due, due
            kept.append(pcm)
            end += len(pcm)
            if end - begun >= self.sample_rate:
                yield begun, np.concatenate(kept)
                kept, begun = [], end
            frame = next(self._frames, None)
        if kept:
            yield begun, np.concatenate(kept)

    def close(self) -> None:
        """See `Audio.close`."""
        self._container.close()


def _said(error: Exception) -> str:
    """Return what FFmpeg says, without the path, which is of a copy."""
    return str(getattr(error, "strerror", None) or error)


def _created(metadata: dict[str, str]) -> datetime | None:
    """Return a container's `creation_time`, as ISO 8601; one before 1970 was not set."""
    try:
        found = datetime.fromisoformat(metadata.get("creation_time", ""))
    except ValueError:
        return None
    aware = found if found.utcoffset() is not None else found.replace(tzinfo=UTC)
    return aware if aware.year > 1970 else None
