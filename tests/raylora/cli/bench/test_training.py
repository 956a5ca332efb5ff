from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "--seeds: 0; allowed: at least 1"),
        (["--trials", "0"], "--trials: 0; allowed: at least 1"),
        (["--searchers", "stock:gp"], "--searchers: stock:gp: on recorded grids only; choose another"),
    ],
)
def test_mistake_is_one_line(mistake, tmp_path, arguments, told) -> None:
    assert mistake("bench", "training", "spec.yaml", "--to", tmp_path, *arguments) == told


def test_two_specs_of_one_name_are_one_line(mistake, tmp_path, write_spec) -> None:
    spec = write_spec()
    assert "different names" in mistake("bench", "training", spec, spec, "--to", tmp_path)
