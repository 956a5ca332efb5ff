from __future__ import annotations

from searchers.surrogate.learned import Learned


def test_a_fitted_prior_is_shown_and_written(table, answer, tmp_path) -> None:
    grids = ["tulu3/llama_3.1_8b", "tulu3/qwen3_8b"]
    assert "size_beyond_10b" in table("bench", "fit-prior", *grids, "--to", str(tmp_path / "prior.json"))
    assert set(Learned.load(tmp_path / "prior.json").tables) == {"llama_3.1_8b", "qwen3_8b"}
    assert set(answer("bench", "fit-prior", *grids, "--without", "qwen3")["tables"]) == {"llama_3.1_8b"}
