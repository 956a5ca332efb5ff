"""Each toolkit's folder against what its documentation calls things."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from raylora.run.recipes import TOOLKITS

# Configuration keys of each toolkit, by what they hold; dots lead into parts.
KEYS = {
    "trl": {
        "rank": "lora.r", "alpha": "lora.lora_alpha", "dropout": "lora.lora_dropout", "rate": "training.learning_rate",
        "micro": "training.per_device_train_batch_size", "accumulation": "training.gradient_accumulation_steps",
        "steps": "training.max_steps", "epochs": "training.num_train_epochs", "warmup": "training.warmup_steps",
        "schedule": "training.lr_scheduler_type", "length": "training.max_length", "seed": "training.seed",
        "decay": "training.weight_decay", "norm": "training.max_grad_norm", "placement": "lora.target_modules",
    },
    "llamafactory": {
        "rank": "lora_rank", "alpha": "lora_alpha", "dropout": "lora_dropout", "rate": "learning_rate",
        "micro": "per_device_train_batch_size", "accumulation": "gradient_accumulation_steps", "steps": "max_steps",
        "epochs": "num_train_epochs", "warmup": "warmup_steps", "schedule": "lr_scheduler_type", "length": "cutoff_len",
        "seed": "seed", "decay": "weight_decay", "norm": "max_grad_norm", "placement": "lora_target",
    },
    "axolotl": {
        "rank": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rate": "learning_rate",
        "micro": "micro_batch_size", "accumulation": "gradient_accumulation_steps", "steps": "max_steps",
        "epochs": "num_epochs", "warmup": "warmup_steps", "schedule": "lr_scheduler", "length": "sequence_len",
        "seed": "seed", "decay": "weight_decay", "norm": "max_grad_norm", "placement": "lora_target_linear",
    },
    "swift": {
        "rank": "lora_rank", "alpha": "lora_alpha", "dropout": "lora_dropout", "rate": "learning_rate",
        "micro": "per_device_train_batch_size", "accumulation": "gradient_accumulation_steps", "steps": "max_steps",
        "epochs": "num_train_epochs", "warmup": "warmup_steps", "schedule": "lr_scheduler_type", "length": "max_length",
        "seed": "seed", "decay": "weight_decay", "norm": "max_grad_norm", "placement": "target_modules",
    },
}  # fmt: skip
KEYS["unsloth"] = {**KEYS["trl"]}
KEYS["peft"] = {name: key for name, key in KEYS["trl"].items() if name != "length"}
WANTED = {
    "rank": 4, "alpha": 8, "dropout": 0.1, "rate": 1e-3, "micro": 2, "accumulation": 4, "steps": 12, "epochs": 2.0,
    "warmup": 2, "schedule": "cosine", "length": 64, "seed": 3, "decay": 0.01, "norm": 1.0,
}  # fmt: skip
EVERYWHERE = {
    "trl": "all-linear", "peft": "all-linear", "unsloth": ["k_proj", "q_proj"], "llamafactory": "all",
    "axolotl": True, "swift": ["all-linear"],
}  # fmt: skip
TOKENS, TEXT = ("trl", "peft", "unsloth", "axolotl"), ("llamafactory", "swift")


def written(name: str, recipe, examples, folder: Path) -> tuple[dict, list[dict], list[str]]:
    notes = TOOLKITS[name]().write(recipe, examples, folder)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return yaml.safe_load((folder / "recipe.yaml").read_text()), rows, notes


def at(settings: dict, key: str):
    for part in key.split("."):
        settings = settings[part]
    return settings


def test_every_toolkit_is_checked_here() -> None:
    assert set(TOOLKITS) == set(KEYS) == set(EVERYWHERE)


@pytest.mark.parametrize("name", KEYS)
def test_every_knob_is_there_under_the_toolkits_name(name, recipe, examples, tmp_path) -> None:
    settings, _, _ = written(name, recipe, examples, tmp_path)
    told = {what: at(settings, key) for what, key in KEYS[name].items() if what != "placement"}
    assert told == {what: WANTED[what] for what in told}
    assert at(settings, KEYS[name]["placement"]) == EVERYWHERE[name]


@pytest.mark.parametrize("name", TOKENS)
def test_rows_of_tokens_are_trained_on_where_the_spans_are(name, recipe, examples, tmp_path) -> None:
    _, rows, _ = written(name, recipe, examples, tmp_path)
    assert [row["input_ids"] for row in rows] == [list(one.ids) for one in examples]
    assert [row["labels"] for row in rows] == [one.labels for one in examples]
    assert all(len(row["attention_mask"]) == len(row["input_ids"]) for row in rows)


def test_rows_of_text_are_turns_that_the_toolkit_joins(recipe, examples, tmp_path) -> None:
    settings, rows, _ = written("llamafactory", recipe, examples, tmp_path)
    assert settings["template"] == "empty" and settings["dataset_dir"] == "."
    about = json.loads((tmp_path / "dataset_info.json").read_text())[settings["dataset"]]
    assert about["file_name"] == "train.jsonl" and about["columns"] == {"messages": "messages"}
    assert [len(row["messages"]) for row in rows] == [2, 4]
    assert [turn["role"] for turn in rows[1]["messages"]] == ["user", "assistant"] * 2


def test_swift_adds_the_end_token_itself_and_trains_on_the_last_turn(recipe, examples, tiny_model, tmp_path) -> None:
    from transformers import AutoTokenizer

    eos = AutoTokenizer.from_pretrained(tiny_model).eos_token
    settings, rows, notes = written("swift", recipe, examples, tmp_path)
    assert settings["template"] == "dummy" and settings["loss_scale"] == "last_round"
    assert not any(row["messages"][-1]["content"].endswith(eos) for row in rows)
    assert any("1 rows are trained on in their last turn alone" in note for note in notes)


def test_axolotl_says_how_it_weighs_micro_batches_where_there_are_several(recipe, examples, tmp_path) -> None:
    _, _, notes = written("axolotl", recipe, examples, tmp_path)
    assert any("mean of its micro-batches' means" in note for note in notes)


def test_swift_is_told_the_family_of_a_model_in_a_folder(recipe, examples, tmp_path) -> None:
    settings, _, _ = written("swift", recipe, examples, tmp_path)
    assert settings["model_type"] == "llama"


def test_swift_saves_one_checkpoint_where_training_ends_and_says_where(recipe, examples, tmp_path) -> None:
    settings, _, notes = written("swift", recipe, examples, tmp_path)
    assert (settings["save_strategy"], settings["save_steps"], settings["add_version"]) == ("steps", 12, False)
    assert "The adapter is in `adapter/checkpoint-12`." in notes


@pytest.mark.parametrize("name", KEYS)
def test_an_order_of_its_own_is_given_up_for_that_of_the_file(name, recipe, examples, tmp_path) -> None:
    settings, _, _ = written(name, recipe, examples, tmp_path)
    told = {
        "llamafactory": {"disable_shuffling": True},
        "axolotl": {"shuffle_merged_datasets": False, "curriculum_sampling": True},
        "swift": {"dataset_shuffle": False, "train_dataloader_shuffle": False},
    }.get(name)
    if told is None:
        settings, told = settings["training"], {"train_sampling_strategy": "sequential"}
    assert {key: settings[key] for key in told} == told


@pytest.mark.parametrize("name", KEYS)
def test_a_warm_up_that_starts_elsewhere_is_said(name, recipe, examples, tmp_path) -> None:
    _, _, notes = written(name, recipe, examples, tmp_path)
    assert any("warm-up rises from rate 0" in note for note in notes)


VARIANTS = [
    (name, variant) for name in KEYS for variant in ("rslora", "dora", "pissa", "lora_plus") if variant != "lora"
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_variant_is_told_in_the_toolkits_words_where_it_has_it(name, variant, recipe, examples, tmp_path) -> None:
    if variant not in TOOLKITS[name].variants:
        assert name in ("unsloth", "trl")
        return
    options = {"pissa": {"niter": 8}, "lora_plus": {"ratio": 4}}.get(variant, {})
    settings, _, _ = written(name, dataclasses.replace(recipe, variant=variant, extra=options), examples, tmp_path)
    flat = {**settings, **(settings.get("lora") or {})}
    words = {
        "rslora": {"axolotl": ("peft_use_rslora", True)},
        "dora": {"axolotl": ("peft_use_dora", True)},
        "pissa": {
            "axolotl": ("peft_init_lora_weights", "pissa_niter_8"),
            "swift": ("init_weights", "pissa_niter_8"),
            "llamafactory": ("pissa_iter", 8),
        },
        "lora_plus": {"swift": ("lorap_lr_ratio", 4.0)},
    }
    usual = {
        "rslora": ("use_rslora", True),
        "dora": ("use_dora", True),
        "pissa": ("init_lora_weights", "pissa_niter_8"),
        "lora_plus": ("loraplus_lr_ratio", 4.0),
    }
    key, value = words[variant].get(name, usual[variant])
    assert flat[key] == value


BITS = {
    "peft": {
        "quantization.load_in_4bit": True,
        "quantization.bnb_4bit_quant_type": "nf4",
        "quantization.bnb_4bit_use_double_quant": True,
    },
    "axolotl": {"adapter": "qlora", "load_in_4bit": True},
    "llamafactory": {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True},
    "swift": {"quant_bits": 4, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "unsloth": {"model.load_in_4bit": True, "model.load_in_8bit": False},
}
BITS["trl"] = BITS["peft"]


@pytest.mark.parametrize("name", KEYS)
def test_a_base_in_4_bits_is_told_in_the_toolkits_words(name, recipe, examples, tmp_path) -> None:
    settings, _, _ = written(name, dataclasses.replace(recipe, quantization="nf4"), examples, tmp_path)
    assert {key: at(settings, key) for key in BITS[name]} == BITS[name]


@pytest.mark.parametrize("name", KEYS)
def test_a_base_in_8_bits_is_told_and_a_plain_one_is_not(name, recipe, examples, tmp_path) -> None:
    key = {"llamafactory": "quantization_bit", "swift": "quant_bits", "axolotl": "load_in_8bit"}.get(name)
    for kind in ("int8", "none"):
        (tmp_path / kind).mkdir()
    eight, _, _ = written(name, dataclasses.replace(recipe, quantization="int8"), examples, tmp_path / "int8")
    plain, _, _ = written(name, recipe, examples, tmp_path / "none")
    if key is not None:
        assert eight[key] == (True if name == "axolotl" else 8) and key not in plain
    elif name == "unsloth":
        assert [settings["model"]["load_in_8bit"] for settings in (eight, plain)] == [True, False]
    else:
        assert eight["quantization"] == {"load_in_8bit": True} and "quantization" not in plain


@pytest.mark.parametrize("name", KEYS)
def test_matrix_types_are_named_where_the_placement_names_them(name, recipe, examples, tmp_path) -> None:
    few = dataclasses.replace(recipe, placement=("q_proj", "v_proj"), modules=("q_proj", "v_proj"))
    settings, _, _ = written(name, few, examples, tmp_path)
    key = {"axolotl": "lora_target_modules"}.get(name, KEYS[name]["placement"])
    told = at(settings, key)
    assert (told.split(",") if isinstance(told, str) else told) == ["q_proj", "v_proj"]


@pytest.mark.parametrize("name", ["trl", "peft", "unsloth"])
def test_a_script_beside_the_configuration_is_code(name, recipe, examples, tmp_path) -> None:
    written(name, recipe, examples, tmp_path)
    compile((tmp_path / "train.py").read_text(), "train.py", "exec")


def test_llamafactory_says_that_it_keeps_the_checkpoints_type(recipe, examples, tmp_path) -> None:
    _, _, notes = written("llamafactory", recipe, examples, tmp_path)
    assert any("was held in float32" in note for note in notes)
