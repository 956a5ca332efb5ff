"""Every YAML in examples/ is a spec, and begins with the command to copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from raylora.spec import load
from raylora.spec_checks import check_world

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_parses_and_begins_with_its_command(path: Path) -> None:
    load(path, check=False)
    first = path.read_text().splitlines()[0]
    assert first.startswith(("# raylora tune ", "# raylora submit ", "# raylora bench "))
    assert f"examples/{path.name}" in first


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_names_only_what_exists(path: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "1 + 1?", "answer": "2\\n#### 2"}\n')
    overrides = [f"storage_path={tmp_path}"]
    if "gsm8k" in path.read_text():  # its rows lie elsewhere: a placeholder, a hub that tests do not reach
        overrides.append(f"task.path={tmp_path}")
    check_world(load(path, overrides, check=False))


def test_quickstart_is_the_size_its_comment_says() -> None:
    spec = load(ROOT / "examples" / "quickstart.yaml", check=False)
    assert spec.space_size == 8_400 and spec.search.trials == 5
