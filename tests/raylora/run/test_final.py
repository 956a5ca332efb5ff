from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raylora.build import build_task
from raylora.errors import RunFailed
from raylora.progress import Progress
from raylora.run.final import _run_jobs, figures, final_stage, headline
from raylora.spec import load
from trainables.journal import Journal, trial_key
from trainables.recipe import RecipeJob, RecipeResult

BEST = {"variant": "lora", "rank": 2, "alpha_ratio": 1, "learning_rate": 1e-3, "batch_size": 4, "dropout": 0.0}


@pytest.fixture
def run(write_spec, tmp_path) -> Any:
    """A run of two seeds whose final jobs are all in the journal; it has no host to train on."""
    spec = load(write_spec(final={"seeds": 2, "samples": 8}))
    journal = Journal(tmp_path)

    def book(label: str, knobs: dict[str, Any], samples: int, seed: int, accuracy: float) -> None:
        split = {"accuracy": accuracy, "accuracy_se": 0.1}
        key = trial_key({"knobs": knobs, "samples": samples, "seed": seed})
        journal.append("final", key, label=label, result={"loss": 1.0, "validation": split, "test": split})

    book("base", {}, 1, 0, 0.125)
    for seed, (default, best) in enumerate([(0.25, 0.5), (0.5, 1.0)]):
        book(f"default-{seed}", spec.recipe_to_knobs(), 8, seed, default)
        book(f"best-{seed}", BEST, 8, seed, best)
        adapter = tmp_path / "final" / f"best-{seed}" / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "seed").write_text(str(seed))
    return SimpleNamespace(
        spec=spec,
        folder=tmp_path,
        base_name="base",
        task=build_task(spec),
        progress=Progress(quiet=True),
        data=SimpleNamespace(
            tests={"test": lambda: ([], {"test": 8, "test_prompts_in_train": 2})},
            validation=[],
            train=[],
            counts={"train": 8},
        ),
        group=None,
        keeper=None,
        hosts=[],
        setup=SimpleNamespace(run_dir=str(tmp_path)),
    )


def test_jobs_in_the_journal_are_not_run_again(run) -> None:
    assert final_stage(run, BEST)["base"] == {"test": 0.125, "test_se": 0.1}


def test_several_seeds_give_their_mean_and_its_error_over_them(run) -> None:
    summary = final_stage(run, BEST)
    assert summary["best"]["test"] == 0.75 and summary["best"]["test_se"] == pytest.approx(0.25)
    assert summary["default"]["validation"] == 0.375
    assert summary["best"]["config"]["alpha"] == 2


def test_the_adapter_is_that_of_the_seed_with_the_best_validation(run) -> None:
    final_stage(run, BEST)
    assert (run.folder / "adapter" / "seed").read_text() == "1"


def test_test_rows_that_are_also_trained_on_are_told(run, capsys) -> None:
    run.progress = Progress()
    summary = final_stage(run, BEST)
    assert (summary["test_rows"], summary["test_prompts_in_train"]) == (8, 2)
    assert "2 of 8 test rows have a prompt that is also trained on" in capsys.readouterr().err


def result(**scores: float) -> RecipeResult:
    """Figures of `test.a` and `test.b`, each with an error of 0.3."""
    splits = {f"test.{name}": {"accuracy": value, "accuracy_se": 0.3} for name, value in scores.items()}
    return RecipeResult(scores=splits)


def test_several_test_sets_give_their_mean_and_a_figure_each(run) -> None:
    found = result(a=0.2, b=0.6)
    mean, error = headline([found], ["test.a", "test.b"], run.task.scoring)
    assert mean == pytest.approx(0.4) and error == pytest.approx(0.3 / 2**0.5)
    told = figures([found], run.task.scoring)["metrics"]
    assert told == {"test.a": {"accuracy": [0.2, 0.3]}, "test.b": {"accuracy": [0.6, 0.3]}}


def test_groups_of_rows_have_their_errors_and_a_run_of_one_metric_tells_it_once(run) -> None:
    scores = {"accuracy": 0.5, "accuracy_se": 0.1, "accuracy[level=1]": 0.25, "accuracy_se[level=1]": 0.2}
    grouped = RecipeResult(scores={"test": {**scores, "rows[level=1]": 4, "eval_s": 1.0, "validation_loss": 2.0}})
    told = figures([grouped], run.task.scoring)["metrics"]["test"]
    assert told["accuracy[level=1]"] == [0.25, 0.2] and told["rows[level=1]"] == [4, None]
    assert set(told) == {"accuracy", "accuracy[level=1]", "rows[level=1]"}
    plain = RecipeResult(scores={"test": {"accuracy": 0.5, "accuracy_se": 0.1, "eval_s": 1.0, "validation_loss": 2.0}})
    assert figures([plain], run.task.scoring) == {}


class Host:
    """A host of the final stage: a job whose folder is `bad` fails, the first one called `dies` ends its process."""

    def recipe(self, job) -> RecipeResult:
        import os
        import signal
        from pathlib import Path

        folder = Path(job.folder)
        if folder.name == "bad":
            raise RuntimeError("shapes\ndiffer")
        if folder.name == "dies" and not folder.exists():
            folder.mkdir()
            os.kill(os.getpid(), signal.SIGKILL)
        return RecipeResult(scores={"test": {"accuracy": 0.5}})

    def ready(self) -> None: ...


def test_a_job_that_fails_is_one_line_and_the_others_are_kept_for_finish(run, ray_local, tmp_path, capsys) -> None:
    import ray

    run.progress = Progress()
    run.hosts = [ray.remote(Host).options(num_cpus=0, max_restarts=-1).remote()]
    jobs = {label: RecipeJob(str(tmp_path / label), {}, {"rank": label}) for label in ("bad", "dies", "base")}
    with pytest.raises(
        RunFailed, match=r"final stage: bad failed: RuntimeError: shapes differ; .*`raylora finish "
    ) as f:
        _run_jobs(run, jobs)
    assert "\n" not in str(f.value) and "Traceback" in (tmp_path / "errors.log").read_text()
    shown = capsys.readouterr().err
    assert "bad: failed (RuntimeError: shapes differ)" in shown and "Traceback" not in shown
    assert "dies: its host died (its process was ended from outside); once more" in shown
    booked = [row["label"] for row in Journal(tmp_path).rows() if row["event"] == "final"]
    assert booked[-2:] == ["dies", "base"]
    ray.kill(run.hosts[0])
