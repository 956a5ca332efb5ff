"""Every registered variant keeps the contract."""

from __future__ import annotations

import pytest

from trainables.variants import available
from trainables.variants.testing import VariantConformance

OWN_CLASS = {"adalora", "full", "lelora", "lora_xs", "vera"}


class TestVariants(VariantConformance):
    @pytest.fixture(params=[name for name in available() if name not in OWN_CLASS])
    def name(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestAdaLora(VariantConformance):
    learning_rate = 5e-2  # it starts from three small factors: the paper's rates are some times LoRA's

    @pytest.fixture
    def name(self) -> str:
        return "adalora"


class TestFull(VariantConformance):
    another_shape = {"placement": "q_proj"}  # shapes do not depend on the rank

    @pytest.fixture
    def name(self) -> str:
        return "full"


class TestLeLora(VariantConformance):
    # With a candidate of zero, a matrix may train nothing for an interval, and a tensor would see no gradient.
    extra = {"dimensions": "max", "reward_every": 2}

    @pytest.fixture
    def name(self) -> str:
        return "lelora"


class TestLoraXS(VariantConformance):
    learning_rate = 5e-2  # r^2 parameters have to move far: the paper's rates are about ten times LoRA's
    start_tolerance = 1e-3  # its core starts at N(0, 1e-5^2), not at zero

    @pytest.fixture
    def name(self) -> str:
        return "lora_xs"


class TestVera(VariantConformance):
    learning_rate = 5e-2  # it trains a hundredth of LoRA's parameters, at ten times the rate in the paper

    @pytest.fixture
    def name(self) -> str:
        return "vera"
