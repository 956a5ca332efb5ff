from __future__ import annotations

import pytest

from raylora.build import train_settings
from raylora.cli import main
from raylora.errors import UserError
from raylora.run.fit import check_fit
from raylora.spec import load


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space__rank": [4096]}, "^space: variant lora: rank 4096 exceeds the smaller side of"),
        ({"space__placement": ["q_prj"]}, "^space: placement 'q_prj' matches no matrix: use"),
        ({"space__extra": {"niter": [4, -1]}}, "^space: variant pissa: option niter is -1: use a whole"),
        ({"default_recipe": {"rank": 999}}, "^default_recipe: variant lora: rank 999 exceeds"),
    ],
)
def test_what_cannot_be_attached_is_refused(write_spec, ray_local, tiny_model, changes, message) -> None:
    spec = load(write_spec(**changes))
    with pytest.raises(UserError, match=message):
        check_fit(spec, train_settings(spec, 8), str(tiny_model), [])


def test_what_fits_passes(write_spec, ray_local, tiny_model) -> None:
    spec = load(write_spec())
    check_fit(spec, train_settings(spec, 8), str(tiny_model), [])


def test_a_default_recipe_that_is_not_trained_need_not_fit(write_spec, ray_local, tiny_model) -> None:
    spec = load(write_spec(default_recipe={"rank": 999}, final={"enabled": False}))
    check_fit(spec, train_settings(spec, 8), str(tiny_model), [])


def test_a_host_refuses_before_anything_is_trained(write_spec, ray_local, tmp_path, capsys) -> None:
    assert main(["tune", str(write_spec(space__rank=[4096])), "--quiet"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("raylora: space: variant lora: rank 4096 exceeds")
    assert not (tmp_path / "runs" / "run" / "trials.jsonl").exists()
