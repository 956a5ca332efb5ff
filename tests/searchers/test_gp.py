from __future__ import annotations

import pytest

from searchers.gp import GPSearch
from searchers.testing import Make, SearcherConformance


class TestGPSearch(SearcherConformance):
    @pytest.fixture
    def make(self) -> Make:
        return lambda **options: GPSearch(**{"n_initial": 2, "fit_steps": 5, **options})
