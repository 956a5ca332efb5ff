from __future__ import annotations

import json

from raylora.bench.chaos.report import markdown, read_records, table

BOTH = {"search": 1, "lost": 0, "repeated": 0, "resumed": 1, "broken": []}


def test_records_are_read_up_to_half_a_line(tmp_path) -> None:
    (tmp_path / "kills.jsonl").write_text(json.dumps({"kind": "host"}) + '\n{"kind": "dri')
    assert read_records(tmp_path / "kills.jsonl") == [{"kind": "host"}]
    assert read_records(tmp_path / "none.jsonl") == []


def test_the_table_has_a_row_for_each_kind_and_one_for_all() -> None:
    records = [{**BOTH, "kind": "driver", "seconds": s} for s in (1.0, 2.0, 6.0)] + [
        {**BOTH, "kind": "gcs", "seconds": 3.0}
    ]
    figures = table(records)
    assert (figures["kills"], figures["searches"], figures["lost"], figures["broken"]) == (4, 1, 0, [])
    lines = markdown(figures).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| driver", "| gcs", "| all"]
    assert lines[2].endswith("| 3 | 0 | 0 | 3 | 2.0 (6.0) |")
