from __future__ import annotations

import pytest

from raylora.run.recipes.core.recipe import micro_batch


@pytest.mark.parametrize(
    ("batch", "longest", "tokens", "rows"),
    [(8, 10, 40, 4), (8, 10, 39, 2), (6, 10, 50, 3), (7, 10, 60, 1), (4, 99, 9, 1)],
)
def test_a_micro_batch_divides_the_batch_and_fits_the_tokens(batch, longest, tokens, rows) -> None:
    assert micro_batch(batch, longest, tokens) == rows
