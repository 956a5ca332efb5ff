from __future__ import annotations

from pathlib import Path

import pytest

from raylora.bench.suggest import bench_suggest
from raylora.errors import UserError
from searchers.testing import small_space

FIGURES = {
    "first_s",
    "next_s",
    "naive_s",
    "ratio",
    "max_abs_diff",
    "max_abs_diff_fp32",
    "max_abs_diff_acquisition",
    "peak_gb",
    "fit_steps",
    "prompts",
    "prompt_tokens",
}


@pytest.mark.real
def test_an_iteration_is_measured_both_ways(tiny_model: Path) -> None:
    figures = bench_suggest(
        str(tiny_model), observed=4, dtype="float32", sample=6, check=12, fit_steps=7, space=small_space(), quiet=True
    )
    assert set(figures) == FIGURES
    differences = {name for name in FIGURES if name.startswith("max_abs_diff")}
    assert all(figures[name] > 0 for name in FIGURES - differences)
    assert all(0 <= figures[name] < 1e-4 for name in differences)
    assert figures["ratio"] == figures["naive_s"] / figures["next_s"]
    assert figures["fit_steps"] == 7 and figures["prompts"] == 12
    assert figures["prompt_tokens"] > 50 and figures["peak_gb"] < 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observed": 1}, "observed: 1; allowed: at least 2"),
        ({"observed": 11}, "observed: 11; allowed: at most 10"),
        ({"sample": 0}, "sample: 0"),
        ({"check": 0}, "check: 0"),
        ({"dtype": "int8"}, "dtype: 'int8' is unknown"),
        ({"preset": "none"}, "preset: 'none' is unknown"),
        ({"layers": 3}, "layers: the language searcher has no such option"),
        ({"fit_steps": 0}, "fit_steps: 0"),
    ],
    ids=str,
)
def test_impossible_requests_are_named(tiny_model: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        bench_suggest(str(tiny_model), space=small_space(), **{"observed": 4, **changes})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_share_prefixes_is_refused(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    from trainables.testing import make_tiny_tokenizer

    tokenizer = make_tiny_tokenizer()
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    shape |= {"initializer_range": 0.5}  # random weights of the usual size hardly let one position see another
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not let prompts share prefixes"):
        bench_suggest(str(tmp_path), observed=4, space=small_space(), quiet=True)
