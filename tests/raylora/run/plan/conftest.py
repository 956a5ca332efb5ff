from __future__ import annotations

from dataclasses import replace

import pytest

from raylora.run.plan.cost import CostModel
from raylora.run.plan.memory import Shape
from raylora.spec import from_dict

SHAPE = Shape(parameters=135_000_000, layers=30, hidden=576, vocabulary=49_152, adapter_per_rank=305_280)


@pytest.fixture
def cost():
    """A made cost model: seconds per row to train on and to score."""

    def make(row_s: float = 0.1, score_s: float = 0.1, **changes) -> CostModel:
        model = CostModel(
            SHAPE, 100.0, fixed_s=0.0, token_s=row_s / 100, rank_s=0.0, rank_token_s=0.0, evaluation_row_s=score_s,
            attach_s=0.1, resident_gb=1.0, activation_token_gb=1e-3, overhead_s=0.5,
        )  # fmt: skip
        return replace(model, **changes)

    return make


@pytest.fixture
def spec():
    """A spec with a budget and dotted changes (`__` for the dot)."""

    def make(budget: str = "20m", **changes):
        data: dict = {"model": "smollm2-135m", "budget": budget, "task": {"path": "rows.jsonl"}}
        for key, value in changes.items():
            *path, last = key.split("__")
            part = data
            for name in path:
                part = part.setdefault(name, {})
            part[last] = value
        return from_dict(data)

    return make
