from __future__ import annotations

import torch
from torch import nn

from trainables.packed.dropout import OwnDropout, kept, own_dropouts


def test_draws_are_those_of_plain_dropout_from_the_same_state() -> None:
    x = torch.ones(64, 32)
    torch.manual_seed(5)
    expected = nn.Dropout(0.3)(x)
    assert torch.equal(OwnDropout(0.3, torch.Generator().manual_seed(5))(x), expected)


def test_draws_do_not_touch_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    kept(torch.Size((8, 8)), 0.5, torch.Generator().manual_seed(1), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.ones(64, 32)
    assert torch.equal(OwnDropout(0.3, torch.Generator()).eval()(x), x)


def test_every_dropout_of_a_layer_draws_from_the_given_generator() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"default": nn.Dropout(0.2)}), nn.Dropout(0.5))
    generator = torch.Generator()
    own_dropouts(layer, generator)
    found = [part for part in layer.modules() if isinstance(part, nn.Dropout)]
    assert [part.p for part in found] == [0.2, 0.5]
    assert all(isinstance(part, OwnDropout) and part.generator is generator for part in found)
