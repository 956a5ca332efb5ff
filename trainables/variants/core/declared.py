"""What a variant declares about itself for those who plan a search, and have no use for torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

# How alpha scales the update; `1` where the method does not read it.
SCALES = ("alpha / rank", "alpha / sqrt(rank)", "1")


@dataclass(frozen=True)
class Declared:
    """Class attributes of a variant that are read without importing it.

    Attributes:
        scale_rule: how alpha scales the update, one of `SCALES`.
        rate_of: name of the variant whose best learning rate this one shares by construction, whatever is measured at
            its start; None where it has a rate of its own.
        actor: `module:function` that starts the actor which all its trials of a search share, or None. The module must
            import without torch. The function is called in the searching process with the folder of the search's
            checkpoints, in which the actor keeps to a folder of its own; trials get the handle as `Surroundings.actor`.
        step_time, activations: of an optimizer step, over plain LoRA's at the same rank, as `raylora bench variants`
            measures them (docs/variants.md).
        trains_whole: whether the adapted matrices themselves are trained, so that gradients and optimizer are of their
            size.
        shares_pass: how its trials share forward passes with trials of other adapters (`trainables.packed`): "factors"
            where its update is that of `Variant.lora_part`; "layer" where it is a layer around each matrix
            (`base_layer`) that adds to the base's product and keeps nothing from one call to the next; "" where they
            cannot.
        float32_only: whether what it trains has to be in float32 (`train.adapter_dtype`).
        quantized: whether it trains over a base whose weights are quantised (`trainables.quantization`): `too`,
            `never`, or `only` there.
    """

    scale_rule: str = "alpha / rank"
    rate_of: str | None = None
    actor: str | None = None
    step_time: float = 1.0
    activations: float = 1.0
    trains_whole: bool = False
    shares_pass: str = ""
    float32_only: bool = False
    quantized: str = "too"


def why_not_over(quantized: str, kind: str | None) -> str | None:
    """Why a variant that declares `quantized` cannot be trained over a base of that kind; None where it can.

    Args:
        kind: as `quantization` of a spec has it; None for a base that is not quantised.
    """
    if quantized == "never" and kind is not None:
        return f"it trains the weights themselves, and those of the base are quantised ({kind}); use quantization none"
    if quantized == "only" and kind is None:
        return "it makes good what quantising the base has cost, and the base is not quantised; use nf4 or int8"
    return None


_FIELDS = tuple(field.name for field in fields(Declared))


def read_declared(file: Path, name: str) -> Declared:
    """What the class with that `name` in a Python file declares: constants in its own body; the file is not run."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            body = dict(_literals(node))
            if body.get("name") == name:
                return Declared(**{field: body[field] for field in _FIELDS if field in body})
    return Declared()


def declared_of(cls: type) -> Declared:
    """The same of a subclass of `Variant` that is imported."""
    return Declared(**{field: getattr(cls, field) for field in _FIELDS})


def _literals(node: ast.ClassDef) -> list[tuple[str, Any]]:
    return [
        (target.id, statement.value.value)
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
