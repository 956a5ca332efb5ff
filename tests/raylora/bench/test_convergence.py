"""Loss curves of variants at their best rates: arms, rates, files, table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.bench.arms import parse_arm
from raylora.bench.convergence import bench_convergence, best_rate
from raylora.bench.convergence_report import (
    convergence_table,
    plain_counterpart,
    read_curves,
    smooth,
    step_reaching,
    steps_to,
    write_convergence,
)
from raylora.cli import main
from raylora.errors import UserError
from raylora.spec import load

DOCS = Path(__file__).resolve().parents[3] / "docs" / "convergence"


def record(arm: str, rate: float, seed: int, losses: list[float], validation: float | None) -> dict[str, Any]:
    run = {
        "arm": arm,
        "knobs": {"learning_rate": rate},
        "seed": seed,
        "about": {"model": "m", "task": {"name": "t"}},
        "metric": "accuracy",
        "loss": losses,
        "diverged": validation is None,
        "train_s": 8.0,
        "hypernetwork_s": 1.0,
        "peak_memory_gb": 0.5,
        "optimizer_mb": 2.0,
        "adapter_parameters": 1000,
        "hypernetwork_parameters": 10,
    }
    return run if validation is None else run | {"validation_loss": validation, "accuracy": 0.5}


def write(folder: Path, *runs: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, run in enumerate(runs):
        (folder / f"{number}.json").write_text(json.dumps(run))
    return folder


def test_an_arm_is_a_variant_with_options() -> None:
    arm = parse_arm("hyper_adalora:preset=paper:hidden=24")
    assert (arm.variant, arm.options) == ("hyper_adalora", {"preset": "paper", "hidden": 24})
    assert parse_arm("lora").options == {}
    assert parse_arm("hyper_lora:network_rate=1e-3").options == {"network_rate": 1e-3}
    with pytest.raises(UserError, match=r"'\[' is no value"):
        parse_arm("hyper_lora:hidden=[")
    with pytest.raises(UserError, match="lorra: no such variant"):
        parse_arm("lorra")
    with pytest.raises(UserError, match="'hidden' is no option of lora; allowed: none"):
        parse_arm("lora:hidden")


def test_best_rate_is_the_lowest_validation_loss_and_never_a_diverged_run() -> None:
    losses = {0.1: None, 0.01: 0.4, 0.02: 0.4}
    assert best_rate({rate: record("a", rate, 0, [], loss) for rate, loss in losses.items()}) == 0.01


def test_smoothing_is_a_weighted_mean_of_what_is_there() -> None:
    assert smooth([3.0, 3.0, None, 3.0], 2.0) == pytest.approx([3.0] * 4)
    keep = 0.5**0.5
    assert smooth([1.0, 0.0], 2.0)[1] == pytest.approx(keep / (1 + keep))
    assert (steps_to([3.0, 2.0, 1.0], 2.0), steps_to([3.0], 2.0)) == (2, None)


def test_arms_are_compared_with_the_variant_without_a_network() -> None:
    labels = ["adalora", "hyper_adalora", "hyper_adalora:network_rate=0"]
    assert plain_counterpart("hyper_adalora:network_rate=0", labels) == "adalora"
    assert plain_counterpart("adalora", labels) is None and plain_counterpart("hyper_dora", labels) is None


def test_table_takes_each_arm_at_its_best_rate_over_its_seeds(tmp_path: Path) -> None:
    slow, fast = [4.0, 3.0, 2.0, 1.0], [2.0, 1.0, 0.5, 0.4]
    folder = write(
        tmp_path / "runs",
        *(record("lora", rate, 0, slow, loss) for rate, loss in ((0.1, 2.0), (0.2, 1.0), (0.4, None))),
        record("lora", 0.2, 1, slow, 3.0),
        *(record("hyper_lora", rate, 0, fast, loss) for rate, loss in ((0.1, 2.0), (0.2, 1.5), (0.4, 0.5))),
    )
    hyper, plain = read_curves(folder)
    assert (plain.rate, plain.edge, len(plain.runs)) == (0.2, False, 2)
    assert (hyper.rate, hyper.edge) == (0.4, True)
    head, first, second = convergence_table([hyper, plain])
    cells = dict(zip(head, first, strict=True))
    assert cells["best rate"] == "0.4 (edge)" and cells["steps to the plain final loss"] == "2 of 4"
    assert dict(zip(head, second, strict=True))["validation loss"] == "2.000 ± 1.000"
    files = write_convergence(folder, tmp_path / "out" / "curves")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_convergence(folder, tmp_path / "out" / "curves")] == before
    assert b"hyper_lora (0.4)" not in before[0] and b"| hyper_lora |" in before[0]


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run there"):
        read_curves(tmp_path)
    one, other = record("lora", 0.1, 0, [1.0], 1.0), record("dora", 0.1, 0, [1.0, 1.0], 1.0)
    with pytest.raises(UserError, match="has 1 steps, others 2"):
        read_curves(write(tmp_path / "lengths", one, other))
    with pytest.raises(UserError, match="differ in task"):
        read_curves(write(tmp_path / "tasks", one, one | {"about": {"model": "m", "task": {"name": "u"}}}))
    (tmp_path / "tasks" / "0.json").write_text("[]")
    with pytest.raises(UserError, match=r"0.json: no run of `raylora bench convergence`; remove it"):
        read_curves(tmp_path / "tasks")


def test_steps_are_counted_to_the_plain_loss_of_the_same_seed(tmp_path: Path) -> None:
    plain = [record("lora", 0.1, seed, [4.0, 3.0, 2.0, end], 1.0) for seed, end in ((0, 1.5), (1, 0.0))]
    hyper = [record("hyper_lora", 0.1, seed, [1.5, 1.0, 1.0, end], 1.0) for seed, end in ((0, 1.0), (1, 0.5))]
    head, first, second = convergence_table(read_curves(write(tmp_path / "runs", *plain, *hyper)))
    cells = dict(zip(head, first, strict=True))
    assert cells["steps to the plain final loss"] == "1, 2 of 4"
    # On the same batches: -2.5, -2, -1 in both, then -0.5 and +0.5.
    assert cells["less the plain loss, by quarter"] == "-2.500 ± 0.000, -2.000 ± 0.000, -1.000 ± 0.000, +0.000 ± 0.500"
    assert dict(zip(head, second, strict=True))["less the plain loss, by quarter"] == ""


def test_validation_is_compared_at_the_same_steps_of_the_same_seed(tmp_path: Path) -> None:
    def checked(arm: str, seed: int, *losses: float) -> dict[str, Any]:
        checks = [[step, loss] for step, loss in zip((0, 2, 4), losses, strict=True)]
        return record(arm, 0.1, seed, [1.0] * 4, losses[-1]) | {"checks": checks}

    runs = [checked("lora", 0, 4.0, 3.0, 2.0), checked("lora", 1, 4.0, 2.0, 3.0)]
    runs += [checked("hyper_lora", 0, 4.0, 2.0, 1.0), checked("hyper_lora", 1, 5.0, 4.0, 3.5)]
    head, first, second = convergence_table(read_curves(write(tmp_path / "runs", *runs)))
    hyper, plain = (dict(zip(head, row, strict=True)) for row in (first, second))
    steps, less = (
        "steps to the plain validation loss at half, at the end",
        ("validation loss less the plain one, after each quarter"),
    )
    # Seed 0: 3.0 half-way from 4.0 to 2.0, 2.0 at step 2. Seed 1: 3.5 at the end is above both.
    assert hyper[steps] == "1, never; 2, never"
    assert plain[steps] == "2, 2; 4, 1"
    assert hyper[less] == "+0.500 ± 1.000, +0.500 ± 1.500, +0.125 ± 1.125, -0.250 ± 0.750"
    assert plain[less] == ""
    assert step_reaching([0, 4], [2.0, 1.0], 1.4) == 3 and step_reaching([0, 4], [2.0, 1.0], 2.0) == 0
    _, plot = write_convergence(tmp_path / "runs", tmp_path / "curves")
    assert plot.stat().st_size > 0


@pytest.mark.parametrize("folder", sorted(path for path in DOCS.iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_tables_in_the_documentation_are_those_of_their_runs(folder: Path, tmp_path: Path) -> None:
    table, _ = write_convergence(folder, tmp_path / "again")
    assert table.read_text() == Path(f"{folder}.md").read_text()


def test_a_measurement_writes_a_file_per_run_extends_ranges_and_goes_on_where_it_was(
    write_spec: Any, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load(write_spec(space__batch_size=4, train={"samples": 12}))
    arms = [parse_arm("hyper_lora")]
    rates = {"hyper_lora": [1e-9, 2e-9, 4e-9]}
    files = bench_convergence(spec, tmp_path / "runs", arms=arms, rates=rates, seeds=2, quiet=True)
    runs = [json.loads(file.read_text()) for file in files]
    assert len(runs) > 4 and sorted({run["seed"] for run in runs}) == [0, 1]
    assert {len(run["loss"]) for run in runs} == {3}
    assert {tuple(step for step, _ in run["checks"]) for run in runs} == {(0, 1, 2, 3)}
    assert all(run["checks"][-1][1] == pytest.approx(run["validation_loss"], rel=1e-4) for run in runs)
    assert all(run["hypernetwork_parameters"] > 0 and run["hypernetwork_s"] > 0 for run in runs)

    def refuse(*_: Any) -> None:
        raise AssertionError("a run that is there was trained again")

    monkeypatch.setattr("raylora.bench.convergence._Runner._train", refuse)
    assert bench_convergence(spec, tmp_path / "runs", arms=arms, rates=rates, seeds=2, quiet=True) == files
    other = load(write_spec(space__batch_size=4, space__rank=4, train={"samples": 12}))
    with pytest.raises(UserError, match=r"has rank = 2, not 4; name another folder"):
        bench_convergence(other, tmp_path / "runs", arms=arms, rates=rates, seeds=2, quiet=True)


def test_the_command_names_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "convergence", "examples/convergence.yaml", "--to", str(tmp_path)]
    for arguments, message in (
        (["--arms", "lorra"], "--arms lorra: no such variant"),
        (["--arms", "lora@0.1/0.2/0.4", "--to", "/dev/null/x"], "--to /dev/null/x: "),
        (["--arms", "lora@0.1/x"], "--rates: 0.1,x; allowed: numbers above 0"),
        (["--arms", "lora", "--checks", "-1"], "--checks: -1; allowed: 0 or more"),
        (["--arms", "lora", "--seeds", "0"], "--seeds: 0; allowed: at least 1"),
    ):
        assert main([*command, *arguments]) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"raylora: {message}")
    assert main(["bench", "convergence-report", str(tmp_path), "--to", str(tmp_path / "x")]) == 2
