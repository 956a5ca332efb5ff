from __future__ import annotations

import pytest

from searchers.random import RandomSearch
from searchers.testing import Make, SearcherConformance


class TestRandomSearch(SearcherConformance):
    @pytest.fixture
    def make(self) -> Make:
        return RandomSearch
