"""Whatever happens to processes, hosts and requests: the audio, all of it and only once.

Random lives of recordings, compared with a model after everything has been recovered. Nothing
waits for time, and only retries sleep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from whole_life_draws import Death
from whole_life_machine import WholeLife


def lives(examples: int, steps: int, *, random: bool) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not random,
        database=None,
        suppress_health_check=list(HealthCheck),
        # Not shrunk, which takes long: what happened in a life that fails is told with the error.
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
    )


def begun(steps: int, outputs: list[str]) -> WholeLife:
    """Return a life in which both have spoken for some tenths of a second, and a turn begins."""
    life = WholeLife()
    life.begin(rate=4000, outputs=outputs, tracks=["user", "bot"])
    life.flush(death=None)
    for _ in range(steps // 10):
        life.speak(who={"user", "bot"}, steps=10)
        life.flush(death=None)
    life.mark(what="start_turn", who={"user"})
    return life


def stops(life: WholeLife, death: Death) -> bool:
    life.stop(death=death, discard=False, wait=True)
    return life.died


def recovers(life: WholeLife, death: Death) -> bool:
    life.crash()
    life.recover(death=death)
    return life.died


def rescues(life: WholeLife, death: Death) -> bool:
    life.lose_host()
    return takes_over(life, death)


def takes_over(life: WholeLife, death: Death | None) -> bool:
    life.take_over(death=death, kind="fail", op="")
    return life.died


def attaches(life: WholeLife, death: Death) -> bool:
    takes_over(life, None)
    life.speak(who={"user"}, steps=12)
    return recovers(life, death)


def attaches_and_is_rescued(life: WholeLife, death: Death) -> bool:
    died = attaches(life, death)
    takes_over(life, None)
    return died


def attaches_and_is_lost(life: WholeLife, death: Death) -> bool:
    died = attaches(life, death)
    life.lose_host()
    return died


WAYS = [
    stops,
    recovers,
    rescues,
    takes_over,
    attaches,
    attaches_and_is_rescued,
    attaches_and_is_lost,
]
QUICK = [
    (stops, 35),
    (recovers, 35),
    (rescues, 0),
    (attaches_and_is_rescued, 35),
    (attaches_and_is_lost, 35),
]
"""What the default suite tries, after the requests' effects; the others are for long runs."""


def every_way() -> list[Any]:
    cases = []
    for way in WAYS:
        for steps in (0, 35):
            for after in (False, True):
                quick = after and (way, steps) in QUICK
                name = f"{way.__name__}-{steps}-{'after' if after else 'before'}"
                marks = [] if quick else [pytest.mark.soak]
                cases.append(pytest.param(way, steps, after, id=name, marks=marks))
    return cases


@pytest.mark.parametrize(("way", "steps", "after"), every_way())
def test_who_dies_at_any_request_leaves_what_others_can_finish(
    way: Callable[[WholeLife, Death], bool], steps: int, after: bool
) -> None:
    failed, requests, died = {}, 0, True
    while died:
        requests += 1
        life = begun(steps, ["stereo"])
        try:
            try:
                died = way(life, (requests, after))
            finally:
                life.teardown()
        except AssertionError as error:
            failed[requests] = str(error)[:200]
    assert not failed
    assert requests > 5


def test_whatever_happens_nothing_is_lost_or_there_twice() -> None:
    run_state_machine_as_test(WholeLife, settings=lives(40, 20, random=False))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_whatever_happens_nothing_is_lost_or_there_twice_in_many_lives() -> None:
    run_state_machine_as_test(WholeLife, settings=lives(2000, 40, random=True))
