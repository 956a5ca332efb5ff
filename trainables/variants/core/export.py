"""Adapters as files that others read, and as merged weights."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.variants.core.layers import DeltaLinear, place
from trainables.variants.core.matrices import Matrix, as_matrix, compact_names
from trainables.variants.core.plain import PlainLora
from trainables.variants.core.snapshot import Snapshot
from trainables.variants.core.tuned import ABOUT, TUNED

if TYPE_CHECKING:
    from peft import PeftConfig

ADAPTER = "default"
_ROOT = "base_model."
_PREFIX = f"{_ROOT}model."


def peft_number(value: float) -> float | int:
    """An alpha as other tools expect it: whole numbers without a point."""
    return int(value) if float(value).is_integer() else value


def save_plain_lora(plain: PlainLora, folder: Path, base_model: str, model: nn.Module | None = None) -> Path:
    """Writes plain LoRA as a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`, fp32).

    Args:
        plain: the adapter. Matrices may differ in rank and scale.
        folder: made if absent.
        base_model: what the folder names as its base.
        model: the base (an adapter on it does no harm). With it, matrices are named by type where that is
            exact, which more tools understand, and GPT-2's transposed matrices are declared; without it, by
            their whole names.
    """
    from peft import LoraConfig

    rank = Counter(plain.rank(name) for name in plain.factors).most_common(1)[0][0]
    alpha = Counter(plain.alpha(name) for name in plain.factors).most_common(1)[0][0]
    names = sorted(plain.factors) if model is None else compact_names(model, plain.factors)
    config = LoraConfig(
        r=rank,
        lora_alpha=peft_number(alpha),
        target_modules=names,
        # Whole names: PEFT matches these as patterns, where a type could be part of another's.
        rank_pattern={name: plain.rank(name) for name in sorted(plain.factors) if plain.rank(name) != rank},
        alpha_pattern={
            name: peft_number(plain.alpha(name)) for name in sorted(plain.factors) if plain.alpha(name) != alpha
        },
        fan_in_fan_out=model is not None and _is_transposed(model, next(iter(plain.factors))),
        task_type=task_type(model),
    )
    tensors = {}
    for name, (a, b) in plain.factors.items():
        tensors[f"{name}.lora_A.weight"] = a
        tensors[f"{name}.lora_B.weight"] = b
    return write_peft_folder(config, tensors, folder, base_model)


def save_native(
    model: nn.Module, config: PeftConfig, folder: Path, base_model: str, shared: dict[str, Any] | None = None
) -> Path:
    """Writes the adapter that PEFT's tuner put on `model` in PEFT's own form for it.

    Args:
        shared: tensors that belong to no module but to the whole adapter.
    """
    from peft import get_peft_model_state_dict

    config = copy.deepcopy(config)
    config.task_type = task_type(model)
    # Not "auto": PEFT would ask the hub whether the base's vocabulary has grown.
    tensors = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    return write_peft_folder(config, tensors, folder, base_model, shared)


def write_peft_folder(
    config: PeftConfig,
    tensors: dict[str, Any],
    folder: Path,
    base_model: str,
    shared: dict[str, Any] | None = None,
) -> Path:
    """Writes configuration and tensors (named from the base model's root) as a PEFT folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.base_model_name_or_path = base_model
    config.inference_mode = True
    targets = getattr(config, "target_modules", None)
    if isinstance(targets, (set, list)):
        config.target_modules = sorted(targets)  # a set would be written in any order
    config.save_pretrained(str(folder))
    named = {_PREFIX + name: tensor for name, tensor in tensors.items()}
    named |= {_ROOT + name: tensor for name, tensor in (shared or {}).items()}
    # A copy each: safetensors refuses tensors that share storage.
    save_file(
        {name: tensor.detach().cpu().clone().contiguous() for name, tensor in named.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def add_modules(folder: Path, model: nn.Module, names: Sequence[str], task_type: str) -> Path:
    """Adds trained modules of the model, whole, to a folder of `save_adapter`: PEFT's `modules_to_save`.

    Args:
        names: of the modules; their values are taken as they are on `model`.
        task_type: PEFT's, such as SEQ_CLS.
    """
    from safetensors.torch import load_file, save_file

    folder = Path(folder)
    tensors = {
        f"{name}.{own}": value.detach().cpu().clone().contiguous()
        for name in names
        for own, value in model.get_submodule(name).state_dict().items()
    }
    about = folder / "adapter_config.json"
    if not about.is_file():
        save_file(load_file(folder / TUNED) | tensors, folder / TUNED)
        return folder
    config = json.loads(about.read_text()) | {"task_type": task_type, "modules_to_save": sorted(names)}
    about.write_text(json.dumps(config, indent=2, sort_keys=True))
    weights = folder / "adapter_model.safetensors"
    named = {_PREFIX + name: tensor for name, tensor in tensors.items()}
    save_file(load_file(weights) | named, weights, metadata={"format": "pt"})
    return folder


def merge_plain_lora(model: nn.Module, plain: PlainLora) -> nn.Module:
    """W0 <- W0 + scale B A, in place: summed in fp32 and rounded once to the base's type.

    Raises:
        ValueError: the model lacks one of the matrices, or it has another shape; nothing has been changed.
    """
    shapes = {name: (b.shape[0], a.shape[1]) for name, (a, b) in plain.factors.items()}
    matrices = {name: _to_write(model, name, shape) for name, shape in shapes.items()}
    with torch.no_grad():
        for name, matrix in matrices.items():
            delta = matrix.oriented(plain.delta(name)).to(matrix.device)
            matrix.weight.data = (matrix.weight.data.float() + delta).to(matrix.weight.dtype)
    return model


def save_tuned_weights(weights: Mapping[str, Tensor], variant: str, folder: Path, base_model: str) -> Path:
    """Writes whole matrices `(m, n)`, fp32, for variants whose update is neither a LoRA nor PEFT's."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / TUNED)
    about = {"base_model_name_or_path": base_model, "variant": variant}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    return folder


def merge_tuned_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """W0 <- the tuned W, in place, rounded once to the base's type. Errors as `merge_plain_lora`."""
    whole = _parameters(model, weights)
    matrices = {n: _to_write(model, n, (w.shape[0], w.shape[1])) for n, w in weights.items() if n not in whole}
    with torch.no_grad():
        for name, matrix in matrices.items():
            tuned = matrix.oriented(weights[name]).to(matrix.device, matrix.weight.dtype)
            matrix.weight.data = tuned.contiguous()
        for name, parameter in whole.items():
            parameter.data = weights[name].to(parameter.device, parameter.dtype)
    return model


def _parameters(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The model's parameters among tuned weights: those of modules that were trained whole (`add_modules`)."""
    return {name: parameter for name, parameter in model.named_parameters() if name in weights}


def merge_folder(model: nn.Module, folder: Path) -> nn.Module:
    """Merges any folder of `save_adapter` into its base, in place: in fp32, rounded once to the base's type."""
    from peft import PeftModel
    from safetensors.torch import load_file

    if (Path(folder) / TUNED).is_file():
        return merge_tuned_weights(model, load_file(Path(folder) / TUNED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(model, str(folder))
        _settle(loaded)
        # PEFT does not merge in the base's type: it widens to that of the adapter, which loads as fp32.
        return loaded.merge_and_unload()


def _settle(model: nn.Module) -> None:
    """Puts modules that were trained whole in the place of PEFT's wrappers, which not all of its tuners can merge."""
    from peft.utils.other import ModulesToSaveWrapper

    for name, wrapper in list(model.named_modules()):
        if isinstance(wrapper, ModulesToSaveWrapper):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, wrapper.modules_to_save[wrapper.active_adapters[0]])


def _matching(model: nn.Module, name: str, shape: tuple[int, int]) -> Matrix:
    try:
        matrix = as_matrix(name, model.get_submodule(name))
    except AttributeError:
        matrix = None
    if matrix is None or (matrix.rows, matrix.columns) != shape:
        size = f"{shape[0]} x {shape[1]}"
        raise ValueError(f"merge: the model has no {size} matrix {name!r}: use the base it was trained on")
    return matrix


def _to_write(model: nn.Module, name: str, shape: tuple[int, int]) -> Matrix:
    matrix = _matching(model, name, shape)
    if matrix.quantized is not None:
        raise ValueError(f"merge: {name!r} is quantised ({matrix.quantized.kind}): use the full-precision base")
    return matrix


@contextmanager
def exported_adapter(model: nn.Module, folder: Path) -> Iterator[nn.Module]:
    """Any folder of `save_adapter` over its base for the duration; the base is exactly itself afterwards."""
    from peft import PeftModel
    from safetensors.torch import load_file

    snapshot = Snapshot(model)
    try:
        if (Path(folder) / TUNED).is_file():
            weights = load_file(Path(folder) / TUNED)
            whole = _parameters(model, weights)
            with torch.no_grad():
                for name, parameter in whole.items():
                    snapshot.rewrite(parameter, weights[name].to(parameter.device, parameter.dtype))
                for name, tuned in weights.items():
                    if name in whole:
                        continue
                    matrix = _matching(model, name, (tuned.shape[0], tuned.shape[1]))
                    delta = tuned.to(matrix.device) - matrix.oriented(matrix.weight).float()
                    place(model, matrix, DeltaLinear(matrix, delta))
            yield model
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = PeftModel.from_pretrained(model, str(folder))
        yield loaded
    finally:
        snapshot.restore()


def merge_through_folder(model: nn.Module, save: Callable[[Path], Path]) -> nn.Module:
    """Merges an adapter that has no plain LoRA form by way of its PEFT folder, which `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        return merge_folder(model, save(Path(folder)))


def _is_transposed(model: nn.Module, name: str) -> bool:
    module = model.get_submodule(name)
    matrix = as_matrix(name, getattr(module, "base_layer", module))
    return matrix is not None and matrix.transposed


def task_type(model: nn.Module | None) -> str | None:
    """PEFT's task type: a causal language model where the model can generate, else none."""
    return "CAUSAL_LM" if model is None or hasattr(model, "prepare_inputs_for_generation") else None
