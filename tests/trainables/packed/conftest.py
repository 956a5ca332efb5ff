"""Trials on a tiny base, to be trained alone or in passes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from trainables.testing import make_tiny_tokenizer, tokenised_rows

KNOBS = {"variant": "lora", "rank": 4, "alpha_ratio": 2.0, "learning_rate": 5e-3, "batch_size": 4, "dropout": 0.1}
PAD = 0


@pytest.fixture(scope="session")
def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="session")
def trunk(base):
    from trainables.packed.trunk import Trunk

    return Trunk(base)


@pytest.fixture(scope="session")
def train_rows() -> list[dict[str, Any]]:
    """Sums of several lengths."""
    rows = tokenised_rows(make_tiny_tokenizer(), 24)
    for index, row in enumerate(rows):
        row["prompt_ids"] = row["prompt_ids"] + row["prompt_ids"][: index % 5]
    return rows


@pytest.fixture
def make_run(base, trunk, train_rows):
    """A trial with some knobs; packed unless `alone`, with rows, settings and a trunk of its own where given."""
    from trainables.packed.run import PackedRun
    from trainables.packed.twin import twin
    from trainables.protocols import TrainSettings
    from trainables.run import TrialRun

    made: list[TrialRun] = []

    def make(knobs: dict[str, Any], *, alone: bool = False, rows: Any = None, over: Any = None, **settings: Any) -> Any:
        asked = TrainSettings(**{"samples": 400, "max_grad_norm": 0.5, **settings})
        configuration, train = KNOBS | knobs, train_rows if rows is None else rows
        model, shared = (base, trunk) if over is None else over
        if alone:
            run = TrialRun(twin(model), configuration, train, asked, pad_id=PAD)
            run.module.train()
        else:
            run = PackedRun(twin(model), configuration, train, asked, pad_id=PAD, trunk=shared)
        made.append(run)
        return run

    yield make
    for run in made:
        if run.optimizer is not None:
            run.close()


@pytest.fixture
def train_packed() -> Callable[..., list[list[float]]]:
    """Trains runs side by side, a pass with the next micro-batch of each; the losses of each one's steps."""
    from trainables.packed.passes import make_pass

    def train(runs: Sequence[Any], steps: int) -> list[list[float]]:
        losses: list[list[float]] = [[] for _ in runs]
        while any(run.step < steps for run in runs):
            going = [run for run in runs if run.step < steps]
            for run, loss in zip(going, make_pass(runs[0].trunk, going, PAD), strict=True):
                run.took(loss, 0.0)
                if not run.in_step:
                    losses[list(runs).index(run)].append(run.last_loss)
        return losses

    return train
