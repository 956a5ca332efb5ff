from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rank", "0"], "--rank: 0; allowed: at least 1"),
        (["--length", "3"], "--length: 3; allowed: at least 4, a quarter of which is completion"),
    ],
)
def test_mistake_is_one_line(mistake, arguments, told) -> None:
    assert mistake("bench", "variants", "--model", "smollm2-135m", *arguments) == told
