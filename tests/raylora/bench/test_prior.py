from __future__ import annotations

import pytest

from raylora.bench.prior import fit_prior
from raylora.errors import UserError
from searchers.surrogate.learned import shipped

GRIDS = ["tulu3/llama_3.1_8b", "tulu3/qwen3_8b", "gemma3_1b_math"]


def test_what_is_left_out_is_not_seen() -> None:
    assert set(fit_prior(["llama", "learning-rate-matters"], GRIDS).tables) == {"qwen3_8b"}


def test_a_source_that_there_is_not_is_named() -> None:
    with pytest.raises(UserError, match=r"--without: 'mars'; allowed: .*tinker-cookbook"):
        fit_prior(["mars"], GRIDS)


def test_the_shipped_prior_is_the_fit_of_the_bundled_grids() -> None:
    fitted = fit_prior()
    assert fitted.tables == dict(shipped().tables)
    assert fitted.mean == pytest.approx(shipped().mean, abs=1e-3)
