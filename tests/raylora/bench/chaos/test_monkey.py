from __future__ import annotations

import random
from collections import Counter

import pytest

from raylora.bench.chaos.harms import KINDS
from raylora.bench.chaos.monkey import bench_chaos, next_search
from raylora.errors import UserError


@pytest.mark.parametrize("kinds", [list(KINDS), ["driver", "host"], ["policy"]], ids=["all", "two", "one"])
def test_in_the_end_all_kinds_have_been_done_about_equally_often(kinds) -> None:
    records: list[dict] = []
    while len(records) < 25:
        scene, found = next_search(records, kinds, 25, random.Random(0))
        assert found and set(found) <= set(scene.kinds)
        records += [{"kind": kind} for kind in found]
    counts = Counter(record["kind"] for record in records)
    assert max(counts.values()) - min(counts.values()) <= 1 and set(counts) == set(kinds)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="'printer' is unknown; allowed: driver, host"):
        bench_chaos(kinds=["printer"])


def test_kinds_that_cannot_be_done_here_are_refused_with_the_reason(monkeypatch) -> None:
    monkeypatch.setattr("raylora.bench.chaos.harms.has_redis", lambda: False)
    with pytest.raises(UserError, match="none can be done here: gcs needs redis-server"):
        bench_chaos(kinds=["gcs"])
