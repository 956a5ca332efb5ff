from __future__ import annotations

import pytest

from searchers.surrogate.learned import Learned


def test_a_fitted_prior_is_shown_and_written(table, answer, tmp_path) -> None:
    grids = ["tulu3/llama_3.1_8b", "tulu3/qwen3_8b"]
    file = tmp_path / "new" / "prior.json"
    assert "size_beyond_10b" in table("bench", "fit-prior", *grids, "--to", file)
    assert set(Learned.load(file).tables) == {"llama_3.1_8b", "qwen3_8b"}
    assert set(answer("bench", "fit-prior", *grids, "--without", "qwen3")["tables"]) == {"llama_3.1_8b"}


def test_a_file_that_cannot_be_written_is_refused_before_the_fit(mistake, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("raylora.bench.prior.fit_prior", lambda *given: pytest.fail("fitted"))
    assert "Is a directory" in mistake("bench", "fit-prior", "--to", tmp_path)
