from __future__ import annotations

import pytest

from searchers.latent import LatentBOSearch
from searchers.testing import Make, SearcherConformance


class TestLatentBOSearch(SearcherConformance):
    @pytest.fixture
    def make(self) -> Make:
        return lambda **options: LatentBOSearch(**{"n_initial": 2, "fit_steps": 5, **options})
