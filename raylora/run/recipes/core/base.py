"""What a toolkit is to an export: which variants it trains, and how it wants configuration and rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import yaml

from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example

CONFIG = "recipe.yaml"


class Toolkit(ABC):
    """Writes a folder that a toolkit trains from.

    Attributes:
        name: what `--recipe` calls it.
        requirement: the package, with the version that its configuration was written for.
        command: what to run in the folder.
        variants: those that it trains as raylora does.
        whole_alpha: whether alpha has to be a whole number.
        over_quantized: which of the variants it trains over a quantised base, too.
    """

    name: ClassVar[str] = ""
    requirement: ClassVar[str] = ""
    command: ClassVar[str] = ""
    variants: ClassVar[frozenset[str]] = frozenset({"lora", "rslora", "dora", "pissa"})
    whole_alpha: ClassVar[bool] = False
    # PiSSA's start, as PEFT has it, takes its factors out of a dense weight.
    over_quantized: ClassVar[frozenset[str]] = frozenset({"lora", "rslora", "dora", "lora_plus"})

    @abstractmethod
    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        """Writes configuration and rows; returns what the toolkit does otherwise, a sentence each.

        Args:
            recipe: its variant is one of `variants`.
            examples: the train rows, in the order of the first epoch.
            folder: exists and is empty.
        """


def write_yaml(folder: Path, settings: Mapping[str, object], command: str) -> None:
    """`recipe.yaml`; settings that are None are left out."""
    told = {name: value for name, value in settings.items() if value is not None}
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=110)
    (folder / CONFIG).write_text(f"# {command}\n{text}", encoding="utf-8")


def trainer_settings(recipe: Recipe) -> dict[str, object]:
    """The recipe in the words of `transformers.TrainingArguments`, which most toolkits share."""
    return {
        "output_dir": "adapter",
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup_steps,
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }


def adapter_settings(recipe: Recipe) -> dict[str, object]:
    """The recipe in the words that LLaMA-Factory and ms-swift share."""
    return {
        "lora_rank": recipe.rank,
        "lora_alpha": int(recipe.alpha),
        "lora_dropout": recipe.dropout,
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
    }


def bits_settings(recipe: Recipe) -> dict[str, object] | None:
    """The base's quantisation in the words of `transformers.BitsAndBytesConfig`; None for a base without."""
    if recipe.quantization == "none":
        return None
    if recipe.quantization == "int8":
        return {"load_in_8bit": True}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": recipe.dtype,
    }


def lora_settings(recipe: Recipe) -> dict[str, object]:
    """The recipe in the words of `peft.LoraConfig`."""
    return {
        "task_type": "CAUSAL_LM",
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        "target_modules": recipe.placement if isinstance(recipe.placement, str) else list(recipe.placement),
        "bias": "none",
        "use_rslora": recipe.variant == "rslora",
        "use_dora": recipe.variant == "dora",
        "init_lora_weights": recipe.pissa or True,
    }
