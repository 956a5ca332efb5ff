from __future__ import annotations

from searchers.cmaes import CmaEsSearch
from searchers.testing import SearcherConformance


class TestCmaEsSearch(SearcherConformance):
    searcher = CmaEsSearch
