"""The variant: options, intervals, accounting, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from trainables.decode import mean_loss
from trainables.lelora.policy import Outcome
from trainables.lelora.rewards import Baseline
from trainables.variants.core.config import AdapterConfig, Surroundings
from trainables.variants.core.export import exported_adapter
from trainables.variants.core.snapshot import fingerprint_tensors
from trainables.variants.core.tiny import attached, make_base, make_batches, outputs, train
from trainables.variants.lelora import LeLora


class Recorder:
    """A strategist that notes what it is asked and answers with one strategy for all."""

    def __init__(self, choice: tuple[int, int] | None = (1, 0)) -> None:
        self.choice, self.requests = choice, []  # type: ignore[var-annotated]

    def exchange(self, request: Any) -> Any:
        self.requests.append(request)
        return None if self.choice is None else np.array([self.choice] * len(request.settings.layers))

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Any) -> None:
        pass


def recorded(recorder: Recorder, **extra: Any) -> LeLora:
    variant = attached("lelora", extra=extra)
    variant.strategist = recorder
    return variant


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("dimensions", "0,2", "whole numbers up to the rank, which is 4"),
        ("dimensions", "two", "use auto, max"),
        ("positions", "top", "use all, or some of primary, middle, minor"),
        ("policy", "none", "per_trial, shared, random"),
        ("reward", "l3", "both, l1, l2, per_matrix"),
        ("reward_every", 0, "at least 1"),
        ("policy_rate", -1.0, "use 0 or a number above 0"),
        ("reward_alpha", -1.0, "use 0 or a number above 0"),
    ],
)
def test_impossible_options_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"variant lelora: option {option} is .*{message}"):
        attached("lelora", extra={option: value})


def test_one_call_per_interval_with_the_advantage_of_the_interval_before() -> None:
    recorder = Recorder()
    variant = recorded(recorder, reward_every=3, reward_alpha=0.5)
    losses = []
    original = variant.before_step

    def watch(step: int) -> None:
        if step % 3 == 0:
            losses.append(mean_loss(variant.module, variant.validation))
        original(step)

    variant.before_step = watch  # type: ignore[method-assign]
    train(variant, make_batches(), 16)
    assert len(recorder.requests) == 6
    assert [request.first for request in recorder.requests] == [True] + [False] * 5
    # Nothing to learn from at the start, nor from the first three costs, which only say what is usual.
    assert [request.outcome is None for request in recorder.requests] == [True] * 4 + [False] * 2
    usual = Baseline()
    for k in (1, 2, 3):
        usual.advantage(losses[k] + 0.5 * (losses[k] - losses[k - 1]))
    for k in (4, 5):
        outcome = recorder.requests[k].outcome
        assert outcome.advantage == pytest.approx(usual.advantage(losses[k] + 0.5 * (losses[k] - losses[k - 1])))
        assert np.array_equal(outcome.features, recorder.requests[k - 1].features)
    assert not np.array_equal(recorder.requests[2].features, recorder.requests[0].features)  # current singular values


def test_preset_paper_rewards_every_step_and_random_never() -> None:
    for extra, outcomes, requests in (
        ({"preset": "paper"}, 3, 7),
        ({"preset": "paper", "reward": "per_matrix"}, 5, 7),
        ({"preset": "paper", "reward_every": 2}, 0, 4),
        ({}, 0, 1),
        ({"preset": "paper", "dimensions": "max", "positions": "minor"}, 0, 7),  # nothing to choose
        ({"policy": "random", "reward_every": 1}, 0, 7),
    ):
        recorder = Recorder((0, 0) if "positions" in extra else (1, 0))
        train(recorded(recorder, **extra), make_batches(), 7)
        assert len(recorder.requests) == requests
        assert sum(request.outcome is not None for request in recorder.requests) == outcomes


def test_a_reward_per_matrix_comes_as_an_advantage_of_each() -> None:
    variant = recorded(Recorder((2, 0)), reward_every=1, reward="per_matrix")
    train(variant, make_batches(), 4)
    outcome = variant.strategist.requests[-1].outcome
    assert outcome.advantage.shape == (14,) and np.isfinite(outcome.advantage).all() and outcome.advantage.any()


def test_strategies_stay_where_the_policy_gives_no_answer() -> None:
    recorder = Recorder((2, 1))
    variant = recorded(recorder, reward_every=1)
    train(variant, make_batches(), 1)
    recorder.choice = None
    train(variant, make_batches(), 2, first_step=1)
    assert (variant.choice == (2, 1)).all()
    fresh = recorded(Recorder(None))
    train(fresh, make_batches(), 1)
    assert (fresh.choice >= 0).all()


def test_trials_share_a_key_only_under_policy_shared() -> None:
    keys, seeds = {}, set()
    for policy in ("shared", "per_trial"):
        for trial in ("a", "b"):
            variant = LeLora()
            config = AdapterConfig(4, 4.0, seed=len(trial), extra={"policy": policy})
            variant.attach(make_base(), config, make_batches(), Surroundings(trial=trial))
            recorder = variant.strategist = Recorder()
            variant.before_step(0)
            keys[policy, trial] = recorder.requests[0].key
            seeds.add((trial, recorder.requests[0].seed))
    assert keys["shared", "a"] == keys["shared", "b"] and len(seeds) == 2  # but not what they draw
    assert keys["per_trial", "a"] != keys["per_trial", "b"]


def test_a_policy_of_an_earlier_run_is_begun_from(tmp_path: Path) -> None:
    first = attached("lelora")
    policy = first.strategist.policy
    for seed in range(3):
        policy.update([Outcome(first.features, policy.choose(first.features, seed), 1.0)])
    save_file(policy.state(), tmp_path / "policy.safetensors")
    extra = {"policy_from": str(tmp_path / "policy.safetensors")}
    second = attached("lelora", extra=extra)
    assert torch.equal(second.strategist.policy.state()["parameters"], policy.state()["parameters"])
    assert second.settings.digest() != first.settings.digest()
    with pytest.raises(ValueError, match=r"option policy_from is .* of other matrices or candidates"):
        attached("lelora", extra={**extra, "positions": "minor"})
    with pytest.raises(ValueError, match="option policy_from is 'nowhere': use a file of a policy"):
        attached("lelora", extra={"policy_from": "nowhere"})


def test_touched_parameters_are_counted_per_step_and_in_total() -> None:
    recorder = Recorder((1, 0))  # r = 2 of {0, 2, 4}, primary
    variant = recorded(recorder, reward_every=1)
    one = sum(matrix.rows + matrix.columns + 1 for matrix in variant.matrices)
    train(variant, make_batches(), 1)
    assert variant.figures() == {"touched_per_step": 2 * one, "touched_parameters": 2 * one}
    recorder.choice = (2, 2)
    train(variant, make_batches(), 1, first_step=1)
    assert variant.figures() == {"touched_per_step": 3 * one, "touched_parameters": 6 * one}
    recorder.choice = (0, 0)
    train(variant, make_batches(), 2, first_step=2)  # nothing is trained, nothing breaks
    assert variant.figures() == {"touched_per_step": 1.5 * one, "touched_parameters": 6 * one}


@pytest.mark.parametrize("reward", ["both", "per_matrix"])
def test_run_with_rewards_resumes_to_the_same_bits_in_the_middle_of_an_interval(tmp_path: Path, reward: str) -> None:
    def start() -> Any:
        variant = LeLora()
        config = AdapterConfig(4, 4.0, 0.0, 5e-3, extra={"reward_every": 2, "reward": reward})
        variant.attach(make_base(), config, make_batches(), Surroundings(trial="t", log_folder=tmp_path))
        return variant, variant.make_optimizer()

    whole, optimizer = start()
    train(whole, make_batches(), 9, optimizer)
    first, optimizer = start()
    train(first, make_batches(), 5, optimizer)
    state, moments = first.state(), optimizer.state_dict()
    second, optimizer = start()
    second.load_state(state)
    optimizer.load_state_dict(moments)
    train(second, make_batches(), 4, optimizer, first_step=5)
    assert fingerprint_tensors(second.state()) == fingerprint_tensors(whole.state())
    second.detach()
    assert sorted(set(pd.read_parquet(tmp_path / "t.parquet")["step"])) == [0, 2, 4, 6, 8]


def test_lora_has_at_most_twice_the_rank_touched_and_larger_changes_are_saved_as_weights(tmp_path: Path) -> None:
    recorder = Recorder((2, 0))
    variant = recorded(recorder, reward_every=1)
    train(variant, make_batches(), 1)
    plain = variant.to_lora()
    assert plain is not None and {plain.rank(name) for name in plain.factors} == {8}
    small = variant.save_adapter(tmp_path / "small", "base")
    assert (small / "adapter_config.json").is_file()
    for step, position in enumerate((1, 2), start=1):
        recorder.choice = (2, position)
        train(variant, make_batches(), 1, first_step=step)
    plain = variant.to_lora()
    assert plain is not None and {plain.rank(name) for name in plain.factors} == {16, 24}
    large = variant.save_adapter(tmp_path / "large", "base")
    assert (large / "tuned_weights.safetensors").is_file()
    batch = make_batches()[0]
    learned = outputs(variant.module, batch)
    with exported_adapter(make_base(), large) as served:
        assert (outputs(served, batch) - learned).abs().max() < 1e-4
    base = make_base()
    with torch.no_grad():
        for name in plain.factors:
            base.get_submodule(name).weight += plain.delta(name)
    assert (outputs(base, batch) - learned).abs().max() < 1e-4


def test_validation_loss_is_per_completion_token_and_leaves_the_mode() -> None:
    base, batches = make_base(), make_batches(2)
    for batch in batches:
        batch["labels"] = batch["labels"].clone()
        batch["labels"][:, :7] = -100
    expected = np.mean([base(**batch).loss.item() for batch in batches])
    base.train()
    assert mean_loss(base, batches) == pytest.approx(expected, rel=1e-5)
    assert base.training
    assert np.isnan(mean_loss(base, []))
