from __future__ import annotations

from pathlib import Path

import pytest

import raylora
from raylora.run import experiment
from raylora.spec import Spec

PLAIN = {"model": "smollm2-135m", "task": {"name": "reasoning_gym/chain_sum"}, "search": {"options": {"pool": 64}}}


class Stopped(Exception):
    pass


@pytest.fixture
def tuned(monkeypatch, tmp_path):
    """The spec that `raylora.tune` would run with."""
    monkeypatch.setattr("raylora.run.checks.check_world", lambda spec: None)

    def tune(spec, **changes) -> Spec:
        given: list[Spec] = []

        def run(spec: Spec, **how) -> None:
            given.append(spec)
            raise Stopped

        monkeypatch.setattr(experiment, "tune", run)
        with pytest.raises(Stopped):
            raylora.tune(spec, **changes)
        return given[0]

    return tune


def test_path_mapping_and_spec_are_the_same_spec(tmp_path) -> None:
    spec = raylora.load_spec(PLAIN)
    file = tmp_path / "spec.yaml"
    file.write_text(spec.to_yaml())
    assert raylora.load_spec(file) == raylora.load_spec(str(file)) == raylora.load_spec(spec) == spec


def test_what_was_not_set_in_a_spec_stays_unset() -> None:
    spec = raylora.load_spec(raylora.load_spec(PLAIN), overrides={"search.trials": 7})
    assert spec.search.model_fields_set == {"options", "trials"}


def test_overrides_do_not_change_the_mapping_that_was_given() -> None:
    assert raylora.load_spec(PLAIN, overrides={"search.trials": 7, "space.rank": 4}).space.rank == [4]
    assert "trials" not in PLAIN["search"] and "space" not in PLAIN


def test_common_fields_are_keyword_arguments(tuned) -> None:
    spec = tuned(PLAIN, trials=5, variants=["lora", "dora"], hosts=2, seed=3, name="mine", storage_path=Path("here"))
    assert (spec.search.trials, spec.space.variant, spec.resources.hosts) == (5, ["lora", "dora"], 2)
    assert (spec.seed, spec.name, spec.storage_path) == (3, "mine", "here")
    assert tuned(PLAIN, variants="dora").space.variant == ["dora"]


def test_dotted_overrides_win_over_keyword_arguments(tuned) -> None:
    assert tuned(PLAIN, trials=5, overrides={"search.trials": 6}).search.trials == 6


def test_another_searcher_does_not_get_the_options_of_the_specs_own(tuned) -> None:
    assert tuned(PLAIN, searcher="tpe").search.options == {}
    assert tuned(PLAIN, searcher="language").search.options == {"pool": 64}


def test_mistake_is_an_exception_of_one_line() -> None:
    with pytest.raises(raylora.UserError, match=r"search\.trials = 0: allowed: at least 1"):
        raylora.tune(PLAIN, trials=0)
    with pytest.raises(raylora.UserError, match="which has no keys below it"):
        raylora.load_spec(PLAIN, overrides={"model.name": 1})


# One of each kind: what is put into a spec, the field that is wrong then, and the value that it has.
MISTAKES = [
    ({"search.trials": 0}, "search.trials", 0),
    ({"train.samples": 8, "train.epochs": 1.0}, "train.samples", 8),
    ({"task.path": "/nowhere.jsonl"}, "task.path", "/nowhere.jsonl"),
    ({"search.searcher": "gp", "search.options": {"n_initial": 0}}, "search.options.n_initial", 0),
    ({"search.options": {"preset": "best"}}, "search.options.preset", "best"),
    ({"search.prior": {"rank": "high"}}, "search.prior.rank", "high"),
    ({"task.metrics": [{"math": {"timeout": -1}}]}, "task.metrics.math.timeout", -1),
    ({"task.metrics": [{"math": {"seconds": 3}}]}, "task.metrics.math.seconds", 3),
]


def found(overrides: dict[str, object]) -> tuple[str, object]:
    """Field and value of the mistake that a spec has with these."""
    with pytest.raises(raylora.UserError) as caught:
        raylora.tune(PLAIN, overrides=overrides, quiet=True)
    return caught.value.field, caught.value.value


@pytest.mark.parametrize(("overrides", "field", "value"), MISTAKES)
def test_a_mistake_has_its_field_and_its_value(overrides, field, value, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found(overrides) == (field, value)


def test_mistakes_have_them_in_a_remote_call_too(ray_local) -> None:
    import ray

    from raylora.cluster import users_errors

    tune = ray.remote(raylora.tune).options(num_cpus=0)
    for overrides, field, value in MISTAKES:
        with pytest.raises(raylora.UserError) as caught, users_errors():
            ray.get(tune.remote(PLAIN, overrides=overrides, quiet=True))
        assert (caught.value.field, caught.value.value) == (field, value)


def test_run_folder_in_use_is_refused(workplace) -> None:
    with pytest.raises(raylora.UserError, match="is in use"):
        raylora.tune(workplace / "spec.yaml", name="sums", quiet=True)


def test_a_run_ends_with_its_page(workplace) -> None:
    assert (workplace / "runs" / "again" / "report.html").read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_does_not_hurt_the_run(workplace, monkeypatch) -> None:
    from raylora.api.tuning import _write_report
    from raylora.reports.page import page

    def broken(*given, **how):
        raise RuntimeError("no room left")

    monkeypatch.setattr(page, "write_page", broken)
    said: list[str] = []
    _write_report(workplace / "runs" / "again", said.append)
    assert "no room left" in said[0]
