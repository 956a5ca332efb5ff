"""Other toolkits' configurations as specs: what somebody trains with now becomes the recipe to compare with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from raylora.errors import UserError
from trainables.schedules import SCHEDULES

Told = Mapping[str, Any]

_PISSA = "pissa"


def recipe_from(path: str | Path) -> dict[str, object]:
    """A spec as plain data whose default recipe is the one in a file; nothing that the file does not say is in it.

    Args:
        path: an Axolotl or LLaMA-Factory YAML file, or a PEFT `adapter_config.json` (or the folder that holds it).

    Returns:
        Of `model`, `quantization`, `task`, `train`, `space`, `default_recipe`, `final`, `seed` what is told:
        `raylora.spec.from_dict` takes it once it has a model and a task.

    Raises:
        UserError: no such file, another form, or a recipe that is no LoRA.
    """
    file = Path(path).expanduser()
    file = file / "adapter_config.json" if file.is_dir() else file
    told = _read(file)
    for mark, reader in _READERS.items():
        if mark in told:
            return _without_nothing(reader(told, file))
    raise _refused(file, "is none of: a configuration of Axolotl or LLaMA-Factory, a PEFT adapter_config.json")


def _read(file: Path) -> Told:
    try:
        text = file.read_text(encoding="utf-8")
        told = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise _refused(file, error.strerror or str(error)) from None
    except (ValueError, yaml.YAMLError) as error:
        raise _refused(file, f"cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(told, dict):
        raise _refused(file, "holds no settings")
    return told


def _refused(file: Path, problem: str) -> UserError:
    return UserError(
        f"--from {file}: {problem}; give an Axolotl or LLaMA-Factory YAML, or an adapter_config.json",
        field="--from",
        value=str(file),
    )


def _peft(told: Told, file: Path) -> dict[str, object]:
    if told["peft_type"] != "LORA":
        raise _refused(file, f"peft_type = {told['peft_type']!r} is no LoRA")
    start = told.get("init_lora_weights")
    return {
        "model": told.get("base_model_name_or_path"),
        "space": {"placement": _placement(told.get("target_modules"))},
        "default_recipe": {
            "variant": _variant(told.get("use_rslora"), told.get("use_dora"), start),
            "rank": _whole(told.get("r", 8)),
            "alpha": _number(told.get("lora_alpha", 8)),
            "dropout": _number(told.get("lora_dropout", 0.0)),
            "extra": _start_options(start),
        },
    }


def _axolotl(told: Told, file: Path) -> dict[str, object]:
    if told.get("adapter") not in ("lora", "qlora"):
        raise _refused(file, f"adapter = {told.get('adapter')!r} is no LoRA")
    ratio, start = told.get("loraplus_lr_ratio"), told.get("peft_init_lora_weights")
    sets = told.get("datasets") or [{}]
    return {
        "model": told["base_model"],
        "quantization": _quantization(told.get("load_in_4bit"), told.get("load_in_8bit")),
        "seed": _whole(told.get("seed")),
        "task": {"path": _local(sets[0].get("path"), file), "max_length": _whole(told.get("sequence_len"))},
        "train": _training(told),
        "space": {"placement": _placement(told.get("lora_target_modules"))},
        "final": {"epochs": _number(told.get("num_epochs"))},
        "default_recipe": {
            "variant": _variant(told.get("peft_use_rslora"), told.get("peft_use_dora"), start, ratio),
            "rank": _whole(told.get("lora_r", 8)),
            "alpha": _number(told.get("lora_alpha", 16)),
            "dropout": _number(told.get("lora_dropout", 0.0)),
            "learning_rate": _number(told.get("learning_rate")),
            "batch_size": _product(told, "micro_batch_size", "gradient_accumulation_steps"),
            "extra": {**_start_options(start), **_ratio(ratio)},
        },
    }


def _llamafactory(told: Told, file: Path) -> dict[str, object]:
    if told.get("finetuning_type", "lora") != "lora":
        raise _refused(file, f"finetuning_type = {told['finetuning_type']!r} is no LoRA")
    ratio, rank = told.get("loraplus_lr_ratio"), _whole(told.get("lora_rank", 8))
    start = f"pissa_niter_{told.get('pissa_iter', 16)}" if told.get("pissa_init") else None
    return {
        "model": told["model_name_or_path"],
        "quantization": _quantization(told.get("quantization_bit") == 4, told.get("quantization_bit") == 8),
        "seed": _whole(told.get("seed")),
        "task": {"path": _dataset(told, file), "max_length": _whole(told.get("cutoff_len"))},
        "train": _training(told),
        "space": {"placement": _placement(told.get("lora_target"))},
        "final": {"epochs": _number(told.get("num_train_epochs"))},
        "default_recipe": {
            "variant": _variant(told.get("use_rslora"), told.get("use_dora"), start, ratio),
            "rank": rank,
            "alpha": _number(told.get("lora_alpha") or 2 * (rank or 8)),
            "dropout": _number(told.get("lora_dropout", 0.0)),
            "learning_rate": _number(told.get("learning_rate")),
            "batch_size": _product(told, "per_device_train_batch_size", "gradient_accumulation_steps"),
            "extra": {**_start_options(start), **_ratio(ratio)},
        },
    }


_READERS: dict[str, Callable[[Told, Path], dict[str, object]]] = {
    "peft_type": _peft,
    "base_model": _axolotl,
    "model_name_or_path": _llamafactory,
}


def _training(told: Told) -> dict[str, object]:
    numbers = {name: _number(told.get(name)) for name in ("warmup_ratio", "weight_decay", "max_grad_norm")}
    scheduler = told.get("lr_scheduler_type", told.get("lr_scheduler"))
    schedule = "constant" if scheduler == "constant_with_warmup" else scheduler
    return {**numbers, "schedule": schedule if schedule in SCHEDULES else None}


def _variant(rslora: object, dora: object, start: object = None, ratio: object = None) -> str:
    if rslora:
        return "rslora"
    if dora:
        return "dora"
    if isinstance(start, str) and start.startswith(_PISSA):
        return "pissa"
    return "lora_plus" if ratio else "lora"


def _quantization(four: object, eight: object) -> str | None:
    return "nf4" if four else "int8" if eight else None


def _start_options(start: object) -> dict[str, object]:
    if isinstance(start, str) and start.startswith(f"{_PISSA}_niter_"):
        return {"niter": int(start.rpartition("_")[2])}
    return {}


def _ratio(ratio: object) -> dict[str, object]:
    return {"ratio": _number(ratio)} if ratio else {}


def _placement(told: Any) -> object:
    """`all-linear`, or names of matrix types; None where nothing, or a pattern, is told."""
    if isinstance(told, str):
        if told in ("all", "all-linear"):
            return "all-linear"
        names = [name.strip() for name in told.split(",")]
        return names if all(name.isidentifier() for name in names) else None
    return sorted(told) if told else None


def _local(path: object, file: Path) -> str | None:
    """A data set's path: local ones lie beside the configuration, or where they say."""
    if not isinstance(path, str):
        return None
    beside = file.parent / path
    return str(beside.absolute()) if beside.exists() else path


def _dataset(told: Told, file: Path) -> str | None:
    """The file behind a name of LLaMA-Factory's `dataset_info.json`."""
    name = str(told.get("dataset") or "").split(",")[0].strip()
    folder = file.parent / str(told.get("dataset_dir", "data"))
    try:
        about = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")).get(name, {})
    except (OSError, ValueError):
        return None
    if "file_name" in about:
        return str((folder / about["file_name"]).absolute())
    return about.get("hf_hub_url")


def _number(value: Any) -> float | None:
    """YAML reads 2e-4 as text."""
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _product(told: Told, *names: str) -> int | None:
    if not any(name in told for name in names):
        return None
    first, second = (int(told.get(name) or 1) for name in names)
    return first * second


def _without_nothing(told: Mapping[str, object]) -> dict[str, object]:
    kept = {name: _without_nothing(value) if isinstance(value, dict) else value for name, value in told.items()}
    return {name: value for name, value in kept.items() if value is not None and value != {}}
