from __future__ import annotations

from searchers.random import RandomSearch
from searchers.testing import SearcherConformance


class TestRandomSearch(SearcherConformance):
    searcher = RandomSearch
