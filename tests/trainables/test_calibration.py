from __future__ import annotations

import pyarrow as pa
import pytest

from trainables.calibration import calibrate
from trainables.protocols import TrainSettings, TrialSetup
from trainables.rows import Rows
from trainables.testing import ExactMatch, make_tiny_tokenizer, tokenised_rows


@pytest.fixture
def setup(tiny_model, tmp_path) -> TrialSetup:
    file = tmp_path / "rows.arrow"
    table = pa.Table.from_pylist(tokenised_rows(make_tiny_tokenizer(), 16))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    rows = Rows([str(file)])
    return TrialSetup(
        str(tiny_model), ExactMatch(), TrainSettings(samples=16), rows, rows, str(tmp_path), dtype="float32", threads=1
    )


def test_points_are_measured_and_the_model_is_left_as_it_was(setup) -> None:
    from trainables.session import load_base
    from trainables.variants.core.snapshot import fingerprint

    model, tokenizer = load_base(setup)
    before = fingerprint(model)
    found = calibrate(setup, model, tokenizer, ranks=[2, 4], batch_sizes=[2, 4], limit_s=60)
    assert [(step["rank"], step["batch_size"]) for step in found["steps"]] == [(2, 2), (2, 4), (4, 2), (4, 4)]
    assert all(step["seconds"] > 0 and step["tokens"] > step["batch_size"] for step in found["steps"])
    assert found["evaluation_row_s"] > 0 and found["adapter_per_rank"] > 0
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert fingerprint(model) == before and not hasattr(model, "peft_config")


def test_no_time_leaves_the_cheapest_point(setup) -> None:
    from trainables.session import load_base

    found = calibrate(setup, *load_base(setup), ranks=[2, 4], batch_sizes=[2, 4], limit_s=0)
    assert [(step["rank"], step["batch_size"]) for step in found["steps"]] == [(2, 2)]
    assert found["evaluation_row_s"] > 0
