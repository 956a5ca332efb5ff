from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.cli import main
from raylora.data.grids import load_grid
from raylora.errors import UserError
from raylora.reports.sweep import Sweep, best_rates, markdown, merge, read_sweep, write_report

ABOUT = {"model": "m", "task": {"name": "t"}, "train": {}, "metric": "accuracy", "mode": "max", "seed": 0}


def run(
    variant: str, rate: float, accuracy: float | None, loss: float | None, diverged: bool = False
) -> dict[str, Any]:
    config = {"variant": variant, "rank": 8, "alpha_ratio": 1, "learning_rate": rate, "batch_size": 8, "dropout": 0}
    figures = {"accuracy": accuracy, "accuracy_se": 0.05, "validation_loss": loss, "samples": 160}
    return {"config": config, "diverged": diverged, **figures}


def parabola(variant: str, best: float, rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)) -> list[dict[str, Any]]:
    from math import log10

    return [run(variant, r, 0.5 - 0.1 * abs(log10(r / best)), 1 + 0.3 * log10(r / best) ** 2) for r in rates]


@pytest.fixture
def sweep() -> Sweep:
    broken = run("lora", 1e-1, 0.0, None, diverged=True)
    return Sweep(ABOUT, [*parabola("lora", 2e-3), broken, *parabola("olora", 2e-4)])


def test_best_rates_are_the_vertex_of_the_loss(sweep: Sweep) -> None:
    lora, olora = best_rates(sweep)
    assert (lora.variant, lora.rate, lora.edge) == ("lora", 1e-3, False)
    assert lora.loss_rate == pytest.approx(2e-3, rel=1e-6)
    # The lowest of the losses tried is at an end, so no vertex can be trusted.
    assert (olora.rate, olora.loss_rate, olora.edge) == (1e-4, 1e-4, True)


def test_ties_go_to_the_lower_loss() -> None:
    runs = [run("lora", 1e-4, 0.4, 2.0), run("lora", 1e-3, 0.4, 1.0), run("lora", 1e-2, 0.1, 3.0)]
    assert best_rates(Sweep(ABOUT, runs))[0].rate == 1e-3


def test_the_table_has_ratios_and_marks_edges(sweep: Sweep) -> None:
    table = markdown(sweep)
    assert "| olora | 0.0001 (edge) | 0.470 ± 0.050 |" in table
    assert "| 0.05 | 0.06 (needs a learning rate more than ten times smaller than LoRA's) |" in table
    assert "diverged |" in table


