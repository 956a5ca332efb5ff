from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.metrics.pass_at_k import PassAtK
from raylora.tasks import make_task
from trainables.evaluation import evaluate_model
from trainables.protocols import Outputs, Sampling
from trainables.session import load_model
from trainables.testing import tokenised_rows

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


def is_the_answer(texts, rows):
    return [text.strip() == row["answer"] for text, row in zip(texts, rows, strict=True)]


def with_programs(metric):
    """What a task of code does with its metrics; a program here is right where it is the answer."""
    if isinstance(metric, PassAtK):
        metric.use(is_the_answer)
    return metric


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
        ([{"exact": {"as": "eval_s"}}], r"'eval_s' is the name of another figure"),
        ([{"exact": {"as": "validation_loss"}}], r"'validation_loss' is the name of another figure"),
        ([{"exact": {"as": "mine_se"}}], r"task.metrics.exact.as: 'mine_se' is no name of a figure"),
        ([{"exact": {"as": 3}}], r"task.metrics.exact.as: 3 is no name of a figure"),
        (["exakt"], r"did you mean 'exact'\?"),
        (["pass@k"], r"task.metrics: pass_at_k has no programs to run for this task"),
        ([{"a": "pass@4"}], r"task.metrics: pass_at_k has no programs to run for this task"),
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
    task.tested_only, task.prepared = frozenset({"pass_at_k"}), with_programs
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


def test_a_mean_of_figures_that_are_no_means_of_rows_is_that_of_their_values(task) -> None:
    scoring = task.aim(["pearson", "spearman"], ["pearson", "spearman"])
    rows = [{"prompt": "", "response": answer, "answer": answer, "metadata": "{}"} for answer in "1234"]
    outputs = Outputs(texts=[[text] for text in ("1", "9", "10", "5.000000")])
    found = scoring.figures("test.a", scoring.marks("test.a", outputs, rows))
    assert found["objective"] == pytest.approx((found["pearson"] + found["spearman"]) / 2)
    assert found["objective_se"] == pytest.approx((found["pearson_se"] + found["spearman_se"]) / 2)
    assert scoring.headline("test.a") == "objective" and scoring.worst_figures("test.a")["objective"] == -1.0


def test_several_answers_to_a_row_are_marked_by_all_metrics_at_once(task, tiny_model) -> None:
    model, tokenizer = load_model(tiny_model, "float32", "cpu")
    rows, answers = tokenised_rows(tokenizer, 6), []
    task.prepared = with_programs
    metrics = [{"pass@k": {"k": [1, 3], "samples": 4}}, "exact", {"b": "loss"}]
    scoring = task.aim(metrics, ["pass@k", "exact"], Sampling(2, temperature=1.0, n=3))
    found = evaluate_model(model, rows, scoring, tokenizer, split="test.a", predictions=answers)
    assert [len(answer["completions"]) for answer in answers] == [4] * 6
    right = [is_the_answer(answer["completions"], [row] * 4) for answer, row in zip(answers, rows, strict=True)]
    assert found["pass@1"] == pytest.approx(sum(map(sum, right)) / 24)
    assert found["pass@3"] >= found["pass@1"] and {"pass@1_se", "pass@3_se", "objective_se"} <= set(found)
    assert found["accuracy"] == pytest.approx(sum(answer["accuracy"] for answer in answers) / 6)
    assert found["objective"] == pytest.approx((found["pass@1"] + found["accuracy"]) / 2)
    assert "validation_loss" in evaluate_model(model, rows, scoring, tokenizer, split="test.b")


def test_a_rehearsal_finds_what_a_metric_lacks_of_the_rows(task, tmp_path, monkeypatch) -> None:
    likely = {"how": "likelihood", "choices": ["one", "two"]}
    task.aim(["exact", "loss", {"choice": likely}]).rehearse(ROWS)
    for options in ({}, {"how": "likelihood"}):
        with pytest.raises(UserError, match=r"task\.metrics: choice needs options"):
            task.aim([{"choice": options}]).rehearse(ROWS)
    with pytest.raises(UserError, match="answer: 'one' is none of the options"):
        task.aim([{"choice": likely | {"choices": ["two", "three"]}}]).rehearse(ROWS)
    (tmp_path / "of_one_value.py").write_text("def f(completions, rows):\n    return [0.5]\n")
    monkeypatch.chdir(tmp_path)
    scoring = task.aim(["exact", {"a": {"python": {"function": "of_one_value:f"}}}])
    with pytest.raises(UserError, match=r"python\.function: of_one_value:f gave 1 values for 2 rows"):
        scoring.rehearse(ROWS, "test.a")
    scoring.rehearse(ROWS, "test.b")
