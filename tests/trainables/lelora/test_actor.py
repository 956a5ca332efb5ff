"""The policy actor: one for all trials, and one that may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.lelora.actor import LocalPolicy, RandomStrategies, RemotePolicy, Request
from trainables.lelora.policy import Outcome, PolicySettings, describe
from trainables.protocols import TrainSettings
from trainables.run import TrialRun
from trainables.testing import make_tiny_tokenizer, tokenised_rows
from trainables.variants.core.config import Surroundings

SETTINGS = PolicySettings((0, 1), ("q_proj", "q_proj"), (0, 2, 4), ("primary", "minor"))
FEATURES = describe([np.linspace(5, 1, 16), np.linspace(9, 2, 16)])


def ask(
    seed: int = 0, advantage: float | None = None, key: str = "trial", shared: bool = False, first: bool = False
) -> Request:
    """A request; with an advantage, the outcome of one fixed choice comes with it."""
    choice = np.array([[1, 0], [2, 1]])
    outcome = None if advantage is None else Outcome(FEATURES, choice, advantage)
    return Request(key, SETTINGS, FEATURES, seed, outcome, shared, first)


@pytest.fixture(scope="module")
def actor(ray_local, tmp_path_factory) -> Iterator[Any]:
    """One actor for all tests, each of which has its own keys: it is up, and restarting it is what takes long."""
    import ray

    from trainables.lelora.actor import start_policy

    folder = tmp_path_factory.mktemp("lelora") / "policies"
    actor = start_policy(folder, checkpoint_every_s=0.0, gather_s=1.0, keep=2)
    ray.get(actor.pid.remote())
    yield actor
    ray.kill(actor)


def kill(actor: Any) -> None:
    """Kills the actor's process and waits for the one that takes its place."""
    before = call(actor.pid)
    os.kill(before, signal.SIGKILL)
    while call(actor.pid) == before:
        time.sleep(0.05)


def wait_for(actor: Any) -> None:
    """Until it answers."""
    call(actor.pid)


def call(method: Any, *arguments: Any) -> Any:
    """The answer of an actor that may be restarting."""
    import ray

    deadline = time.monotonic() + 300
    while True:
        try:
            return ray.get(method.remote(*arguments))
        except ray.exceptions.RayActorError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_actor_answers_for_all_matrices_as_a_policy_in_process_does(actor) -> None:
    import ray

    local = LocalPolicy(SETTINGS, FEATURES)
    for seed, advantage in enumerate((None, 1.0, 2.0, -0.5)):
        answer = ray.get(actor.exchange.remote(ask(seed, advantage)))
        assert answer.shape == (2, 2)
        assert np.array_equal(answer, local.exchange(ask(seed, advantage)))
    assert ray.get(actor.updates.remote("trial")) == local.policy.updates == 3


def test_rewards_of_trials_that_share_a_policy_make_one_update(actor) -> None:
    import ray

    ray.get(actor.exchange.remote(ask(key="shared", shared=True)))
    ray.get([actor.exchange.remote(ask(i, float(i), "shared", shared=True)) for i in range(3)])
    assert ray.get(actor.updates.remote("shared")) == 1
    ray.get(actor.exchange.remote(ask(key="other")))
    assert ray.get(actor.updates.remote("other")) == 0


def test_a_trial_that_begins_anew_begins_with_a_new_policy_unless_it_is_shared(actor) -> None:
    import ray

    for key, shared in (("again", False), ("ours", True)):
        ray.get(actor.exchange.remote(ask(0, 1.0, key, shared)))
        ray.get(actor.exchange.remote(ask(key=key, shared=shared, first=True)))
        assert ray.get(actor.updates.remote(key)) == int(shared)


def test_policies_that_do_not_fit_in_memory_wait_on_disk(actor) -> None:
    import ray

    ray.get(actor.exchange.remote(ask(0, 1.0, "a")))
    before = ray.get(actor.parameters.remote("a"))
    for key in ("b", "c"):
        ray.get(actor.exchange.remote(ask(0, None, key)))
    assert ray.get(actor.parameters.remote("a")) is None
    ray.get(actor.exchange.remote(ask(0, None, "a")))
    assert np.array_equal(ray.get(actor.parameters.remote("a")), before)


