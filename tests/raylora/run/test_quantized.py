from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylora.run.quantized import difference, laid_over
from raylora.spec import from_dict
from trainables.session import load_model
from trainables.testing import make_tiny_model
from trainables.variants import get_variant
from trainables.variants.core.config import AdapterConfig


@pytest.fixture
def spec(tmp_path: Path):
    model = make_tiny_model(tmp_path / "model")
    told = {"model": str(model), "dtype": "float32", "quantization": "nf4", "task": {"path": "rows.jsonl"}}
    return from_dict(told)


def finished(run: Path, variant: str) -> Path:
    """A run's folder as far as it is read: the recipe found, and rows that the final stage answered."""
    (run / "final" / "best-0").mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"best": {"config": {"variant": variant}}}))
    rows = [{"prompt": f"What is {n} + 1? ", "answer": str(n + 1)} for n in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), run / "final" / "best-0" / "test.parquet")
    return run


def test_an_adapter_is_laid_over_what_it_was_trained_on_but_where_its_start_made_good_for_that(spec, tmp_path) -> None:
    assert laid_over(spec, finished(tmp_path / "a", "lora")) == "nf4"
    assert laid_over(spec, finished(tmp_path / "b", "loftq")) == "none"


def test_full_precision_and_quantised_base_are_compared_under_the_same_adapter(spec, tmp_path) -> None:
    base, _ = load_model(spec.model, "float32", "cpu")
    variant = get_variant("lora")()
    variant.attach(base, AdapterConfig(2, 4.0))
    adapter = variant.save_adapter(tmp_path / "adapter", spec.model)
    found = difference(finished(tmp_path / "run", "lora"), spec, adapter, "cpu")
    assert found is not None and found.rows == 8 and found.tokens > 8
    assert 0 < abs(found.loss - found.quantized_loss) < 0.5 and found.logits > 0 and 0 < found.agreed <= 1
    assert "over the full-precision base" in found.told() and "\n" not in found.told()