def test_what_is_written_is_read_again_and_rebuilt_to_the_byte(sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = write_report(merge([sweep]), tmp_path / "sweep", tmp_path / "grid.csv")
    assert len(files) == 5
    before = [file.read_bytes() for file in files]
    assert main(["report", str(files[0]), "--to", str(tmp_path / "sweep"), "--grid", str(tmp_path / "grid.csv")]) == 0
    assert [file.read_bytes() for file in files] == before
    grid = load_grid(tmp_path / "grid.csv")
    assert len(grid.values) == 7 and grid.samples == 160
    assert min(grid.values.values()) == pytest.approx(0.3301, abs=1e-4)  # also for the diverged one
    assert set(grid.errors.values()) == {0.05, 0.0}


def test_sweeps_are_merged_and_must_be_alike(sweep: Sweep) -> None:
    again = Sweep(ABOUT, [run("lora", 1e-3, 0.9, 0.5), run("lora", 3e-2, 0.3, 2.0)])
    both = merge([sweep, again])
    assert len(both.runs) == 8 and best_rates(both)[0].score == 0.9
    with pytest.raises(UserError, match="SOURCE: the sweeps differ in model"):
        merge([sweep, Sweep({**ABOUT, "model": "other"}, again.runs)])


def test_sweeps_under_several_seeds_are_one_of_means_with_their_errors(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sweeps = [Sweep({**ABOUT, "seed": seed}, [run("lora", 1e-3, accuracy, 1.0 + seed), run("lora", 1e-2, 0.1, 3.0)])
              for seed, accuracy in enumerate((0.2, 0.4, 0.6))]  # fmt: skip
    merged = merge(sweeps)
    (best,) = best_rates(merged)
    assert (best.rate, best.seeds, best.loss) == (1e-3, 3, 2.0)
    assert best.score == pytest.approx(0.4) and best.error == pytest.approx(0.2 / 3**0.5)
    files = write_report(merged, tmp_path / "x", tmp_path / "grid.csv")
    page = files[1].read_text()
    assert "seeds 0, 1, 2" in page and "| 0.40 / 2.00 | 0.10 / 3.00 |" in page
    assert merge([read_sweep(files[0])]) == merged
    grid = load_grid(tmp_path / "grid.csv")
    assert sorted(grid.values.values()) == pytest.approx([0.1, 0.4])
    assert max(grid.errors.values()) == pytest.approx(best.error)


def test_a_rate_that_diverged_under_one_seed_is_no_best_one() -> None:
    lost = run("lora", 1e-3, 0.0, None, diverged=True)
    sweeps = [Sweep({**ABOUT, "seed": seed}, [one, run("lora", 1e-4, 0.3, 2.0)])
              for seed, one in enumerate((run("lora", 1e-3, 0.9, 1.0), lost))]  # fmt: skip
    assert best_rates(merge(sweeps))[0].rate == 1e-4
    assert "diverged" in markdown(merge(sweeps))


def test_rates_are_compared_under_the_seeds_that_they_share() -> None:
    sweeps = [Sweep(ABOUT, [run("lora", 1e-3, 0.5, 1.0), run("lora", 1e-4, 0.4, 1.1)]),
              Sweep({**ABOUT, "seed": 1}, [run("lora", 1e-3, 0.1, 3.0)])]  # fmt: skip
    (best,) = best_rates(merge(sweeps))
    assert (best.rate, best.score) == (1e-3, 0.5)


def test_ranks_are_compared_with_loras_of_the_same_rank() -> None:
    runs = [
        {**one, "config": {**one["config"], "rank": rank}}
        for rank, factor in ((8, 1.0), (64, 0.1))
        for one in [*parabola("lora", 1e-3), *parabola("pissa", 1e-3 * factor)]
    ]
    table = markdown(Sweep(ABOUT, runs))
    assert [one.name for one in best_rates(Sweep(ABOUT, runs))][-1] == "pissa (rank=64)"
    assert "| pissa (rank=8) | 0.001 | 0.500 ± 0.050 | 1.000 | 0.001 | 1 |" in table
    assert "| pissa (rank=64) | 0.0001 (edge) | 0.500 ± 0.050 | 1.000 | 0.0001 | 0.1 |" in table


def test_a_source_that_is_none_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"a": 1}))
    for source, told in (("none.json", "does not exist"), ("other.json", "holds no records"), (".", "no spec.yaml")):
        assert main(["report", str(tmp_path / source), "--to", str(tmp_path / "x")]) == 2
        assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("x*"))


def test_a_run_is_a_source(tmp_path: Path) -> None:
    from trainables.journal import Journal

    (tmp_path / ".raylora").write_text("")
    (tmp_path / "spec.yaml").write_text("model: smollm2-135m\ntask: {name: reasoning_gym/chain_sum}\n")
    journal = Journal(tmp_path)
    config = run("lora", 1e-3, 0, 0)["config"]
    journal.append("start", "a", config=config)
    journal.append("finish", "a", config=config, accuracy=0.5, accuracy_se=0.1, validation_loss=1.5, host=3)
    found = read_sweep(tmp_path)
    assert found.runs == [
        {"config": config, "diverged": False, "accuracy": 0.5, "accuracy_se": 0.1, "validation_loss": 1.5}
    ]
    assert found.about["task"]["name"] == "reasoning_gym/chain_sum"


def test_the_page_in_the_docs_is_what_its_records_say(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = Path(__file__).parents[3] / "docs" / "sweeps" / "learning_rates.records.json"
    write_report(read_sweep(records), tmp_path / "learning_rates", tmp_path / "grid.csv")
    for name in ("learning_rates.md", "learning_rates.records.json"):
        assert (tmp_path / name).read_text() == (records.parent / name).read_text()
    shipped, built = load_grid("smollm2_135m_chain_sum"), load_grid(tmp_path / "grid.csv")
    assert built.values == shipped.values and built.errors == shipped.errors and len(built.values) == 60
