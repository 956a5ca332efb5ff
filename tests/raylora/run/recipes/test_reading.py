from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from raylora.errors import UserError
from raylora.run.recipes import TOOLKITS
from raylora.run.recipes.reading import recipe_from
from raylora.spec import from_dict


@pytest.mark.parametrize("name", ["axolotl", "llamafactory"])
def test_what_was_exported_is_read_back(name, recipe, examples, tmp_path) -> None:
    TOOLKITS[name]().write(recipe, examples, tmp_path)
    told = recipe_from(tmp_path / "recipe.yaml")
    assert told["model"] == recipe.model and told["seed"] == 3
    assert told["task"] == {"path": str(tmp_path / "train.jsonl"), "max_length": 64}
    assert told["default_recipe"] == {
        "variant": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.1, "learning_rate": 1e-3, "batch_size": 8,
    }  # fmt: skip
    assert from_dict(told).default_recipe.rank == 4


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("name", ["axolotl", "llamafactory"])
def test_a_schedule_is_read_back(name, schedule, recipe, examples, tmp_path) -> None:
    TOOLKITS[name]().write(replace(recipe, schedule=schedule), examples, tmp_path)
    told = recipe_from(tmp_path / "recipe.yaml")
    assert told["train"]["schedule"] == schedule and from_dict(told).train.schedule == schedule


def test_a_schedule_that_is_not_here_is_left_to_the_default(tmp_path) -> None:
    settings = {"base_model": "org/base", "adapter": "lora", "lr_scheduler": "cosine_with_restarts"}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(settings))
    assert "schedule" not in recipe_from(tmp_path / "a.yaml").get("train", {})


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("name", ["axolotl", "llamafactory"])
def test_a_quantised_base_is_read_back(name, kind, recipe, examples, tmp_path) -> None:
    TOOLKITS[name]().write(replace(recipe, quantization=kind), examples, tmp_path)
    told = recipe_from(tmp_path / "recipe.yaml")
    assert told["quantization"] == kind and from_dict(told).quantization == kind


def test_an_adapter_is_read_from_its_folder(tmp_path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 16, "lora_alpha": 32, "use_dora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["v_proj", "q_proj"]}))
    told = recipe_from(tmp_path)
    assert told["model"] == "org/base" and told["space"] == {"placement": ["q_proj", "v_proj"]}
    assert told["default_recipe"] == {"variant": "dora", "rank": 16, "alpha": 32.0, "dropout": 0.0}


def test_a_rate_that_yaml_reads_as_text_is_a_number(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("base_model: org/base\nadapter: lora\nlearning_rate: 2e-4\n")
    assert recipe_from(tmp_path / "a.yaml")["default_recipe"]["learning_rate"] == 2e-4


@pytest.mark.parametrize(
    ("settings", "variant", "extra"),
    [
        ({"peft_init_lora_weights": "pissa_niter_8"}, "pissa", {"niter": 8}),
        ({"loraplus_lr_ratio": 4}, "lora_plus", {"ratio": 4.0}),
        ({"peft_use_rslora": True}, "rslora", None),
    ],
)
def test_a_variant_is_known_by_the_toolkits_words(settings, variant, extra, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"base_model": "org/base", "adapter": "lora", **settings}))
    told = recipe_from(tmp_path / "a.yaml")["default_recipe"]
    assert told["variant"] == variant and told.get("extra") == extra


@pytest.mark.parametrize("text", ["- a\n", "some: thing\n", "base_model: a\nadapter: null\n", "a: [\n"])
def test_any_other_file_is_one_line(text, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match="--from") as caught:
        recipe_from(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="No such file"):
        recipe_from(tmp_path / "none.yaml")
