from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.run.folder import BEGUN, archive_attempt, check_same, new_run_folder, read_run, settled, write_best
from raylora.run.trials import best_trial
from raylora.spec import from_dict, load


@pytest.fixture
def run(write_spec, tmp_path):
    """A run's folder in which nothing has happened yet."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_spec().rename(folder / "spec.yaml")
    (folder / ".raylora").write_text("raylora\n")
    return folder


def test_the_best_recipe_is_a_spec_of_its_own(finished_run) -> None:
    again = load(finished_run.folder / "best.yaml")
    assert again.space_size == 1
    assert again.to_space().decode(0) == best_trial(finished_run.folder, "accuracy", "max").config


def test_the_best_recipe_of_a_search_with_beliefs_needs_none_of_them(write_spec, tmp_path) -> None:
    search = {"searcher": "language", "prior": {"rank": 2}, "knowledge": {"curvature": True}}
    spec = load(write_spec(search=search))
    config = spec.to_space().decode(3)
    assert load(write_best(tmp_path, spec, config)).to_space().decode(0) == config


def test_secrets_of_the_environment_are_in_no_file_of_a_run(finished_run, secrets) -> None:
    files = [path for path in finished_run.folder.parent.rglob("*") if path.is_file()]
    assert finished_run.folder / "best.yaml" in files
    told = [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
    assert told == []


def test_a_folder_with_a_spec_but_no_run_is_refused_and_left_alone(write_spec, tmp_path) -> None:
    write_spec()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds a spec\.yaml but no run") as caught:
        read_run(tmp_path)
    assert (caught.value.field, caught.value.value) == ("RUN_DIR", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "spec.yaml"]


def test_a_journal_of_a_later_release_is_refused_in_one_line(run) -> None:
    (run / "trials.jsonl").write_text(json.dumps({"event": "journal", "version": 99}) + "\n")
    with pytest.raises(UserError, match=r"^RUN_DIR: .*version 99.*upgrade raylora$"):
        read_run(run)


def test_a_spec_of_a_later_release_is_refused_before_its_unknown_keys() -> None:
    with pytest.raises(UserError, match=r"^version = 99: .*upgrade raylora") as caught:
        from_dict({"version": 99, "of_the_future": 1})
    assert caught.value.field == "version"


def test_a_spec_says_its_version(run) -> None:
    assert "version: 1\n" in read_run(run)[1].to_yaml()


def test_a_run_from_before_prompts_listed_labels_goes_on_without(run) -> None:
    assert read_run(run)[1].task.list_labels is False
    (run / "spec.yaml").write_text(load(run / "spec.yaml").to_yaml())
    assert read_run(run)[1].task.list_labels is True


def test_what_an_attempt_left_of_tunes_own_is_set_aside(run) -> None:
    for name in ("trials.jsonl", "searcher.pkl", "searcher.json", "tuner.pkl"):
        (run / name).write_text("")
    archive_attempt(run)
    assert {path.name for path in run.iterdir()} == {
        ".raylora", "spec.yaml", "trials.jsonl", "searcher.pkl", "searcher.json", "attempts"
    }  # fmt: skip
    assert (run / "attempts" / "1" / "tuner.pkl").exists()


def test_a_folder_in_use_is_refused(run, tmp_path) -> None:
    spec = load(run / "spec.yaml", [f"storage_path={tmp_path}"])
    with pytest.raises(UserError, match="is in use"):
        new_run_folder(spec)


def test_local_names_of_a_spec_are_made_absolute_and_others_left_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "a.jsonl").touch()
    task = {"path": "a.jsonl", "train": "train[:80%]", "test": ["*.jsonl", {"path": "a.jsonl"}, "org/name"]}
    spec = settled(from_dict({"model": "model", "task": task, "search": {"learn_from": ["a.jsonl"]}}))
    here = str(tmp_path / "a.jsonl")
    assert (spec.model, spec.task.path, spec.task.train) == (str(tmp_path / "model"), here, "train[:80%]")
    assert spec.task.test == [str(tmp_path / "*.jsonl"), {"path": here}, "org/name"]
    assert (spec.search.learn_from, spec.search.llm) == ([here], "smollm2-135m")
    assert settled(from_dict({"model": "org/name", "task": {"path": "org/rows"}})).task.path == "org/rows"


def test_test_sets_are_absolute_in_a_settled_spec(write_spec, sums, monkeypatch) -> None:
    monkeypatch.chdir(sums)
    spec = settled(load(write_spec(task__test_sets={"sums": "test.jsonl", "hub": {"path": "org/name"}})))
    assert spec.task.test_sets == {"sums": str(sums / "test.jsonl"), "hub": {"path": "org/name"}}


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("space", {"rank": [64]}, "space.rank = [64]"),
        ("seed", 5, "seed = 5"),
        ("model", "other/model", "model = 'other/model'"),
    ],
)
def test_a_spec_that_has_become_another_experiments_is_refused_by_its_field(
    write_spec, tmp_path, field, value, told
) -> None:
    spec = load(write_spec())
    (tmp_path / BEGUN).write_text(spec.to_yaml())
    check_same(tmp_path, spec)
    part = {**spec.to_dict()[field], **value} if isinstance(value, dict) else value
    changed = from_dict({**spec.to_dict(), field: part, "search": {"trials": 1, "searcher": "random"}})
    with pytest.raises(UserError, match=rf"^{re.escape(told)} in .*spec.yaml: the run began with"):
        check_same(tmp_path, changed)


def test_more_trials_and_other_resources_are_honoured(write_spec, tmp_path) -> None:
    spec = load(write_spec())
    (tmp_path / BEGUN).write_text(spec.to_yaml())
    more = load(write_spec(), ["search.trials=5", "resources.cpus_per_host=2", "final.seeds=2"])
    check_same(tmp_path, more)


def test_a_file_of_the_runs_name_is_one_line(write_spec, tmp_path) -> None:
    spec = load(write_spec(name="taken"))
    Path(spec.storage()).mkdir(parents=True, exist_ok=True)
    (Path(spec.storage()) / "taken").write_text("mine")
    with pytest.raises(UserError, match="taken is in use"):
        new_run_folder(spec)
