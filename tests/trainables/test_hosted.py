"""What Tune sees of a trial, over stand-ins for Ray's actors: what a remote call gives is fetched, or raised."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import RayActorError

from trainables import hosted
from trainables.hosted import HostedTrial
from trainables.journal import Ending

KNOBS = {"rank": 4}


class Remote:
    """An actor's handle: each call of a method gives the next of its answers, and the last one from then on."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.calls = answers, []

    def __getattr__(self, name: str) -> Any:
        actor = self

        class Method:
            def remote(self, *given: Any) -> Any:
                actor.calls.append((name, *given[1:]))
                told = actor.answers.get(name, [None])
                return told.pop(0) if len(told) > 1 else told[0]

        return Method()


@pytest.fixture
def trial(monkeypatch):
    """A trial whose host answers `advance` with these, one after the other."""

    def fetch(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(hosted.ray, "get", fetch)
    monkeypatch.setattr(hosted, "WAIT_S", 0.0)

    def make(*answers: Any, deaths: int = 3, **more: Any) -> HostedTrial:
        host = Remote(advance=list(answers), **more)
        made = HostedTrial.__new__(HostedTrial)
        made.config, made._trial_info = dict(KNOBS), None
        made.setup(made.config, pool=Remote(assign=[host]), worst={"accuracy": 0.0}, deaths=deaths)
        return made

    return make


def test_metrics_are_those_of_the_host(trial) -> None:
    made = trial({"accuracy": 0.5, "done": False}, {"accuracy": 0.75, "done": True})
    assert made.step() == {"accuracy": 0.5, "done": False, "replayed": False} and not made.over
    assert made.step()["accuracy"] == 0.75 and made.over


def test_one_that_is_over_is_answered_from_its_ending(trial) -> None:
    made = trial(Ending("k", KNOBS, {"accuracy": 0.25}))
    assert made.step() == {"accuracy": 0.25, "stopped": False, "done": True, "replayed": True}


def test_one_that_failed_gets_the_worst_value_and_is_done(trial) -> None:
    told = trial(Ending("k", KNOBS, message="rank 512 is too large", kind="infeasible")).step()
    assert told == {"accuracy": 0.0, "failed": True, "done": True, "replayed": True}


def test_after_the_death_of_its_host_it_asks_again(trial) -> None:
    made = trial(RayActorError(), {"accuracy": 0.5, "done": True}, ready=[RayActorError(), {}])
    assert made.step()["accuracy"] == 0.5 and made.deaths == 1
    assert [name for name, *_ in made.host.calls] == ["advance", "ready", "ready", "advance"]


def test_a_host_that_dies_too_often_is_given_up(trial) -> None:
    told = trial(RayActorError(), deaths=2).step()
    assert told["failed"] and told["kind"] == "failed" and "its host died 3 times" in told["message"]


def test_a_host_that_was_ended_for_memory_is_tried_with_half_the_batch_and_then_given_up(trial, monkeypatch) -> None:
    kills = iter(range(100))
    monkeypatch.setattr(hosted, "oom_kills", lambda: next(kills))
    made = trial(RayActorError())
    told = made.step()
    assert told["kind"] == "infeasible" and "want of memory" in told["message"]
    assert [given[-1] for name, *given in made.host.calls if name == "advance"] == [0, 1]


def test_another_configuration_puts_an_unfinished_one_aside(trial) -> None:
    made = trial({"accuracy": 0.5, "done": False})
    made.step()
    assert made.reset_config({"rank": 8}) and made.config == {"rank": 8}
    assert ("end",) in made.host.calls
