"""ms-swift: `swift sft` over turns of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.models import resolve
from raylora.run.recipes.core.base import CONFIG, Toolkit, adapter_settings, trainer_settings, write_yaml
from raylora.run.recipes.core.notes import changed_rows_note, schedule_notes
from raylora.run.recipes.core.recipe import Recipe
from raylora.run.recipes.core.rows import Example, changed_by_text, turns_of, write_messages
from raylora.run.recipes.core.tokenizer import tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Families that it calls as transformers does. It refuses a folder whose architecture several of its types have.
_FAMILIES = frozenset(
    ("gemma", "gemma2", "gemma3_text", "gpt_oss", "llama", "mistral", "olmoe", "phi3", "qwen2", "qwen2_moe", "qwen3")
)


class Swift(Toolkit):
    """The rows are rendered already, so its template is `dummy`: the prompt as it is, the answer, the end token.

    That template has one turn: of a conversation the earlier turns are part of the prompt.
    """

    name = "swift"
    requirement = "ms-swift==4.6.0"
    command = f"swift sft {CONFIG}"
    variants = Toolkit.variants | {"lora_plus"}
    whole_alpha = True

    def write(self, recipe: Recipe, examples: list[Example], folder: Path) -> list[str]:
        tokenizer = tokenizer_of(recipe.model)
        last = [Example(one.ids, one.spans[-1:]) for one in examples]
        turns = [turns_of(one, tokenizer) for one in last]
        notes = schedule_notes(recipe) + changed_rows_note(changed_by_text(last, turns, tokenizer), len(last))
        several = sum(len(one.spans) > 1 for one in examples)
        if several:
            notes.append(f"{several} rows are trained on in their last turn alone; here in all of the assistant's.")
        ended = [_ended_by_template(row, tokenizer) for row in turns]
        if not all(ended):
            notes.append(
                f"{ended.count(False)} rows end with another token than {tokenizer.eos_token}: swift adds that one too."
            )
        write_messages(turns, folder / "train.jsonl")
        settings: dict[str, object] = {
            "model": recipe.model,
            "model_type": _model_type(recipe.model),
            "use_hf": True,
            "torch_dtype": recipe.dtype,
            "tuner_type": "lora",
            **_bits(recipe),
            **adapter_settings(recipe),
            "target_modules": [recipe.placement] if isinstance(recipe.placement, str) else list(recipe.placement),
            "init_weights": recipe.pissa or "true",
            "lorap_lr_ratio": recipe.rate_ratio,
            "dataset": ["train.jsonl"],
            "split_dataset_ratio": 0,
            "dataset_shuffle": False,
            "train_dataloader_shuffle": False,
            "template": "dummy",
            "loss_scale": "last_round",
            "max_length": recipe.max_length,
            "truncation_strategy": "delete",
            **trainer_settings(recipe),
            "bf16": False,
            # It saves checkpoints alone: one, where training ends, in a folder without a version and the time.
            "add_version": False,
            "save_strategy": "steps",
            "save_steps": recipe.steps,
            "save_only_model": True,
        }
        write_yaml(folder, settings, self.command)
        notes.append(f"The adapter is in `{settings['output_dir']}/checkpoint-{recipe.steps}`.")
        return notes


def _bits(recipe: Recipe) -> dict[str, object]:
    if recipe.quantization == "none":
        return {}
    told: dict[str, object] = {"quant_method": "bnb", "quant_bits": 8}
    if recipe.quantization == "nf4":
        told |= {"quant_bits": 4, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    return told


def _model_type(model: str) -> str | None:
    """The family by its name there; None where that is another, or none, and it is left to find one."""
    family = json.loads((resolve(model, quiet=True) / "config.json").read_text())["model_type"]
    return family if family in _FAMILIES else None


def _ended_by_template(turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Takes off what the template adds by itself: the end token, and the token that begins a text."""
    bos, eos, answer = tokenizer.bos_token, str(tokenizer.eos_token), turns[-1]
    adds_bos = bos is not None and list(tokenizer("")["input_ids"][:1]) == [tokenizer.bos_token_id]
    if adds_bos:
        turns[0]["content"] = turns[0]["content"].removeprefix(str(bos))
    ended = answer["content"].endswith(eos)
    answer["content"] = answer["content"].removesuffix(eos)
    return ended
