"""What is drawn for a random life: who speaks, which requests go wrong, and when who dies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from hypothesis import currently_in_test_context, event
from hypothesis import strategies as st
from whole_life_model import SOURCES

OPS = [
    "put",
    "put_manifest",
    "read",
    "get",
    "head",
    "delete",
    "create_multipart",
    "upload_part",
    "list_parts",
    "complete_multipart",
    "abort_multipart",
    "list_objects",
    "list_uploads",
    "list_level",
]
WRITES = ["put", "put_manifest", "delete", "create_multipart", "upload_part", "complete_multipart"]
REFUSABLE = ["put", "put_manifest", "create_multipart", "upload_part", "complete_multipart"]
Death = tuple[int, bool]

names = st.sets(st.sampled_from(sorted(SOURCES)), min_size=1)
deaths = st.one_of(st.just(None), st.tuples(st.integers(1, 40), st.booleans()))
speakers = st.sampled_from([["user", "bot"], ["user"], ["user", "guest", "bot"]])
outputs = st.sampled_from([["stereo"], ["stereo", "tracks"], ["mono", "turns"]])


def told(what: str) -> None:
    """Count it in Hypothesis's statistics."""
    if currently_in_test_context():
        event(what)


def when(holds: Callable[[Any], bool]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Do nothing unless something holds.

    Not a precondition: what is drawn must not hang on which request a process died of, which may
    differ between two runs by the order in which requests go out.
    """

    def decorate(step: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(step)
        def maybe(self: Any, **drawn: Any) -> None:
            if holds(self):
                step(self, **drawn)

        return maybe

    return decorate
