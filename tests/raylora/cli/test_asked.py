from __future__ import annotations

import argparse
import time

import pytest
import yaml

from raylora.cli import _asked
from raylora.cli._asked import FLAGS, add_asked, asked_spec, process_began
from raylora.errors import UserError
from raylora.spec import from_dict


@pytest.fixture
def asked(monkeypatch):
    """The spec that some arguments ask for, on a machine without GPUs."""
    monkeypatch.setattr(_asked, "machine_defaults", dict)
    parser = argparse.ArgumentParser()
    add_asked(parser)
    return lambda *arguments: asked_spec(parser.parse_args([str(argument) for argument in arguments]))


def test_a_model_and_data_are_enough(asked) -> None:
    spec = asked("--model", "smollm2-135m", "--data", "my.jsonl")
    assert (spec.model, spec.task.name, spec.task.path, spec.budget) == ("smollm2-135m", "instruct", "my.jsonl", None)


def test_every_flag_has_its_field_in_the_spec(asked) -> None:
    given = {"model": "m", "data": "d.csv", "task": "gsm8k", "budget": "20m", "variants": "lora,dora", "trials": 7,
             "searcher": "tpe", "hosts": 2, "seed": 3, "name": "n", "to": "place"}  # fmt: skip
    assert set(given) == set(FLAGS)
    spec = asked(*(part for flag, value in given.items() for part in (f"--{flag}", value)))
    told = spec.to_dict()
    for flag, value in given.items():
        found = told
        for key in FLAGS[flag][0].split("."):
            found = found[key]
        assert found == (["lora", "dora"] if flag == "variants" else value)


def test_flags_win_over_the_file_and_changes_over_both(asked, tmp_path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump({"model": "a", "task": {"path": "x"}, "search": {"trials": 3}, "budget": "1h"}))
    spec = asked(file, "search.trials=5", "--trials", 4, "--budget", "2h")
    assert (spec.search.trials, spec.budget, spec.model) == (5, "2h", "a")


def test_changes_need_no_file_before_them(asked) -> None:
    assert asked("search.trials=5", "train.epochs=2", "--model", "m", "--data", "d").search.trials == 5


def test_options_of_another_searcher_are_left_out(asked, tmp_path) -> None:
    file = tmp_path / "spec.yaml"
    search = {"searcher": "language", "options": {"pool": 8}}
    file.write_text(yaml.safe_dump({"model": "a", "task": {"path": "x"}, "search": search}))
    assert asked(file).search.options == {"pool": 8}
    assert asked(file, "--searcher", "tpe").search.options == {}


def test_nothing_at_all_is_one_line_with_the_remedy(asked) -> None:
    with pytest.raises(UserError, match=r"^SPEC.yaml: missing; give one, or --model with --data"):
        asked("--data", "d")


def test_a_host_for_each_gpu_where_no_spec_says_otherwise(asked, monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("raylora.run.plan.machine.gpu_names", lambda: ["A100", "A100"])
    spec = asked("--model", "m", "--data", "d")
    assert (spec.resources.hosts, spec.resources.gpus_per_host) == (2, 1.0)
    assert asked("--model", "m", "--data", "d", "--budget", "10gpuh").budget_s == 18000


def test_only_what_was_asked_counts_as_chosen(asked) -> None:
    chosen = asked("--model", "m", "--data", "d", "--trials", "4").chosen()
    assert (
        chosen
        == {"model", "task.path", "search.trials"}
        == from_dict({"model": "m", "task": {"path": "d"}, "search": {"trials": 4}}).chosen()
    )


def test_a_process_began_before_now() -> None:
    assert 0 < time.monotonic() - process_began() < 3600 * 24
