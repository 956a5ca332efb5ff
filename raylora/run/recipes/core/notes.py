"""Sentences on what toolkits do otherwise, told in the folder's README and on the terminal."""

from __future__ import annotations

from raylora.run.recipes.core.recipe import Recipe


def schedule_notes(recipe: Recipe) -> list[str]:
    """What the schedule and the epochs of transformers' Trainer do otherwise."""
    notes = []
    if recipe.warmup_steps:
        notes.append(
            f"The warm-up rises from rate 0; here it rose from 1/{recipe.warmup_steps + 1} of the rate, over the same "
            f"{recipe.warmup_steps} steps."
        )
    if recipe.epochs > 1:
        notes.append(
            "Each epoch has the rows in the order of the file, and ends with a short batch where they do not divide; "
            "here each epoch had an order of its own and batches ran on over its end."
        )
    return notes


def quantized_notes(recipe: Recipe) -> list[str]:
    """What bitsandbytes' layers do otherwise."""
    if recipe.quantization != "int8":
        return []
    return ["Its 8-bit layers quantise their inputs too; here the weights alone were quantised."]


def changed_rows_note(count: int, rows: int) -> list[str]:
    """That the toolkit reads text, where that changes rows."""
    if not count:
        return []
    return [f"{count} of {rows} rows have other tokens when they are read as text."]
