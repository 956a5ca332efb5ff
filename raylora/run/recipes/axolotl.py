"""Axolotl: `axolotl train` over tokenised rows."""

from __future__ import annotations

from pathlib import Path

from raylora.run.recipes.core.base import CONFIG, Toolkit, write_yaml
from raylora.run.recipes.core.notes import schedule_notes
from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example, write_tokens


class Axolotl(Toolkit):
    """A data set without a `type` has `input_ids`, `attention_mask` and `labels`."""

    name = "axolotl"
    requirement = "axolotl==0.19.0"
    command = f"axolotl train {CONFIG} --launcher python"
    variants = Toolkit.variants | {"lora_plus"}
    whole_alpha = True

    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        write_tokens(examples, folder / "train.jsonl")
        everywhere = isinstance(recipe.placement, str)
        settings: dict[str, object] = {
            "base_model": recipe.model,
            "datasets": [{"path": "train.jsonl", "ds_type": "json", "type": None}],
            "dataset_prepared_path": "prepared",
            "val_set_size": 0,
            "sequence_len": recipe.max_length,
            "sample_packing": False,
            "pad_to_sequence_len": False,
            "shuffle_merged_datasets": False,
            "curriculum_sampling": True,
            # Over 4 bits its name is another; they are nf4 with double quantisation.
            "adapter": "qlora" if recipe.quantization == "nf4" else "lora",
            "load_in_4bit": True if recipe.quantization == "nf4" else None,
            "load_in_8bit": True if recipe.quantization == "int8" else None,
            "lora_r": recipe.rank,
            "lora_alpha": int(recipe.alpha),
            "lora_dropout": recipe.dropout,
            "lora_target_linear": True if everywhere else None,
            "lora_target_modules": None if everywhere else list(recipe.placement),
            "peft_use_rslora": recipe.variant == "rslora",
            "peft_use_dora": recipe.variant == "dora",
            "peft_init_lora_weights": recipe.pissa,
            "loraplus_lr_ratio": recipe.rate_ratio,
            # Kernels of its own that it would choose for itself, and that need a GPU.
            "lora_mlp_kernel": False,
            "lora_qkv_kernel": False,
            "lora_o_kernel": False,
            "micro_batch_size": recipe.micro_batch,
            "gradient_accumulation_steps": recipe.accumulation,
            "num_epochs": recipe.epochs,
            "max_steps": recipe.steps,
            "optimizer": "adamw_torch",
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "learning_rate": recipe.learning_rate,
            "lr_scheduler": recipe.scheduler,
            "warmup_steps": recipe.warmup_steps,
            "weight_decay": recipe.weight_decay,
            "max_grad_norm": recipe.max_grad_norm,
            "seed": recipe.seed,
            "bf16": False,
            "bfloat16": True if recipe.dtype == "bfloat16" else None,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "save_strategy": "no",  # but for the adapter at the end
            "output_dir": "adapter",
        }
        write_yaml(folder, settings, self.command)
        notes = schedule_notes(recipe)
        if recipe.accumulation > 1:
            notes.append(
                "A step's loss is the mean of its micro-batches' means; here it was the mean over the batch's tokens, "
                "so that rows with long answers count more."
            )
        return notes
