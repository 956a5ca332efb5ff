"""Every built-in variant keeps the contract."""

from __future__ import annotations

import pytest
from torch import nn

from trainables.variants import Variant, available, get_variant
from trainables.variants.core.config import Batches
from trainables.variants.lora import Lora
from trainables.variants.testing import VariantConformance

OWN_CLASS = {"adalora", "full", "lelora", "loftq", "lora_xs", "vera"}


class TestVariants(VariantConformance):
    @pytest.fixture(params=[name for name in available() if name not in OWN_CLASS])
    def cls(self, request: pytest.FixtureRequest) -> type[Variant]:
        return get_variant(request.param)


class TestAdaLora(VariantConformance):
    variant = "adalora"
    learning_rate = 5e-2  # it starts from three small factors: the paper's rates are some times LoRA's


class TestFull(VariantConformance):
    variant = "full"
    another_shape = {"placement": "q_proj"}  # shapes do not depend on the rank


class TestLeLora(VariantConformance):
    variant = "lelora"
    # With a candidate of zero, a matrix may train nothing for an interval, and a tensor would see no gradient.
    extra = {"dimensions": "max", "reward_every": 2}


class TestLoftQ(VariantConformance):
    variant = "loftq"
    start_tolerance = 0.05  # it starts nearer to the full-precision base than to the quantised one
    export_tolerance = 0.05  # it is exported against the full-precision base, without what quantising has left


class TestLoraXS(VariantConformance):
    variant = "lora_xs"
    learning_rate = 5e-2  # r^2 parameters have to move far: the paper's rates are about ten times LoRA's
    start_tolerance = 1e-3  # its core starts at N(0, 1e-5^2), not at zero


class TestVera(VariantConformance):
    variant = "vera"
    learning_rate = 5e-2  # it trains a hundredth of LoRA's parameters, at ten times the rate in the paper


class Unregistered(Lora):
    """Another start of the same adapter, to see that the suite takes a class which no registry knows."""

    name = "unregistered"

    def build(self, model: nn.Module, batches: Batches | None) -> nn.Module:
        module = super().build(model, batches)
        for parameter in self.block(self.matrices[0].name):
            parameter.data.mul_(0.5)
        return module


class TestUnregistered(VariantConformance):
    variant = Unregistered
