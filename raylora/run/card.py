"""The model card of an adapter: `README.md` beside it, in the hub's form.

The header is what the hub reads: base model, library, licence, tags, results. The text says what was trained on what,
how it scored with standard errors, the recipe, and how to load it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raylora import __version__
from raylora.models import ALIASES, license_of, public_name
from raylora.run.heads import head_of_run
from raylora.run.quantized import Difference
from raylora.run.summary import read_summary
from raylora.run.trials import with_both_alphas
from raylora.spec import Spec
from trainables.classifier import ClassifierHead
from trainables.heads import LANGUAGE, Head
from trainables.journal import Journal

_LABELS = {"base": "base, untouched", "default": "default recipe", "best": "**this one**"}


def write_card(
    target: Path,
    run: Path,
    spec: Spec,
    *,
    base: str,
    merged: bool = False,
    gguf: Sequence[str] = (),
    apart: Difference | None = None,
) -> Path:
    """Writes `README.md` beside an exported adapter, merged model or GGUF files.

    Args:
        target: folder of what was exported.
        run: folder of the run that it is from.
        base: what the adapter names as its base: a hub id, or a folder of this machine.
        merged: whether the folder holds the whole model.
        gguf: names of its GGUF files: the model's, and the adapter's where it is not merged.
        apart: what the full-precision base makes of the adapter, where it was trained over a quantised one.

    Returns:
        The file.
    """
    card = target / "README.md"
    summary: Mapping[str, object] = read_summary(run) or {}
    merged = merged or len(gguf) == 1
    header = _header(spec, summary, base, merged, "gguf" if gguf else "transformers" if merged else "peft")
    title = spec.name or run.name
    parts = [
        f"---\n{header}\n---",
        f"# {title}",
        _what(spec, merged, gguf),
        "## How to load",
        _load_gguf(gguf) if gguf else _load(spec, target.name, base, merged, head_of_run(run, spec)),
        "## Scores",
        _scores(summary),
        "## Recipe",
        _recipe(spec, summary, run),
        *_quantized(spec, apart),
        "## Data",
        _data(spec, summary),
    ]
    card.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return card


def _header(spec: Spec, summary: Mapping[str, Any], base: str, merged: bool, library: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    metric, best = summary.get("metric"), summary.get("best", {})
    results = []
    if metric and "test" in best:
        results.append(
            EvalResult(
                task_type=_pipeline(spec),
                dataset_type=spec.task.name,
                dataset_name=_dataset(spec),
                metric_type=metric,
                metric_value=best["test"],
                dataset_split="test",
            )
        )
    # A folder of this machine is no name that the hub takes.
    named = base if public_name(base) == base else public_name(spec.model)
    data = ModelCardData(
        base_model=named,
        base_model_relation=None if named is None else "merge" if merged else "adapter",
        library_name=library,
        license=license_of(spec.model),
        pipeline_tag=_pipeline(spec),
        tags=["raylora", "lora", spec.task.name],
        model_name=(spec.name or "adapter") if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _pipeline(spec: Spec) -> str:
    return "text-generation" if spec.task.head == "language" else "text-classification"


def _dataset(spec: Spec) -> str:
    """The rows by name; where they lie on somebody's disk is nobody's business."""
    path = spec.task.path
    if path is None:
        return spec.task.name
    return Path(path).name if Path(path).expanduser().exists() else path


def _what(spec: Spec, merged: bool, gguf: Sequence[str]) -> str:
    if gguf:
        kind = "The whole model, as a GGUF file" if merged else "An adapter and its base, as GGUF files"
    else:
        kind = "The whole model, in float32" if merged else "An adapter"
    return f"{kind}: {_model(spec)} trained on {_dataset(spec)} by the recipe that raylora {__version__} found for it."


def _model(spec: Spec) -> str:
    return public_name(spec.model) or Path(spec.model).name


def _load(spec: Spec, folder: str, base: str, merged: bool, head: Head) -> str:
    kind = "CausalLM" if head == LANGUAGE else "SequenceClassification"
    auto = f"AutoModelFor{kind}" if merged else f"AutoPeftModelFor{kind}"
    library = "transformers" if merged else "peft"
    tokenizer = folder if merged else base
    lines = [f"from {library} import {auto}"]
    lines += ["from transformers import AutoTokenizer", ""]
    lines += [f'model = {auto}.from_pretrained("{folder}"{_head_options(head, merged)})']
    lines += [f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")']
    code = "```python\n" + "\n".join(lines) + "\n```"
    note = "" if merged else _base_note(spec, base)
    return f"{code}\n\n{note}".strip()


def _load_gguf(files: Sequence[str]) -> str:
    lora = "".join(f" --lora {file}" for file in files[1:])
    return f"With llama.cpp, in this folder:\n\n```sh\nllama-server -m {files[0]}{lora}\n```"


def _head_options(head: Head, merged: bool) -> str:
    """What an adapter's folder does not say of its head; a model's configuration does."""
    if merged or not isinstance(head, ClassifierHead):
        return ""
    labels = dict(enumerate(head.labels))
    return f", num_labels={max(1, len(labels))}" + (f", id2label={labels}" if labels else "")


def _base_note(spec: Spec, base: str) -> str:
    if spec.model in ALIASES:
        bundled = ALIASES[spec.model]
        told = f"`raylora models pull {spec.model}` makes the base ({bundled.source})"
        elsewhere = f"set `base_model_name_or_path` in `adapter_config.json` to it, or to `{bundled.hub_id}`"
        return f"{told}. On another machine {elsewhere}, whose weights it holds, quantised."
    if not Path(base).is_dir():
        return ""
    known = public_name(spec.model)
    where = f"the hub has it as `{known}`" if known else "copy it there"
    return (
        f"The base is a folder of the machine that trained: on another one, {where}, and set "
        "`base_model_name_or_path` in `adapter_config.json`."
    )


def _scores(summary: Mapping[str, Any]) -> str:
    metric = summary.get("metric")
    if not metric or "base" not in summary:
        return "The run has no final stage: nothing was scored on a test split."
    lines = [f"| {metric} | validation | test |", "| --- | ---: | ---: |"]
    for label, told in _LABELS.items():
        entry = summary[label]
        lines.append(f"| {told} | {_score(entry, 'validation')} | {_score(entry, 'test')} |")
    better = "higher" if summary["mode"] == "max" else "lower"
    rows = f" over {summary['test_rows']} rows" if "test_rows" in summary else ""
    note = f"{better.capitalize()} is better; ± one standard error; test{rows}."
    leaked = summary.get("test_prompts_in_train")
    if leaked:
        note += f" {leaked} test rows have a prompt that is also trained on."
    return "\n".join(lines) + f"\n\n{note}"


def _score(entry: Mapping[str, Any], split: str) -> str:
    if entry.get(split) is None:
        return ""
    error = entry.get(f"{split}_se")
    return f"{entry[split]:.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _recipe(spec: Spec, summary: Mapping[str, Any], run: Path) -> str:
    config = with_both_alphas(summary.get("best", {}).get("config", {}))
    told = {name: config[name] for name in sorted(config)}
    results = {row.get("label"): row["result"] for row in Journal(run).rows() if row["event"] == "final"}
    trained: Mapping[str, Any] = results.get("best-0", {})
    told |= {"placement": spec.space.placement, "seed": spec.seed}
    end = "" if spec.train.schedule == "constant" else " to 0"
    told |= {"schedule": f"{spec.train.schedule}{end} after {100 * spec.train.warmup_ratio:g} % warm-up"}
    told |= {"optimizer": f"the variant's, AdamW for most, weight decay {spec.train.weight_decay:g}"}
    told |= {name: trained[name] for name in ("samples", "step", "tokens", "trainable_parameters") if trained.get(name)}
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in told.items()]
    trials = summary.get("trials")
    found = f"\n\nThe best of {trials} trials, by `{spec.search.searcher}`." if trials else ""
    return "\n".join(lines) + found


def _quantized(spec: Spec, apart: Difference | None) -> list[str]:
    """What the base was while the adapter was trained and scored; nothing where it was as it is."""
    if spec.quantization == "none":
        return []
    text = f"The adapter was trained and scored over the base's matrices in {spec.quantization}"
    text += " (bitsandbytes), and is for the full-precision base."
    return ["## Quantised base", text if apart is None else f"{text} What that changes: {apart.told()}."]


def _data(spec: Spec, summary: Mapping[str, object]) -> str:
    task = spec.task
    if task.head != "language":
        return (
            f"`{_dataset(spec)}` (task `{task.name}`), texts with their labels. The found recipe was chosen on "
            "validation rows; only the final stage read the test rows."
        )
    template = "the model's chat template" if task.chat_template else "no chat template"
    turns = "all assistant turns" if task.train_on == "all" else "the last assistant turn"
    return (
        f"`{_dataset(spec)}` (task `{task.name}`), written with {template}; trained on {turns}. The found recipe was "
        "chosen on validation rows; only the final stage read the test rows."
    )
