"""Methods at their own best rates over seeds, and the strategies of LeLoRA, as commands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from raylora.cli import main
from raylora.reports.compare import (
    best_rows,
    known_run,
    markdown,
    merged,
    read_records,
    run_name,
    write_comparison,
)
from raylora.reports.strategies import read_strategies
from raylora.run.folder import RUN_MARK
from raylora.spec import load
from trainables.lelora.history import History


def record(rate: float, seed: int, score: float, loss: float = 1.0, **config: Any) -> dict[str, Any]:
    return {
        "task": "sums",
        "seed": seed,
        "metric": "accuracy",
        "mode": "max",
        "config": {"variant": "lora", "rank": 8, "learning_rate": rate, **config},
        "diverged": False,
        "accuracy": score,
        "validation_loss": loss,
        "trainable_parameters": 100,
    }


def test_best_rate_is_that_of_the_lowest_mean_loss_with_its_error_over_seeds() -> None:
    records = [record(rate, seed, 1.2 - loss, loss)
               for rate, losses in ((1e-4, (0.9, 1.0)), (1e-3, (0.7, 0.5)), (1e-2, (0.3, 1.2)))
               for seed, loss in enumerate(losses)]  # fmt: skip
    (row,) = best_rows(records)
    assert (row.rate, row.seeds, row.edge, row.touched) == (1e-3, 2, False, 100)
    assert row.score == pytest.approx(0.6) and row.error == pytest.approx(0.1)
    assert "accuracy 0.600 ± 0.100" in markdown(records)


def test_rates_are_told_apart_by_the_seeds_that_they_share() -> None:
    records = [record(rate, 0, 0.5, loss) for rate, loss in ((1e-4, 0.6), (1e-3, 0.5), (1e-2, 0.7))]
    records += [record(1e-3, seed, 0.2, 2.0) for seed in (1, 2)]
    (row,) = best_rows(records)
    assert (row.rate, row.seeds, row.edge) == (1e-3, 3, False) and row.score == pytest.approx(0.3)


def test_ranks_and_batches_are_methods_of_their_own_and_no_seeds() -> None:
    scores = {(8, 8): (0.2, 0.3), (128, 8): (0.6, 0.7), (8, 64): (0.4, 0.4)}
    records = [record(1e-3, seed, score, rank=rank, batch_size=batch, alpha_ratio=1)
               for (rank, batch), both in scores.items() for seed, score in enumerate(both)]  # fmt: skip
    rows = {row.method: (row.score, row.seeds) for row in best_rows(records)}
    assert rows == {
        "lora (rank=8, batch_size=8)": (pytest.approx(0.25), 2),
        "lora (rank=128, batch_size=8)": (pytest.approx(0.65), 2),
        "lora (rank=8, batch_size=64)": (pytest.approx(0.4), 2),
    }


def test_numbers_trained_per_step_stand_beside_those_ever_trained() -> None:
    mine = {"touched_per_step": 40.4, "touched_parameters": 90}
    table = markdown([record(1e-3, 0, 0.5), record(1e-3, 0, 0.5, variant="lelora") | mine])
    assert "| 100 | 100 | 1 |" in table and "| 40 | 90 | 1 |" in table


def test_edges_ties_and_diverged_runs() -> None:
    records = [record(1e-4, 0, 0.5, loss=2.0), record(1e-3, 0, 0.5, loss=1.0)]
    (row,) = best_rows(records)
    assert row.rate == 1e-3 and row.edge and math.isnan(row.error)
    assert "0.001 (edge)" in markdown(records)
    records[1] |= {"diverged": True, "validation_loss": None}
    assert best_rows(records)[0].rate == 1e-4


def test_a_method_that_diverged_at_every_rate_is_told(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = [record(rate, 0, 0.5) | {"diverged": True, "validation_loss": None} for rate in (1e-3, 1e-2)]
    assert "| sums | lora | diverged at each | | | | | 1 |" in markdown(records)
    assert len(write_comparison(records, tmp_path / "x")) == 3


def test_what_belongs_to_the_specs_own_searcher_is_no_hindrance(write_spec, ray_local, tmp_path: Path) -> None:
    spec = write_spec(
        name="sums",
        space__variant="lora",
        space__rank=2,
        space__alpha_ratio=1,
        space__batch_size=4,
        space__learning_rate=[1e-3],
        search={"searcher": "language", "prior": {"rank": 2}, "knowledge": {"curvature": True}, "trials": 1},
        train={"samples": 4},
    )
    assert main(["compare", str(spec), "--seeds", "0", "--to", str(tmp_path / "x"), "--quiet"]) == 0


def test_a_run_shows_the_strategies_of_its_policies_alone(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    for policy, r in (("per_trial", 8), ("random", 2)):
        log = History(["layers.0.q"], [0], ["q"], policy, tmp_path / "strategies" / f"{policy}.parquet")
        log.add(0, [r], ["primary"])
        log.write()
    assert read_strategies(tmp_path)["r"].tolist() == [8]
    assert read_strategies(tmp_path / "strategies" / "random.parquet")["r"].tolist() == [2]
    (tmp_path / "strategies" / "per_trial.parquet").unlink()
    assert read_strategies(tmp_path)["r"].tolist() == [2]


def test_a_record_met_again_replaces_the_earlier_one() -> None:
    records = merged([record(1e-3, 1, 0.1), record(1e-3, 0, 0.2), record(1e-3, 1, 0.3)])
    assert [(r["seed"], r["accuracy"]) for r in records] == [(0, 0.2), (1, 0.3)]


def test_the_table_in_the_documentation_is_that_of_its_records() -> None:
    stem = Path(__file__).resolve().parents[3] / "docs" / "sweeps" / "lelora"
    records = read_records(f"{stem}.records.json")
    assert markdown(records) == Path(f"{stem}.md").read_text()
    assert {(row.seeds, row.edge) for row in best_rows(records)} == {(3, False)}


def test_another_space_is_another_run(write_spec) -> None:
    spec, same, wider = (load(write_spec(space__rank=rank)) for rank in (2, 2, [2, 4]))
    assert run_name("sums", 0, spec) == run_name("sums", 0, same) != run_name("sums", 0, wider)


def test_a_run_of_an_earlier_form_of_the_spec_is_known_by_what_it_says(write_spec, tmp_path: Path) -> None:
    spec = load(write_spec(space__rank=2, name="compare-sums-seed0-0123abcd"))
    folder = tmp_path / "runs" / "compare-sums-seed0-0123abcd"
    folder.mkdir(parents=True)
    (folder / RUN_MARK).write_text("raylora 0.1.0\n")
    # As written before the spec had a version and sources of its own for each split.
    earlier = spec.to_dict()
    del earlier["version"], earlier["task"]["train"], earlier["task"]["list_labels"]
    (folder / "spec.yaml").write_text(yaml.safe_dump(earlier))
    assert known_run("sums", 0, spec) == folder
    assert known_run("sums", 0, load(write_spec(space__rank=4, name="other"))) is None


@pytest.mark.parametrize(("labels", "same"), [(["yes", "no"], False), (["of its own", "other words"], True)])
def test_a_run_from_before_labels_were_listed_is_the_same_where_there_are_none(
    write_spec, tmp_path: Path, labels, same
) -> None:
    # Labelled rows whose labels are as many as the rows have none to list.
    rows = "".join(f'{{"text": "it is {n}", "label": "{labels[n % 2]}{n * same}"}}\n' for n in range(30))
    (tmp_path / "rows.jsonl").write_text(rows)
    spec = load(write_spec(task__path=str(tmp_path / "rows.jsonl"), name="compare-sums-seed0-0123abcd"))
    folder = tmp_path / "runs" / "compare-sums-seed0-0123abcd"
    folder.mkdir(parents=True)
    (folder / RUN_MARK).write_text("raylora 0.1.0\n")
    earlier = spec.to_dict()
    del earlier["task"]["list_labels"]
    (folder / "spec.yaml").write_text(yaml.safe_dump(earlier))
    assert (known_run("sums", 0, spec) == folder) is same
    off = spec.model_copy(update={"task": spec.task.model_copy(update={"list_labels": False})})
    assert known_run("sums", 0, off) == folder


def test_compare_trains_writes_and_rebuilds_the_same_files(write_spec, ray_local, tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib")
    spec = write_spec(
        name="sums",
        space__variant=["lora", "lelora"],
        space__rank=2,
        space__alpha_ratio=1,
        space__batch_size=4,
        space__learning_rate=[1e-3, 5e-3],
        space__extra={"policy": ["per_trial", "random"], "reward_every": 2},
        search__trials=6,
    )
    stem = tmp_path / "out" / "table"
    smaller = "space.learning_rate=[5e-3]"
    assert main(["compare", str(spec), smaller, "--seeds", "0", "--to", str(stem), "--quiet"]) == 0
    table = Path(f"{stem}.md").read_text()
    assert all(f"| sums | {name} |" in table for name in ("lora", "lelora (policy=per_trial, reward_every=2)"))
    records = json.loads(Path(f"{stem}.records.json").read_text())
    assert len(records) == 3
    touched = [r["touched_parameters"] for r in records if r["config"]["variant"] == "lelora"]
    assert len(touched) == 2 and all(count > 0 for count in touched)
    again = tmp_path / "again"
    assert main(["compare", f"{stem}.records.json", "--to", str(again)]) == 0
    for ending in (".records.json", ".md", ".svg"):
        assert Path(f"{again}{ending}").read_bytes() == Path(f"{stem}{ending}").read_bytes()

    (run,) = (tmp_path / "runs").glob("compare-sums-seed0-*")
    assert len(list((run / "strategies").glob("*.parquet"))) == 2
    assert main(["strategies", str(run), "--to", str(tmp_path / "figure")]) == 0
    assert (tmp_path / "figure.csv").read_text().startswith("by,group,part,step,r,place,primary,middle,minor")
    assert (tmp_path / "figure.svg").is_file()


def test_mistakes_are_one_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.json").write_text(json.dumps([record(1e-3, 0, 0.5)]))
    for arguments, message in (
        (["compare", str(tmp_path / "a.json"), "--to", "x"], "holds no records"),
        (["compare", "seed=1", "--to", "x"], "SOURCE: nothing but overrides"),
        (["compare", "a.yaml", "--seeds", "one", "--to", "x"], "--seeds: one; allowed"),
        (["strategies", str(tmp_path), "--to", "x"], "holds no strategies"),
        (["compare", str(tmp_path / "b.json"), "--to", "/dev/null/x"], "--to /dev/null/x: "),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
