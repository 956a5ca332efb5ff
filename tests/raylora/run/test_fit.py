"""The space fitted to a model: what is left out, what is told of it, what is refused."""

from __future__ import annotations

import pytest

from raylora.build import train_settings
from raylora.cli import main
from raylora.errors import UserError
from raylora.run.fit import Fitted, fit_space
from raylora.spec import load


@pytest.fixture
def fit(write_spec, ray_local, tiny_model):
    def fit(samples: int = 64, **changes) -> Fitted:
        spec = load(write_spec(**changes))
        return fit_space(spec, train_settings(spec, samples), str(tiny_model), [])

    return fit


@pytest.mark.parametrize(
    ("changes", "message", "field", "value"),
    [
        ({"space__variant": "pissa", "space__rank": [4096]}, "pissa: rank 4096 exceeds", "space.rank", 4096),
        ({"space__placement": ["q_prj"]}, "placement 'q_prj' matches no matrix: use", "space.placement", "q_prj"),
        (
            {"space__variant": "pissa", "space__extra": {"niter": [-1]}},
            "variant pissa: option niter is -1",
            "space.extra.niter",
            -1,
        ),
        (
            {"default_recipe": {"variant": "pissa", "rank": 999}},
            "variant pissa: rank 999 exceeds",
            "default_recipe.rank",
            999,
        ),
    ],
)
def test_where_nothing_is_left_the_spec_is_refused(fit, changes, message, field, value) -> None:
    with pytest.raises(UserError, match=f"^{field.partition('.')[0]}: .*{message}") as caught:
        fit(**changes)
    assert (caught.value.field, caught.value.value) == (field, value)


def test_what_fits_is_searched_as_it_is(fit, write_spec) -> None:
    fitted = fit()
    assert fitted == Fitted(load(write_spec()).to_space(), None)


def test_a_default_recipe_that_is_not_trained_need_not_fit(fit) -> None:
    assert fit(default_recipe={"variant": "pissa", "rank": 999}, final={"enabled": False}).left_out is None


def test_a_rank_is_left_to_the_variants_that_can_have_it(fit) -> None:
    fitted = fit(space__rank=[2, 4, 256])
    whole, limited = ({fitted.space.decode(i)["rank"] for i in range(len(fitted.space))
                       if fitted.space.decode(i)["variant"] == name} for name in ("lora", "pissa"))  # fmt: skip
    assert (whole, limited) == ({2, 4, 256}, {2, 4})
    assert fitted.left_out is not None
    assert fitted.left_out.startswith("space: left out rank 256 for pissa (rank 256 exceeds the smaller side of")


def test_a_variant_that_the_model_cannot_have_is_left_out(fit) -> None:
    fitted = fit(space__variant=["pissa", "lora"], space__rank=[64, 256])
    assert {fitted.space.decode(i)["variant"] for i in range(len(fitted.space))} == {"lora"}
    assert "variant pissa (rank 64 exceeds" in str(fitted.left_out)


def test_an_option_is_left_to_the_ranks_that_can_have_it(fit) -> None:
    fitted = fit(space__variant=["lora", "dylora"], space__rank=[2, 8], space__extra={"r_min": [1, 8, 0]})
    configs = [fitted.space.decode(i) for i in range(len(fitted.space))]
    assert {(c["rank"], c["r_min"]) for c in configs if c["variant"] == "dylora"} == {(2, 1), (8, 1), (8, 8)}
    assert not any("r_min" in c for c in configs if c["variant"] == "lora")


def test_batches_larger_than_a_trial_are_one_batch_and_left_out(fit) -> None:
    fitted = fit(samples=6)
    assert {fitted.space.decode(i)["batch_size"] for i in range(len(fitted.space))} == {4}
    assert fitted.left_out == "space: left out batch_size 8 (a trial has 6 samples)"
    assert fit(samples=2).left_out == "space: left out batch_size 8 (a trial has 2 samples)"


def test_the_default_space_fits_a_model_of_tiny_matrices(fit) -> None:
    fitted = fit(space={}, samples=1000)
    assert len(fitted.space) == 54_432 and fitted.left_out is None


def test_a_host_refuses_before_anything_is_trained(write_spec, ray_local, tmp_path, capsys) -> None:
    changes = {"space__variant": "pissa", "space__rank": [4096]}
    assert main(["tune", str(write_spec(**changes)), "--quiet"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("raylora: space: variant pissa: rank 4096 exceeds")
    assert not (tmp_path / "runs" / "run" / "trials.jsonl").exists()
