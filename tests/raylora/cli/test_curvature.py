from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["spec.yaml", "--tolerance", "2"], "--tolerance: 2.0; allowed: above 0, below 1"),
        (["spec.yaml", "--tokens", "0"], "--tokens: 0; allowed: at least 1"),
        (["spec.yaml", "--layers", "a"], "--layers: a; allowed: whole numbers separated by commas"),
        (["figures.json", "--variants", "dora"], "SPEC: figures.json holds figures; give the spec to measure others"),
    ],
)
def test_mistake_is_one_line(mistake, arguments, told) -> None:
    assert mistake("curvature", *arguments) == told


@pytest.mark.parametrize(
    ("place", "told"), [("/proc/no/x.svg", "No such file or directory"), ("x.doc", "no format of plots; allowed: ")]
)
def test_a_plot_that_cannot_be_written_is_refused_before_the_work(mistake, place, told) -> None:
    pytest.importorskip("matplotlib")
    assert mistake("curvature", "spec.yaml", "--plot", place).startswith(f"--plot {place}: {told}")