@pytest.mark.real
def test_a_trial_whose_policy_is_killed_goes_on_and_its_rewards_count_again(actor, tiny_model, tmp_path) -> None:
    """The actor comes back with its checkpoint and learns on from there."""
    from transformers import AutoModelForCausalLM

    knobs = {"variant": "lelora", "rank": 4, "alpha_ratio": 1, "learning_rate": 1e-3, "batch_size": 4}
    run = TrialRun(
        AutoModelForCausalLM.from_pretrained(tiny_model).eval(),
        {**knobs, "reward_every": 2},
        tokenised_rows(make_tiny_tokenizer(), 40),
        TrainSettings(samples=56),
        pad_id=0,
        surroundings=Surroundings(actor=actor, trial="t", log_folder=tmp_path / "strategies"),
    )
    variant: Any = run.variant
    key = f"t-{variant.settings.digest()}"
    run.advance(36)  # steps 0 to 8: costs at steps 2, 4, 6 and 8, the first three of which say only what is usual
    before = call(actor.parameters, key)
    start = LocalPolicy(variant.settings, variant.features).policy.state()["parameters"].numpy()
    assert call(actor.updates, key) == 1 and not np.array_equal(before, start)
    kill(actor)
    # The actor has come back without the policy, and takes up the parameters of its last checkpoint.
    assert call(actor.parameters, key) is None
    answer = call(actor.exchange, Request(key, variant.settings, variant.features, 0))
    assert answer.shape == (len(variant.matrices), 2)
    assert np.array_equal(call(actor.parameters, key), before)
    os.kill(call(actor.pid), signal.SIGKILL)
    run.advance(44)  # an interval without a policy, or with one that has come back in between
    assert run.step == 11 and (variant.choice >= 0).all()
    wait_for(actor)
    run.advance(56)
    assert run.done and not run.diverged and run.step == 14
    assert not np.array_equal(call(actor.parameters, key), before)
    figures = run.metrics()
    assert 0 < figures["touched_per_step"] <= 4 * sum(m.rows + m.columns + 1 for m in variant.matrices)
    assert figures["touched_parameters"] <= figures["trainable_parameters"]
    run.close()
    assert (tmp_path / "strategies" / "t.parquet").is_file()


def test_a_trial_keeps_its_strategies_while_the_policy_does_not_answer(actor, monkeypatch, caplog) -> None:
    import ray

    from trainables.lelora import actor as module

    monkeypatch.setattr(module, "WAIT_S", 0.2)
    # No node has the resource: the actor waits to be started.
    silent = ray.remote(module.LeLoRAPolicyActor).options(num_cpus=0, resources={"none": 1}).remote("policies")
    policy = RemotePolicy(silent)
    assert policy.exchange(ask()) is None
    assert "the policy actor did not answer (GetTimeoutError" in caplog.text
    ray.kill(silent)  # for good
    deadline = time.monotonic() + 60
    while "the policy actor did not answer (ActorDiedError" not in caplog.text:
        assert policy.exchange(ask()) is None and time.monotonic() < deadline


def test_random_strategies_are_uniform_and_need_no_reward() -> None:
    drawn = np.stack([RandomStrategies().exchange(ask(seed)) for seed in range(600)])
    assert np.bincount(drawn[..., 0].ravel()) == pytest.approx([400] * 3, rel=0.15)
    assert np.bincount(drawn[..., 1].ravel()) == pytest.approx([600] * 2, rel=0.15)


_TWO_NODES = '''
import sys
from ray.cluster_utils import Cluster
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
from trainables.lelora.actor import start_policy

actor = start_policy(sys.argv[2])

def here(*_):
    return ray.get_runtime_context().get_node_id()

def train(folder, actor):
    """A trial, as a ModelHost on this node would run it."""
    from transformers import AutoModelForCausalLM
    from trainables.protocols import TrainSettings
    from trainables.run import TrialRun
    from trainables.testing import make_tiny_tokenizer, tokenised_rows
    from trainables.variants.core.config import Surroundings

    knobs = {"variant": "lelora", "rank": 4, "alpha_ratio": 1, "learning_rate": 1e-3, "batch_size": 4,
             "reward_every": 2}
    rows, model = tokenised_rows(make_tiny_tokenizer(), 40), AutoModelForCausalLM.from_pretrained(folder).eval()
    around = Surroundings(actor=actor, trial="far")
    run = TrialRun(model, knobs, rows, TrainSettings(samples=40), pad_id=0, surroundings=around)
    run.advance(40)
    return here(), f"far-{run.variant.settings.digest()}"

home = ray.get(actor.__ray_call__.remote(here))
(other,) = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != home]
task = ray.remote(train).options(scheduling_strategy=On(other, soft=False))
node, key = ray.get(task.remote(sys.argv[1], actor))
assert node == other != home
print("updates", ray.get(actor.updates.remote(key)))
'''


@pytest.mark.real
def test_a_trial_on_another_node_is_served(tiny_model, tmp_path) -> None:
    """In a process of its own, which may have a cluster of its own."""
    root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", _TWO_NODES, str(tiny_model), str(tmp_path / "policies")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    # Costs at steps 2, 4, 6 and 8, the first three of which say only what is usual.
    assert done.stdout.strip().splitlines()[-1:] == ["updates 1"], done.stderr[-2000:]
