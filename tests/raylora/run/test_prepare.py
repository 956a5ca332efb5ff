from __future__ import annotations

import json

from raylora.progress import Progress
from raylora.run.folder import CURVATURE
from raylora.run.prepare import measured_ratios, rows_kept


def test_what_was_dropped_is_told_only_where_something_was() -> None:
    counts = {"train": 40, "proxy": 20, "validation": 8, "train_dropped_too_long": 0, "test_dropped_empty": 3}
    assert rows_kept(counts) == "40 train, 20 proxy, 8 validation, 3 test dropped empty rows"


def test_curvature_that_was_measured_is_not_measured_again(tmp_path, monkeypatch, capsys) -> None:
    def measure(*given):
        raise AssertionError("measured again")

    figures = {
        "about": {"knobs": {"rank": 4, "alpha_ratio": 2.0}},
        "blocks": {},
        "variants": {"lora": {"rate": 1.0}, "dora": {"rate": 0.5}},
    }
    (tmp_path / CURVATURE).write_text(json.dumps(figures))
    monkeypatch.setattr("raylora.curvature.measure.measure_on_cluster", measure)
    ratios = measured_ratios(None, tmp_path, "", None, None, Progress())  # type: ignore[arg-type]
    assert ratios == {"dora": 0.5} and "dora 0.5" in capsys.readouterr().err
