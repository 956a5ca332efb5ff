"""Every YAML in examples/ is a spec, and begins with the command to copy."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylora.run.checks import check_world
from raylora.run.planning import plan_only
from raylora.spec import load

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_parses_and_begins_with_its_command(path: Path) -> None:
    load(path)
    first = path.read_text().splitlines()[0]
    assert first.startswith(tuple(f"# raylora {name} " for name in ("tune", "submit", "bench", "compare")))
    assert f"examples/{path.name}" in first


def test_every_example_is_listed() -> None:
    listed = (ROOT / "docs" / "examples.md").read_text()
    assert [path.name for path in EXAMPLES if f"`{path.name}`" not in listed] == []


# What stands in for rows that an example names and does not bring.
ROWS: dict[str, dict[str, object]] = {
    "code": {"task_id": 11, "text": "Add.", "code": "def f(a):\n    return a + 2", "test_list": ["assert f(1) == 3"]},
    "convergence_rte": {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0},
    "gsm8k": {"question": "1 + 1?", "answer": "2\n#### 2"},
    "hyper_adalora_paper": {"prompt": "1 + 1?", "response": "2", "answer": "2"},
    "lelora_cola": {"sentence1": "It rains.", "label": 1},
    "training_rte": {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0},
}


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != "cluster"], ids=lambda path: path.stem)
def test_example_is_planned(path: Path, tiny_model: Path, ray_local: None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    overrides = [f"model={tiny_model}", f"storage_path={tmp_path}"]
    if path.stem in ROWS:
        for split, count in (("train", 48), ("validation", 8), ("test", 8)):
            asked = next(name for name, value in ROWS[path.stem].items() if isinstance(value, str))
            rows = (ROWS[path.stem] | {asked: f"{ROWS[path.stem][asked]} ({split} {n})"} for n in range(count))
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        overrides += [f"task.path={tmp_path}", "task.validation_rows=8"]
    told = plan_only(load(path, overrides), quiet=True)
    assert told["plan"]["trials"] > 1 and told["rows"]["proxy"] > 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_names_only_what_exists(path: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(ROWS.get(path.stem, ROWS["gsm8k"])) + "\n")
    overrides = [f"storage_path={tmp_path}"]
    # Rows that lie elsewhere: a placeholder, a hub that tests do not reach.
    if any(mark in path.read_text() for mark in ("path: ./data", "gsm8k")):
        overrides.append(f"task.path={tmp_path}")
    check_world(load(path, overrides))


def commands() -> Iterator[str]:
    """What README, docs and examples tell a user to tune, without its remark."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *EXAMPLES):
        for line in path.read_text().splitlines():
            found = re.match(r"(?:#\s+)?raylora tune (examples/.*)", line)
            if found:
                yield found.group(1).partition("  #")[0].strip()


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_that_is_shown_is_accepted(command: str, tmp_path: Path) -> None:
    path, *overrides = shlex.split(command)
    (tmp_path / "train.jsonl").write_text(json.dumps(ROWS.get(Path(path).stem, ROWS["gsm8k"])) + "\n")
    overrides = [text.replace("FOLDER", str(tmp_path)) for text in overrides]
    check_world(load(ROOT / path, [*overrides, f"storage_path={tmp_path}"]))


def test_quickstart_is_the_size_its_comment_says() -> None:
    spec = load(ROOT / "examples" / "quickstart.yaml")
    assert spec.space_size == 8_400 and spec.search.trials == 5
