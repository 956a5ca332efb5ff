from __future__ import annotations

import pytest

from raylora.bench.recommend import bench_recommend


def test_a_recommendation_is_held_against_a_table_that_it_never_saw() -> None:
    figures = bench_recommend(["tulu3/llama_3.1_8b"], seeds=0, quiet=True)
    found = figures["tables"]["llama_3.1_8b"]
    assert found["without"] == ["llama"] and 0 <= found["lost"] < 0.002
    assert figures["mean"]["rules"]["0.0001 at the largest rank"] == pytest.approx(0.0142)
