"""`raylora curvature`, and what a search makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raylora.cli import main
from raylora.curvature import measure as curvature
from raylora.curvature.figures import read_figures
from raylora.errors import UserError
from raylora.metrics.statistics import spearman
from raylora.reports.curvature import compare, table
from raylora.run.checks import load_checked
from raylora.run.searcher import build_searcher
from raylora.spec import load


def record(variant: str, layer: int, eigenvalue: float, converged: bool = True) -> dict[str, Any]:
    matrix = f"model.layers.{layer}.self_attn.q_proj"
    return {
        "variant": variant,
        "matrix": matrix,
        "layer": layer,
        "type": "q_proj",
        "eigenvalue": eigenvalue,
        "error": 0.0,
        "products": 5,
        "converged": converged,
        "seconds": 1.0,
    }


def figures(records: list[dict[str, Any]], **knobs: Any) -> dict[str, Any]:
    curvature.with_ratios(records)
    about = {"knobs": {"rank": 16, "alpha_ratio": 1, **knobs}}
    return {"about": about, "blocks": records, "variants": curvature.relative(records)}


def example() -> dict[str, Any]:
    records = [record("lora", layer, 1.0 + layer) for layer in range(3)]
    records += [record("pissa", layer, ratio * (1.0 + layer)) for layer, ratio in enumerate((5.0, 10.0, 40.0))]
    return figures(records + [record("init_ab", layer, 1.2 * (1.0 + layer), layer != 1) for layer in range(3)])


def test_rate_is_the_inverse_of_the_median_ratio_of_curvature_over_blocks() -> None:
    found = example()["variants"]
    assert found["lora"]["rate"] == 1.0 and found["pissa"]["blocks"] == 3
    assert found["pissa"]["curvature"] == pytest.approx(10) and found["pissa"]["rate"] == pytest.approx(0.1)
    assert 1 / 40 < found["pissa"]["rate_low"] < 0.1 < found["pissa"]["rate_high"] < 1 / 5


def test_blocks_without_positive_curvature_have_no_ratio() -> None:
    records = [record("lora", 0, 1.0), record("lora", 1, -1.0), record("lora", 2, 1.0)]
    records += [record("pissa", 0, 4.0), record("pissa", 1, 4.0), record("pissa", 2, -4.0)]
    found = figures(records)
    assert [r["ratio"] for r in found["blocks"][3:]] == [4.0, None, None]
    assert found["variants"]["pissa"]["blocks"] == 1


def test_prior_gets_ratios_of_effective_rates() -> None:
    records = [record("lora", 0, 1.0), record("pissa", 0, 10.0), record("rslora", 0, 16.0)]
    ratios = curvature.prior_ratios(figures(records))
    # rsLoRA's scale is alpha / sqrt(r): at rank 16 four times LoRA's.
    assert ratios == {"pissa": pytest.approx(0.1), "rslora": pytest.approx(4 / 16)}


def test_table_is_in_the_order_of_the_medians_and_marks_what_did_not_converge() -> None:
    columns, rows = table(example())
    assert columns[:4] == ["variant", "0 q_proj", "1 q_proj", "2 q_proj"]
    assert [row[0] for row in rows] == ["lora", "init_ab", "pissa"]
    assert rows[1][1:4] == ["1.2", "1.2?", "1.2"] and rows[2][5] == "about 10 times"


def test_rank_correlation_with_a_trained_sweep(tmp_path) -> None:
    best = {"lora": 1e-3, "pissa": 1e-4, "init_ab": 5e-4}
    runs = []
    for variant, rate in best.items():
        for factor in (0.1, 1, 10):
            loss = 1.0 if factor == 1 else 2.0
            config = {"variant": variant, "learning_rate": rate * factor}
            runs.append({"config": config, "accuracy": 1 / loss, "validation_loss": loss, "diverged": False})
    file = tmp_path / "records.json"
    file.write_text(json.dumps({"about": {"metric": "accuracy", "mode": "max"}, "runs": runs}))
    compared = compare(example(), file)
    assert compared["rank_correlation"] == pytest.approx(1.0) and compared["variants"] == 3
    assert compared["measured"]["pissa"] == pytest.approx(0.1)
    columns, rows = table(example(), compared)
    assert columns[-1] == "measured" and rows[2][-1] == "0.1"


def test_spearman_shares_ranks_among_ties() -> None:
    assert spearman([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(0.8660254)


def test_command_measures_draws_and_shows_its_figures_again(
    write_spec, ray_local, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, file = write_spec(), tmp_path / "figures.json"
    assert main(["curvature", str(spec), "--variants", "pissa", "--tokens", "60", "--json", str(file)]) == 0
    out = capsys.readouterr()
    assert "one Hessian-vector product takes" in out.err and "at most" in out.err and "[4/4] pissa" in out.err
    assert "plot: " in out.out and file.with_suffix(".svg").exists()
    found = json.loads(file.read_text())
    assert set(found["variants"]) == {"lora", "pissa"} and len(found["blocks"]) == 4
    assert found["variants"]["pissa"]["curvature"] > 0
    assert found["about"]["knobs"]["rank"] == 4 and found["about"]["tokens"] <= 60
    assert main(["curvature", str(file), "--plot", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").exists() and "pissa" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused_in_one_line(write_spec, ray_local, tmp_path, capsys) -> None:
    spec = write_spec()
    other = tmp_path / "other.json"
    other.write_text("[]")
    for arguments, message in (
        ([str(spec), "--variants", "pisa"], "--variants pisa: no such variant; did you mean 'pissa'?"),
        ([str(spec), "--variants", "full"], "--variants full: it trains no factors of an update; allowed: adalora"),
        ([str(spec), "--layers", "one"], "--layers: one; allowed: whole numbers"),
        ([str(spec), "--layers", "7"], "--layers 7: no such layer; allowed: 0 to 1"),
        ([str(spec), "--types", "query"], "--types query: no such matrix type; allowed: q_proj"),
        ([str(spec), "--tolerance", "2"], "--tolerance: 2.0; allowed: above 0, below 1"),
        ([str(tmp_path / "none.json")], f"SPEC: {tmp_path / 'none.json'} does not exist"),
        ([str(other), "--layers", "1"], f"SPEC: {other} holds figures; give the spec"),
        ([str(spec), "--sweep", "none.json"], "SOURCE: none.json"),
        ([str(other)], f"SPEC: {other} holds no figures"),
    ):
        assert main(["curvature", "--quiet", *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"raylora: {message}")


def test_variants_of_the_space_are_measured_unless_they_cannot_be(write_spec) -> None:
    spec, said = load(write_spec(space__variant=["full", "pissa", "lora"])), []
    assert curvature.choose_variants(spec, (), ["lora", "olora", "pissa"], said.append) == ["lora", "pissa"]
    assert said == ["not measured: full, whose rates this does not tell"]


def test_search_measures_before_its_hosts_start_and_once(write_spec, ray_local, tmp_path, monkeypatch) -> None:
    from raylora import build, models
    from raylora.progress import Progress
    from raylora.run import prepare

    spec = load(write_spec(search__searcher="language", search__knowledge__curvature=True))
    task = build.build_task(spec)
    folder = str(models.resolve(spec.model))
    prepared = build.build_data(spec, task, folder)
    settings = build.train_settings(spec, prepared.counts["proxy"])
    arguments = (spec, tmp_path, folder, settings, prepared.proxy, Progress(quiet=True))
    ratios = prepare.measured_ratios(*arguments)
    assert set(ratios) == {"pissa"} and ratios["pissa"] > 0
    monkeypatch.setattr(curvature, "measure_on_cluster", None)
    assert prepare.measured_ratios(*arguments) == ratios
    searcher = build_searcher(spec, task, settings.samples, ratios=ratios)
    assert searcher.setup.ratios == ratios
    kin = spec.model_copy(update={"space": spec.space.model_copy(update={"variant": ["lora", "loft"]})})
    # Whatever was measured of LoFT: its steps are those of full fine-tuning.
    assert build_searcher(kin, task, settings.samples, ratios={"loft": 3.0}).setup.ratios == {"loft": 0.1}


def test_a_users_error_in_the_actor_stays_one_line(write_spec, ray_local, monkeypatch) -> None:
    from raylora import build, models

    spec = load(
        write_spec(search__searcher="language", search__knowledge__curvature=True, space__placement=["nothing"])
    )
    folder = str(models.resolve(spec.model))
    prepared = build.build_data(spec, build.build_task(spec), folder)
    settings = build.train_settings(spec, prepared.counts["proxy"])
    with pytest.raises(UserError, match=r"^[^\n]*nothing[^\n]*$"):
        curvature.measure_on_cluster(spec, folder, settings, prepared.proxy, lambda text: None)


def test_curvature_in_a_search_that_uses_no_knowledge_is_refused(write_spec) -> None:
    file: Path = write_spec(search__knowledge__curvature=True)
    with pytest.raises(UserError, match=r"search.knowledge.curvature = True: search.searcher = 'random' has no use"):
        load_checked(file)
    with pytest.raises(
        UserError, match=r"language has no use for it with search.options = .*'paper'.*; allowed: other options"
    ):
        load_checked(file, ["search.searcher=language", "search.options={preset: paper}"])


def test_the_correlation_in_the_docs_is_what_its_figures_say() -> None:
    docs = Path(__file__).parents[3] / "docs"
    figures = read_figures(docs / "sweeps" / "curvature.json")
    found = compare(figures, docs / "sweeps" / "learning_rates.records.json")
    said = f"The rank correlation of predicted and measured best rates is {found['rank_correlation']:.2f} over the six."
    assert found["variants"] == 6
    assert said in " ".join((docs / "curvature.md").read_text().split())
