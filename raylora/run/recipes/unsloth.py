"""Unsloth: its model under TRL's SFTTrainer, over tokenised rows."""

from __future__ import annotations

from pathlib import Path

from raylora.run.recipes.core.base import Toolkit, trainer_settings, write_yaml
from raylora.run.recipes.core.notes import schedule_notes
from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example, write_tokens
from raylora.run.recipes.core.scripts import copy_script


class Unsloth(Toolkit):
    """`train.py` gives `recipe.yaml` to `FastLanguageModel` and `SFTConfig`. It has neither DoRA nor PiSSA's start."""

    name = "unsloth"
    requirement = "unsloth==2026.10.9"
    command = "python train.py"
    variants = frozenset({"lora", "rslora"})

    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        settings = {
            "model": {
                "model_name": recipe.model,
                "max_seq_length": recipe.max_length,
                "dtype": recipe.dtype,
                # In nf4 with double quantisation.
                "load_in_4bit": recipe.quantization == "nf4",
                "load_in_8bit": recipe.quantization == "int8",
            },
            "lora": {
                "r": recipe.rank,
                "lora_alpha": recipe.alpha,
                "lora_dropout": recipe.dropout,
                "target_modules": list(recipe.modules),
                "bias": "none",
                "use_rslora": recipe.variant == "rslora",
                "use_gradient_checkpointing": False,
                "random_state": recipe.seed,
            },
            "training": {
                **trainer_settings(recipe),
                "max_length": recipe.max_length,
                "packing": False,
                "train_sampling_strategy": "sequential",
                "bf16": recipe.dtype == "bfloat16",
            },
        }
        write_yaml(folder, settings, self.command)
        write_tokens(examples, folder / "train.jsonl")
        copy_script("unsloth_sft", folder)
        notes = schedule_notes(recipe)
        if recipe.dtype == "bfloat16":
            notes.append("Its training is under bf16 autocast; here the adapter was fp32 over a bf16 base without any.")
        return notes
