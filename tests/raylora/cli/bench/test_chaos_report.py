from __future__ import annotations

from pathlib import Path

import pytest

from raylora.cli import main

SWEEPS = Path(__file__).resolve().parents[4] / "docs" / "sweeps"


def test_a_file_without_a_kill_is_refused(tmp_path, capsys) -> None:
    assert main(["bench", "chaos-report", str(tmp_path / "none.jsonl"), "--to", str(tmp_path / "table.md")]) == 2
    assert "holds no kill" in capsys.readouterr().err


@pytest.mark.skipif(not (SWEEPS / "chaos.records.jsonl").is_file(), reason="no published records")
def test_the_published_table_is_that_of_its_records(tmp_path) -> None:
    table = tmp_path / "table.md"
    assert main(["bench", "chaos-report", str(SWEEPS / "chaos.records.jsonl"), "--to", str(table)]) == 0
    assert table.read_text() == (SWEEPS / "chaos.md").read_text()
