"""What a trial does when its host dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from ray.exceptions import ActorUnavailableError

from trainables.exhausted import ended_for_memory
from trainables.hosted import HostedTrial, await_host, last_line


class Answer:
    """A remote method that answers at once, or raises what is the next in a list."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.calls: list[tuple] = []

    def remote(self, *arguments):
        self.calls.append(arguments)
        return arguments


class Host:
    def __init__(self, errors: list[Exception]) -> None:
        self.advance = Answer(errors)
        self.ready = Answer([])


@pytest.fixture
def trial(monkeypatch) -> Callable[[Host, int], HostedTrial]:
    """A trial on a stand-in for a host."""
    import ray

    def make(host: Host, deaths: int) -> HostedTrial:
        def get(call):
            if call and host.advance.errors:
                raise host.advance.errors.pop(0)
            return {"done": True, "accuracy": 0.5}

        monkeypatch.setattr(ray, "get", get)
        made = HostedTrial.__new__(HostedTrial)
        made.host, made.owner, made.config, made._trial_info = host, "owner", {}, None
        made.worst, made.most_deaths, made.over, made.deaths, made.exhausted = {"accuracy": 0.0}, deaths, False, 0, 0
        made.most_exhausted = 1
        return made

    return make


def gone(why: str = "The actor is temporarily unavailable: IOError: The actor is restarting.") -> ActorUnavailableError:
    return ActorUnavailableError(why, None)


def test_a_host_that_died_is_asked_again(trial) -> None:
    host = Host([gone(), gone()])
    assert trial(host, 3).step()["accuracy"] == 0.5
    assert [call[3] for call in host.advance.calls] == [0, 0, 0]


def test_a_host_that_dies_too_often_fails_the_trial_in_one_line(trial) -> None:
    ended = trial(Host([gone()] * 5), 2).step()
    assert (ended["failed"], ended["kind"], ended["accuracy"]) == (True, "failed", 0.0)
    assert ended["message"] == "its host died 3 times; the last time: its process was ended from outside"


def test_a_host_that_was_ended_for_memory_is_asked_for_half_and_the_trial_is_infeasible_after_that(trial) -> None:
    low = gone("Task was killed due to the node running low on memory.")
    host = Host([low, low])
    ended = trial(host, 3).step()
    assert [call[3] for call in host.advance.calls] == [0, 1]
    assert ended["kind"] == "infeasible" and "for want of memory, with half the micro-batch too" in ended["message"]
    assert ended_for_memory(low) and not ended_for_memory(gone())


@pytest.mark.real
def test_a_host_that_dies_while_it_loads_its_model_is_given_up(tmp_path, tiny_model, ray_local, monkeypatch) -> None:
    import ray

    from trainables.host import MOST_LOADINGS, start_hosts
    from trainables.protocols import TrainSettings, TrialSetup
    from trainables.testing import ExactMatch

    setup = TrialSetup(
        str(tiny_model), ExactMatch(), TrainSettings(1), [], [], str(tmp_path), resolve_model=end_process
    )
    with pytest.raises(ray.exceptions.RayActorError) as caught:
        start_hosts(setup, 1)
    assert last_line(caught.value).endswith(f"a host was ended {MOST_LOADINGS} times while it loaded the model, "
                                            "as happens where memory runs out")  # fmt: skip
    with pytest.raises(ray.exceptions.RayActorError):
        await_host(ray.remote(Born).remote())


def end_process(name: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return name


class Born:
    """An actor that cannot be made."""

    def __init__(self) -> None:
        raise ValueError("dead")

    def ready(self) -> None: ...
