from __future__ import annotations

import pytest
import yaml

from raylora.cli import init
from raylora.run.checks import load_checked


@pytest.fixture
def rows(sums, monkeypatch, tmp_path):
    """Data beside where the command is run."""
    monkeypatch.chdir(tmp_path)
    return sums / "train.jsonl"


def test_flags_make_a_spec_that_passes_the_checks(rows, table, tmp_path) -> None:
    told = table("init", "--data", rows, "--budget", "20m", "-y")
    assert "raylora tune spec.yaml" in told
    spec = load_checked(tmp_path / "spec.yaml")
    assert (spec.model, spec.task.path, spec.budget) == ("smollm2-135m", str(rows), "20m")
    assert "# " in (tmp_path / "spec.yaml").read_text()


def test_questions_are_asked_on_a_terminal(rows, table, tmp_path, monkeypatch) -> None:
    asked = []

    def answered(prompt: str) -> str:
        asked.append(prompt)
        return {1: str(rows), 3: "30m"}.get(len(asked) - 1, "")

    monkeypatch.setattr("builtins.input", answered)
    monkeypatch.setattr(init.sys.stdin, "isatty", lambda: True, raising=False)
    table("init", "own.yaml")
    assert len(asked) == 4 and "[smollm2-135m]" in asked[0]
    spec = load_checked(tmp_path / "own.yaml")
    assert (spec.task.path, spec.task.name, spec.budget) == (str(rows), "instruct", "30m")


def test_a_question_is_asked_again_where_its_answer_is_refused(rows, table, tmp_path, monkeypatch) -> None:
    answers = {"Base": ["smolm2", "smollm2-135m"], "Data": ["nofile.csv", str(rows)], "Task": [""], "How": ["20m"]}
    monkeypatch.setattr("builtins.input", lambda prompt: answers[prompt.split()[0]].pop(0))
    monkeypatch.setattr(init.sys.stdin, "isatty", lambda: True, raising=False)
    table("init", "own.yaml")
    spec = load_checked(tmp_path / "own.yaml")
    assert (spec.model, spec.task.path, spec.budget) == ("smollm2-135m", str(rows), "20m")


def test_nothing_is_written_where_the_checks_fail(rows, mistake, tmp_path) -> None:
    assert "no such file" in mistake("init", "--data", "./none.jsonl", "-y")
    assert "budget" in mistake("init", "--data", rows, "--budget", "soon", "-y")
    assert not (tmp_path / "spec.yaml").exists()


def test_a_file_that_is_there_is_kept(rows, mistake, table, tmp_path) -> None:
    (tmp_path / "spec.yaml").write_text("mine")
    assert "is there already" in mistake("init", "--data", rows, "-y")
    assert (tmp_path / "spec.yaml").read_text() == "mine"
    table("init", "--data", rows, "-y", "--force")
    assert "budget" in (tmp_path / "spec.yaml").read_text()


def test_the_answer_as_json_names_the_file(rows, answer) -> None:
    assert answer("init", "--data", rows, "-y") == {"file": "spec.yaml"}


def test_how_somebody_trains_now_becomes_the_recipe_to_compare_with(rows, table, tmp_path) -> None:
    told = {"base_model": "smollm2-135m", "adapter": "lora", "lora_r": 32, "lora_alpha": 64, "sequence_len": 512}
    told |= {"learning_rate": 3e-4, "micro_batch_size": 2, "gradient_accumulation_steps": 4, "num_epochs": 2, "seed": 7}
    told |= {"datasets": [{"path": str(rows)}], "lora_target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "axolotl.yaml").write_text(yaml.safe_dump(told))
    table("init", "--from", "axolotl.yaml", "-y")
    spec = load_checked(tmp_path / "spec.yaml")
    recipe = spec.default_recipe
    assert (recipe.rank, recipe.alpha, recipe.learning_rate, recipe.batch_size) == (32, 64.0, 3e-4, 8)
    assert spec.task.path == str(rows) and spec.task.max_length == 512 and spec.space.placement == ["q_proj", "v_proj"]
    assert spec.seed == 7 and spec.final.epochs == 2.0


def test_an_input_that_ends_is_as_many_enter_keys_and_no_terminal_asks_nothing(
    rows, table, mistake, tmp_path, monkeypatch
) -> None:
    def over(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", over)
    assert "--data: missing; as the input is no terminal" in mistake("init", "piped.yaml")
    monkeypatch.setattr(init.sys.stdin, "isatty", lambda: True, raising=False)
    table("init", "own.yaml", "--data", rows)
    spec = load_checked(tmp_path / "own.yaml")
    assert (spec.model, spec.budget) == ("smollm2-135m", "1h")
