"""Every registered variant keeps the contract."""

from __future__ import annotations

import pytest

from trainables.variants import available
from trainables.variants.testing import VariantConformance


class TestVariants(VariantConformance):
    @pytest.fixture(params=available())
    def name(self, request: pytest.FixtureRequest) -> str:
        return request.param
