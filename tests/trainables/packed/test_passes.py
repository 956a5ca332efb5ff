from __future__ import annotations

import math

import pytest
import torch

from trainables.packed.passes import make_pass

PAD = 0
SETTINGS = {"micro_batch_tokens": 80, "samples": 200}
STEPS = 6


def state_of(run) -> dict[str, torch.Tensor]:
    return run.variant.state()


def with_neighbours(make_run, trunk, knobs, neighbours, meddle=None):
    """Losses and adapter of a trial after some steps between two neighbours that never finish one."""
    runs = [make_run(neighbours[0], **SETTINGS), make_run(knobs, **SETTINGS), make_run(neighbours[1], **SETTINGS)]
    losses = []
    while runs[1].step < STEPS:
        if meddle is not None:
            meddle(runs[0], runs[2])
        shares = make_pass(trunk, runs, PAD)
        runs[1].took(shares[1], 0.0)
        losses.append(shares)
        for run in (runs[0], runs[2]):
            if meddle is None:
                run.took(shares[runs.index(run)], 0.0)
            else:  # as if none of its steps had happened; its next pass is of the same rows
                run.repeat_step()
    return [own for _, own, _ in losses], state_of(runs[1]), losses


def poison(*runs) -> None:
    for run in runs:
        for parameter in run.parameters:
            parameter.data.fill_(math.nan)


@pytest.mark.parametrize(
    "variant", ["lora", "dora", *(pytest.param(name, marks=pytest.mark.real) for name in ("pissa", "adalora", "mora"))]
)
def test_a_trial_has_the_same_bits_whatever_its_neighbours_are(make_run, trunk, train_rows, variant) -> None:
    # The neighbours' rows are of one length: the passes have the same shape throughout.
    rows = [{**r, "prompt_ids": r["prompt_ids"][:7], "response_ids": r["response_ids"][-2:]} for r in train_rows]
    assert {len(row["prompt_ids"]) for row in rows} == {7}

    def make(knobs, **settings):
        return make_run(knobs, rows=train_rows if knobs["batch_size"] == 3 else rows, **settings)

    trial = {"variant": variant, "batch_size": 3}
    some = [{"variant": "lora", "batch_size": 2}, {"variant": "dora", "batch_size": 4}]
    others = [{"variant": "olora", "rank": 7, "batch_size": 2}, {"variant": "mora", "batch_size": 4, "dropout": 0.5}]
    losses, state, _ = with_neighbours(make, trunk, trial, some)
    for neighbours, meddle in ((others, None), (some, poison), (some, lambda *runs: None)):
        again, same, every = with_neighbours(make, trunk, trial, neighbours, meddle)
        assert again == losses
        assert all(torch.equal(same[name], tensor) for name, tensor in state.items())
        assert all(math.isnan(shares[0]) for shares in every) == (meddle is poison)


def test_blocks_that_are_computed_again_give_the_same_bits(make_run, trunk, train_packed) -> None:
    # With dropout, in factors and in a layer of its own: what is drawn on the way there is drawn again on the way back.
    kinds = [{"dropout": 0.2}, {"variant": "dora", "batch_size": 6, "dropout": 0.2}]
    found = []
    for again in (False, True):
        trunk.recompute(again)
        runs = [make_run(kind, **SETTINGS) for kind in kinds]
        found.append((train_packed(runs, 3), state_of(runs[1])))
    trunk.recompute(False)
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[1][1][name], tensor) for name, tensor in found[0][1].items())
    assert not trunk.module.training


def test_trials_whose_rows_share_sequences_learn_what_they_learn_alone_without(make_run, train_packed) -> None:
    kinds = [{"dropout": 0.0}, {"variant": "dora", "batch_size": 6, "dropout": 0.0}]
    alone = [make_run(kind, alone=True, **SETTINGS) for kind in kinds]
    expected = [[run.train_step() for _ in range(3)] for run in alone]
    runs = [make_run(kind, pack_sequences=True, **SETTINGS) for kind in kinds]
    for one, other in zip(train_packed(runs, 3), expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
