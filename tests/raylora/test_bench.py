from __future__ import annotations

from raylora.bench.overhead import bench_overhead


def test_overhead_reports_the_promised_figures(ray_local) -> None:
    figures = bench_overhead(trials=3, nest_trials=1, quiet=True)
    assert {"warm_s", "nest_s", "ratio"} <= set(figures)
    assert figures["base_unchanged"] == 1.0
    assert figures["ratio"] == figures["nest_s"] / figures["warm_s"]
