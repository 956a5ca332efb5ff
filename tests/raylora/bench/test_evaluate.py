from __future__ import annotations

import json

from raylora.bench.evaluate import bench_evaluate
from trainables.testing import make_tiny_model


def test_answers_are_those_of_transformers_and_each_side_is_timed(tmp_path) -> None:
    found = bench_evaluate(str(make_tiny_model(tmp_path)), rows=6, shortest=1, longest=5, batches=(2, 6), quiet=True)
    assert found["equal_rows"] == 6 and found["differ_at"] == {}
    assert set(found["transformers"]) == {"2", "6"} and found["best_batch"] in (2, 6)
    assert found["ours"]["rows_per_s"] > 0 and found["tokens"] == round(
        found["ours"]["tokens_per_s"] * found["ours"]["seconds"]
    )


def test_the_end_token_of_the_models_own_settings_ends_no_answer(tmp_path) -> None:
    folder = make_tiny_model(tmp_path)
    settings = folder / "generation_config.json"
    # Every token is an end token: whoever minds them answers with one.
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": list(range(512))}))
    found = bench_evaluate(str(folder), rows=4, shortest=4, longest=6, batches=(4,), quiet=True)
    assert found["equal_rows"] == 4
