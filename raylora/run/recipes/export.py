"""A run's found recipe as a folder that another toolkit trains from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylora import __version__
from raylora.build import build_data, build_task, max_length, refuse_head
from raylora.cluster import connected
from raylora.errors import UserError
from raylora.models import base_for_adapters, resolve
from raylora.run.export import new_folder
from raylora.run.folder import read_run
from raylora.run.recipes import TOOLKITS
from raylora.run.recipes.core.base import CONFIG, Toolkit
from raylora.run.recipes.core.notes import quantized_notes
from raylora.run.recipes.core.recipe import Recipe, micro_batch
from raylora.run.recipes.core.rows import Example, example_of
from raylora.run.summary import read_summary
from raylora.run.trials import with_both_alphas
from raylora.spec import Spec
from trainables.batching import count_steps, global_batches
from trainables.journal import Journal


def export_recipe(run_dir: str | Path, toolkit: str, to: str | Path) -> tuple[Path, list[str]]:
    """Write configuration, train rows, a README with the command to copy, for a toolkit.

    The rows are those of the final stage, in the order of its first epoch, rendered by the chat template, with what is
    trained on marked.

    Args:
        toolkit: one of `TOOLKITS`.
        to: a new or empty folder.

    Returns:
        The folder, and what the toolkit does otherwise than the run did, a sentence each.

    Raises:
        UserError: The run is not finished, or its recipe is nothing that the toolkit can train.
    """
    folder, spec = read_run(run_dir)
    refuse_head(spec, "recipes for other toolkits are of language models")
    if toolkit not in TOOLKITS:
        names = TOOLKITS.names()
        raise UserError(
            f"--recipe: {toolkit!r}: no such toolkit; allowed: {', '.join(names)}",
            field="--recipe",
            value=toolkit,
            allowed=names,
        )
    summary = read_summary(folder)
    if summary is None:
        raise UserError.at(
            "RUN_DIR", f"{folder} is not finished; `raylora resume {folder}` finishes it", value=str(folder)
        )
    kit, config = TOOLKITS[toolkit](), dict(summary["best"]["config"])
    check_recipe(kit, config, spec.quantization)
    target = new_folder(to)
    with connected():
        recipe, examples = _found(folder, spec, config)
    _check_alpha(kit, recipe)
    notes = kit.write(recipe, examples, target) + quantized_notes(recipe)
    (target / "README.md").write_text(_readme(kit, recipe, len(examples), notes), encoding="utf-8")
    return target, notes


def check_recipe(kit: Toolkit, config: Mapping[str, object], quantization: str = "none") -> None:
    """Raises UserError for a variant that the toolkit lacks, or does not train over a base that is quantised so."""
    variant = str(config.get("variant", "lora"))
    if variant not in kit.variants:
        others = [name for name, one in TOOLKITS.classes().items() if variant in one.variants]
        nearest = f"--recipe {' or '.join(others)}" if others else "variant = 'lora', which is the nearest it has"
        raise UserError(
            f"--recipe: variant = {variant!r}: {kit.name} does not train it; allowed: {nearest}",
            field="--recipe",
            value=variant,
            allowed=sorted(kit.variants),
        )
    if quantization != "none" and variant not in kit.over_quantized:
        trained = sorted(kit.variants & kit.over_quantized)
        raise UserError(
            f"--recipe: variant = {variant!r} with quantization = {quantization!r}: {kit.name} does not start it over "
            f"a quantised base; allowed: {', '.join(trained)}, or quantization = 'none'",
            field="--recipe",
            value=variant,
            allowed=trained,
        )


def _check_alpha(kit: Toolkit, recipe: Recipe) -> None:
    if kit.whole_alpha and not float(recipe.alpha).is_integer():
        raise UserError(
            f"--recipe: alpha = {recipe.alpha:g}: {kit.name} takes whole numbers; allowed: --recipe peft or trl",
            field="--recipe",
            value=recipe.alpha,
        )


def _found(folder: Path, spec: Spec, config: Mapping[str, Any]) -> tuple[Recipe, list[Example]]:
    """The recipe and its rows, in the order of the first epoch."""
    model = resolve(spec.model, quiet=True)
    rows = build_data(spec, build_task(spec), str(model)).train
    trained = _trained(folder)
    samples = int(trained.get("samples") or spec.final.budget(len(rows)))
    order = next(global_batches(len(rows), len(rows), len(rows), spec.seed))
    examples = [example_of(rows[at]) for at in order]
    longest = max(len(one.ids) for one in examples)
    # Another rank than the configuration's where parameters were matched.
    batch, rank = int(config["batch_size"]), int(trained.get("effective_rank") or config["rank"])
    steps = count_steps(batch, samples)
    ratio = float(with_both_alphas(config)["alpha_ratio"])
    known = {"variant", "rank", "alpha", "alpha_ratio", "batch_size", "learning_rate", "dropout", "placement"}
    placement = config.get("placement", spec.space.placement)
    recipe = Recipe(
        model=base_for_adapters(spec.model),
        variant=str(config.get("variant", "lora")),
        rank=rank,
        alpha=_whole(float(config["alpha"]) if spec.space.alpha is not None else ratio * rank),
        dropout=float(config.get("dropout", 0.0)),
        placement=placement if isinstance(placement, str) else tuple(placement),
        modules=_modules(model, placement),
        extra={name: value for name, value in config.items() if name not in known},
        learning_rate=float(config["learning_rate"]),
        batch_size=batch,
        micro_batch=micro_batch(batch, longest, spec.train.micro_batch_tokens),
        steps=steps,
        epochs=round(samples / len(rows), 4),
        warmup_steps=round(spec.train.warmup_ratio * steps),
        weight_decay=spec.train.weight_decay,
        max_grad_norm=spec.train.max_grad_norm,
        seed=spec.seed,
        max_length=max_length(spec, str(model)),
        dtype=_dtype(spec, model),
        turns=spec.task.train_on,
        quantization=spec.quantization,
        schedule=spec.train.schedule,
    )
    return recipe, examples


def _whole(alpha: float) -> float | int:
    return int(alpha) if alpha.is_integer() else alpha


def _trained(folder: Path) -> Mapping[str, Any]:
    """What the final stage reported of its training of the recipe; empty where there was none."""
    results = {row.get("label"): row["result"] for row in Journal(folder).rows() if row["event"] == "final"}
    return results.get("best-0", {})


def _modules(model: Path, placement: Any) -> tuple[str, ...]:
    """Names of the matrix types that a placement means."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainables.variants.core.matrices import select_matrices

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    return tuple(sorted({matrix.kind for matrix in select_matrices(empty, placement)}))


