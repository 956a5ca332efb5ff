"""LLaMA-Factory: `llamafactory-cli train` over turns of text."""

from __future__ import annotations

import json
from pathlib import Path

from raylora.run.recipes.core.base import CONFIG, Toolkit, adapter_settings, trainer_settings, write_yaml
from raylora.run.recipes.core.notes import changed_rows_note, schedule_notes
from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example, changed_by_text, turns_of, write_messages
from raylora.run.recipes.core.tokenizer import tokenizer_of


class LlamaFactory(Toolkit):
    """The rows are rendered already, so its template is `empty`: it joins the turns and trains on the assistant's."""

    name = "llamafactory"
    requirement = "llamafactory==0.9.5"
    command = f"llamafactory-cli train {CONFIG}"
    variants = Toolkit.variants | {"lora_plus"}
    whole_alpha = True

    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        tokenizer = tokenizer_of(recipe.model)
        turns = [turns_of(one, tokenizer) for one in examples]
        write_messages(turns, folder / "train.jsonl")
        about = {
            "train": {
                "file_name": "train.jsonl",
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                },
            }
        }
        (folder / "dataset_info.json").write_text(json.dumps(about, indent=2) + "\n")
        placement = recipe.placement
        settings = {
            "model_name_or_path": recipe.model,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            **_bits(recipe),
            **adapter_settings(recipe),
            "lora_target": "all" if isinstance(placement, str) else ",".join(placement),
            "pissa_init": bool(recipe.pissa),
            "pissa_iter": recipe.extra.get("niter", 4) if recipe.pissa else None,
            "loraplus_lr_ratio": recipe.rate_ratio,
            "dataset_dir": ".",
            "dataset": "train",
            "template": "empty",
            "cutoff_len": recipe.max_length,
            "mask_history": False,
            "disable_shuffling": True,
            **trainer_settings(recipe),
            "gradient_checkpointing": None,
            "disable_gradient_checkpointing": True,
            # The base in bf16 and the adapter in fp32, without autocast: as it was trained.
            "pure_bf16": False,
            "bf16": recipe.dtype == "bfloat16",
        }
        write_yaml(folder, settings, self.command)
        notes = schedule_notes(recipe) + changed_rows_note(changed_by_text(examples, turns, tokenizer), len(examples))
        if recipe.dtype == "bfloat16":
            notes.append("Its training is under bf16 autocast; here the adapter was fp32 over a bf16 base without any.")
        else:
            notes.append(
                "The base is held in bf16 where its checkpoint is and the device can: no setting says otherwise. Here "
                "it was held in float32."
            )
        return notes


def _bits(recipe: Recipe) -> dict[str, object]:
    if recipe.quantization == "none":
        return {}
    told: dict[str, object] = {"quantization_method": "bnb", "quantization_bit": 8}
    if recipe.quantization == "nf4":
        told |= {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True}
    return told
