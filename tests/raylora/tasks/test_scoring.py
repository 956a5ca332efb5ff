from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import make_task
from trainables.protocols import Outputs, Sampling

ROWS = [
    {"prompt": "a", "response": "one", "answer": "one", "metadata": "{}"},
    {"prompt": "b", "response": "two", "answer": "two", "metadata": "{}"},
]
OUTPUTS = Outputs(texts=[["one"], ["it is two"]], losses=[(2.0, 2), (6.0, 2)])


@pytest.fixture
def task(files):
    folder = files(train=ROWS, a=ROWS, b=ROWS)
    sets = {name: str(folder / f"{name}.jsonl") for name in ("a", "b")}
    return make_task("instruct", path=str(folder / "train.jsonl"), test_sets=sets)


def figures(scoring, split="validation"):
    return scoring.figures(split, scoring.marks(split, OUTPUTS, ROWS))


def test_one_metric_goes_by_the_name_that_it_always_had(task) -> None:
    found = figures(task.aim(["exact"]))
    assert found == {"accuracy": 0.5, "accuracy_se": pytest.approx(0.5)}


def test_metrics_that_share_a_name_go_by_their_own(task) -> None:
    found = figures(task.aim(["exact", "contains", "loss"]))
    assert (found["exact"], found["contains"], found["validation_loss"]) == (0.5, 1.0, 2.0)
    assert task.metric == "exact"


def test_two_of_one_metric_need_names(task) -> None:
    with pytest.raises(UserError, match=r"task.metrics: 'rouge' is the name of another figure; .*as: NAME"):
        task.aim(["rouge", {"rouge": {"kind": "rouge1"}}])
    assert task.aim(["rouge", {"rouge": {"kind": "rouge1", "as": "one"}}]).on("test")[1].key == "one"


def test_a_metric_may_belong_to_a_test_set(task) -> None:
    scoring = task.aim([{"a": "exact"}, {"b": {"regex": {"pattern": "t"}}}, "loss"])
    assert {one.key for one in scoring.on("test.a")} == {"accuracy", "validation_loss"}
    assert {one.key for one in scoring.on("test.b")} == {"regex", "validation_loss"}
    assert len(scoring.on("validation")) == 3
    assert (scoring.headline("test.a"), scoring.headline("test.b")) == ("accuracy", "regex")


def test_a_function_or_a_pattern_needs_no_name_of_its_option(task) -> None:
    scoring = task.aim([{"regex": "t"}, {"python": "statistics:mean"}, {"a": {"regex": {"pattern": "w", "as": "w"}}}])
    assert [one.key for one in scoring.on("validation")] == ["regex", "mean", "w"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([{"c": "exact"}], r"task.metrics: 'c' is no test set of this task; it has a, b"),
        (["exakt"], r"task.metrics: unknown metric 'exakt'"),
        ([{"exact": 3}], r"task.metrics.exact: 3 is not allowed; give options"),
        ([{"rouge": "rouge1"}], r"task.metrics.rouge: 'rouge1' is not allowed; give options"),
        ([{"python": "no_such_module_here:f"}], r"python.function: 'no_such_module_here:f' cannot be imported"),
        ([{"number": {"mrak": "#"}}], r"task.metrics.mrak"),
        ([{"exact": {"as": "step"}}], r"'step' is the name of another figure"),
    ],
)
def test_what_cannot_be_measured_is_one_line(task, metrics, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        task.aim(metrics)
    assert "\n" not in str(caught.value)


def test_the_objective_may_be_any_of_them_the_loss_or_a_mean(task) -> None:
    assert task.aim(["exact", "rouge"], "rouge").metric == "rouge"
    scoring = task.aim(["exact"], "loss")
    assert (scoring.metric, scoring.mode, scoring.worst) == ("validation_loss", "min", 20.0)
    assert scoring.needs("validation") == {"texts", "losses"}
    mean = task.aim(["exact", "contains"], ["exact", "contains"])
    found = figures(mean)
    assert (mean.metric, found["objective"]) == ("objective", 0.75)
    assert found["objective_se"] == pytest.approx(0.25)
    assert mean.worst_figures("validation")["objective"] == 0.0


def test_an_objective_that_is_no_metric_or_a_mean_of_two_ends_is_refused(task) -> None:
    with pytest.raises(UserError, match=r"search.objective: 'speed' is no metric of this run; allowed: accuracy"):
        task.aim(["exact"], "speed")
    with pytest.raises(UserError, match=r"search.objective: a mean needs metrics with the same better end"):
        task.aim(["exact"], ["exact", "loss"])


def test_an_objective_that_needs_tests_is_refused_however_it_is_named(task) -> None:
    task.tested_only = frozenset({"pass_at_k"})
    for metrics, name in ((["loss", {"a": "pass@k"}], "pass@k"), (["loss"], "pass@1"), (["loss"], "pass@k")):
        with pytest.raises(UserError, match=r"search.objective: 'pass@1' cannot be had on validation rows"):
            task.aim(metrics, name)


def test_only_the_loss_needs_no_answers(task) -> None:
    assert task.aim(["loss"]).needs("validation") == {"losses"}


def test_a_task_with_a_score_of_its_own_keeps_it_however_often_it_is_aimed() -> None:
    from raylora.tasks import Task

    class Mine(Task):
        name, metric = "mine", "luck"

        def splits(self):
            return {}

        def score(self, completions, rows):
            return [1.0 for _ in completions]

    task = Mine()
    task.aim(["exact"], "loss")
    assert figures(task.aim())["luck"] == 1.0


def test_sampling_is_the_tasks_own_unless_told(task) -> None:
    assert task.aim().sampling == Sampling(max_new_tokens=64)
    assert task.aim(sampling=Sampling(5, temperature=0.5, n=3)).sampling.n == 3