def _dtype(spec: Spec, model: Path) -> str:
    """`auto` is bf16 where the base is: what runs with a device for it do."""
    if spec.dtype != "auto":
        return spec.dtype
    told = json.loads((model / "config.json").read_text())
    return "bfloat16" if (told.get("dtype") or told.get("torch_dtype")) in ("bfloat16", "float16") else "float32"


def _readme(kit: Toolkit, recipe: Recipe, rows: int, notes: list[str]) -> str:
    what = f"{recipe.variant}, rank {recipe.rank}, alpha {recipe.alpha:g}, dropout {recipe.dropout:g}, "
    what += f"rate {recipe.learning_rate:g}, batches of {recipe.batch_size} "
    what += f"({recipe.micro_batch} x {recipe.accumulation}), {recipe.steps} steps"
    packages = f"'{kit.requirement}'"
    if recipe.quantization != "none":
        what += f", over a base in {recipe.quantization}"
        packages += " bitsandbytes"
    lines = [f"# A recipe for {kit.name}", "", f"{what}. Found by raylora {__version__}.", ""]
    lines += ["```sh", f"pip install {packages}", kit.command, "```", ""]
    lines += [f"Run it in this folder; the adapter is written to `adapter/`. Written for {kit.requirement}.", ""]
    turns = "all assistant turns" if recipe.turns == "all" else "the last turns"
    lines += [f"`{CONFIG}` is the recipe. `train.jsonl` has {rows} rows, rendered by the model's chat template, in the"]
    lines += [f"order of the first epoch; trained on are {turns}, as marked there. One device is assumed: with N of"]
    lines += ["them, divide the accumulation by N.", ""]
    lines += ["## What is otherwise", ""]
    lines += [f"- {note}" for note in [*notes, "Dropout and the start of A are drawn from other random numbers."]]
    return "\n".join(lines) + "\n"
