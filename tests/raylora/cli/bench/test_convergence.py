from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "0"], "--seeds: 0; allowed: at least 1"),
        (["--checks", "-1"], "--checks: -1; allowed: 0 or more"),
        (["--rates", "0.1,fast"], "--rates: 0.1,fast; allowed: numbers above 0"),
    ],
)
def test_mistake_is_one_line(mistake, tmp_path, arguments, told) -> None:
    assert mistake("bench", "convergence", "spec.yaml", "--to", tmp_path, "--arms", "lora", *arguments) == told
