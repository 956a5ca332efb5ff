from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.packed.trunk import Trunk, why_not
from trainables.packed.twin import twin
from trainables.variants.core.snapshot import fingerprint

IDS = torch.arange(12).view(2, 6)


def test_without_a_pass_the_trunk_is_the_base(base, trunk) -> None:
    with torch.inference_mode():
        assert torch.equal(trunk.module(input_ids=IDS).logits, base(input_ids=IDS).logits)


def test_the_route_is_left_as_it_was_though_a_pass_fails(trunk) -> None:
    with pytest.raises(RuntimeError), trunk.routed([], training=True):
        raise RuntimeError("on purpose")
    assert trunk.route.segments == () and not trunk.route.training


def test_matrices_that_see_other_rows_than_the_batch_cannot_be_shared(base) -> None:
    class Twice(nn.Module):
        """Calls its matrix on each half of the rows, as experts are."""

        def __init__(self, inner: nn.Linear) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.inner(x[:1]), self.inner(x[1:])])

    other = twin(base)
    mlp = other.model.layers[0].mlp
    mlp.up_proj = Twice(mlp.up_proj)
    unfit = Trunk(other).unfit
    assert unfit and all("layers.0.mlp.up_proj" in name for name in unfit)


@pytest.mark.parametrize("place", ["module", "configuration"])
def test_a_base_with_dropout_of_its_own_is_not_shared(base, place) -> None:
    other = twin(base)
    assert why_not(other) is None
    if place == "module":
        other.model.layers[0].extra = nn.Dropout(0.1)
    else:
        other.config.attention_dropout = 0.1
    assert "dropout of its own" in why_not(other)


def test_a_twin_shares_weights_and_nothing_else(base) -> None:
    before, other = fingerprint(base), twin(base)
    pairs = list(zip(other.parameters(), base.parameters(), strict=True))
    assert all(own.data_ptr() == shared.data_ptr() and own is not shared for own, shared in pairs)
    other.model.layers[0].mlp.up_proj.weight.data = torch.zeros(1)
    other.config.attention_dropout = 0.5
    assert fingerprint(base) == before and not base.config.attention_dropout
