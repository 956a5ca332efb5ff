from __future__ import annotations

from raylora.bench.evaluate import bench_evaluate
from trainables.testing import make_tiny_model


def test_answers_are_those_of_transformers_and_each_side_is_timed(tmp_path) -> None:
    found = bench_evaluate(str(make_tiny_model(tmp_path)), rows=6, shortest=1, longest=5, batches=(2, 6), quiet=True)
    assert found["equal_rows"] == 6 and found["differ_at"] == {}
    assert set(found["transformers"]) == {"2", "6"} and found["best_batch"] in (2, 6)
    assert found["ours"]["rows_per_s"] > 0 and found["tokens"] == round(
        found["ours"]["tokens_per_s"] * found["ours"]["seconds"]
    )
