"""Base weights in 4 or 8 bits: how they are kept, multiplied with and read.

    nf4     4-bit NormalFloat in blocks of 64, whose scales are quantised to 8 bits in blocks of 256: 0.516 bytes a
            weight. Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, arXiv 2305.14314, section 3.
    int8    rows of -127..127 times their largest entry / 127: 1 byte a weight. Dettmers et al., LLM.int8(), arXiv
            2208.07339, section 2.1, of the weights alone: inputs stay as they are, in training and afterwards.

Both formats are bitsandbytes', which also quantises while a model is read, and multiplies with nf4. Products with int8
are made here: bitsandbytes' quantise the inputs too, and torchao's keep a copy of each matrix for the backward pass.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.errors import OptionError

BLOCK, SCALES_BLOCK = 64, 256

# It misses kernels for weights that are packed for CPUs, as nobody packs them here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


class QuantizedLinear(nn.Linear):
    """A linear layer whose frozen weight W `(m, n)` is kept in `parts`, its buffers.

    `weight` is W as it is multiplied with, made anew each time it is asked for: nobody may hold it, or write to it.

    Args:
        parts: as `quantize` gives them.
        shape: `(m, n)`.
        dtype: of `weight`.
        original: gives W as it was before it was quantised, `(m, n)` on the CPU; None where that is not to be had.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        parts: Mapping[str, Tensor],
        shape: tuple[int, int],
        bias: nn.Parameter | None,
        dtype: torch.dtype,
        original: Callable[[], Tensor] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = shape
        self.dtype, self.original = dtype, original
        self.register_parameter("bias", bias)
        for name, tensor in parts.items():
            self.register_buffer(name, tensor)

    @staticmethod
    def quantize(weight: Tensor) -> dict[str, Tensor]:
        """The parts of a W `(m, n)`, on its device."""
        raise NotImplementedError

    def dense(self, dtype: torch.dtype) -> Tensor:
        """W `(m, n)` in that type."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """W `(m, n)`, a copy."""
        return self.dense(self.dtype)

    def requantized(self, weight: Tensor) -> QuantizedLinear:
        """A layer like this one with another W `(m, n)`."""
        return type(self)(
            self.quantize(weight), (self.out_features, self.in_features), self.bias, self.dtype, self.original
        )

    @classmethod
    def of(cls, linear: nn.Linear) -> QuantizedLinear:
        """A dense layer quantised; its weight is remembered as the original."""
        weight = linear.weight.detach()
        return cls(cls.quantize(weight), tuple(weight.shape), linear.bias, weight.dtype, weight.cpu)

    @classmethod
    def taking(cls, module: Any, dtype: torch.dtype, original: Callable[[], Tensor]) -> QuantizedLinear:
        """What bitsandbytes' layer of this kind holds."""
        shape = (module.out_features, module.in_features)
        return cls(cls.parts_of(module.weight), shape, module.bias, dtype, original)

    @staticmethod
    def parts_of(weight: Any) -> dict[str, Tensor]:
        """The parts of bitsandbytes' parameter of this kind."""
        raise NotImplementedError


class Nf4Linear(QuantizedLinear):
    """See the module."""

    kind = "nf4"
    codes: Tensor
    code: Tensor
    scales: Tensor
    offset: Tensor
    scales_of_scales: Tensor
    scale_code: Tensor

    @staticmethod
    def quantize(weight: Tensor) -> dict[str, Tensor]:
        from bitsandbytes.functional import quantize_4bit

        return _nf4_parts(
            *quantize_4bit(weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
        )

    @staticmethod
    def parts_of(weight: Any) -> dict[str, Tensor]:
        return _nf4_parts(weight.data, weight.quant_state)

    def _state(self, dtype: torch.dtype) -> Any:
        """bitsandbytes' description of the parts."""
        from bitsandbytes.functional import QuantState

        scales = QuantState(self.scales_of_scales, code=self.scale_code, blocksize=SCALES_BLOCK, dtype=torch.float32)
        shape = torch.Size((self.out_features, self.in_features))
        return QuantState(self.scales, shape, self.code, BLOCK, "nf4", dtype, self.offset, scales)

    def dense(self, dtype: torch.dtype) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(self.codes, self._state(dtype))

    def forward(self, x: Tensor) -> Tensor:
        from bitsandbytes import matmul_4bit

        return matmul_4bit(x, self.codes, quant_state=self._state(x.dtype), bias=self.bias)


def _nf4_parts(codes: Tensor, state: Any) -> dict[str, Tensor]:
    return {
        "codes": codes,
        "code": state.code,
        "scales": state.absmax,
        "offset": state.offset,
        "scales_of_scales": state.state2.absmax,
        "scale_code": state.state2.code,
    }


class Int8Linear(QuantizedLinear):
    """See the module."""

    kind = "int8"
    codes: Tensor
    scales: Tensor

    @staticmethod
    def quantize(weight: Tensor) -> dict[str, Tensor]:
        from bitsandbytes.functional import int8_vectorwise_quant

        codes, scales, _ = int8_vectorwise_quant(weight.half())
        return {"codes": codes, "scales": scales}

    @staticmethod
    def parts_of(weight: Any) -> dict[str, Tensor]:
        return {"codes": weight.data, "scales": weight.SCB}

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.codes.to(dtype) * (self.scales / 127).to(dtype)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.bias, self)


class _Product(torch.autograd.Function):
    """W x + bias; W is made again for the backward pass, so that none is kept between the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dense(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grad @ ctx.layer.dense(grad.dtype), bias, None


KINDS: Mapping[str, type[QuantizedLinear]] = {"nf4": Nf4Linear, "int8": Int8Linear}


def quantized_by(model: nn.Module) -> str | None:
    """The kind of the model's quantised layers; None where it has none."""
    return next((module.kind for module in model.modules() if isinstance(module, QuantizedLinear)), None)


def load_quantized(
    load: Callable[..., nn.Module], folder: str | Path, kind: str, device: torch.device, kept: list[str]
) -> nn.Module:
    """A model of a folder whose matrices are quantised while they are read, one after the other.

    Args:
        load: gives the model, with `from_pretrained`'s arguments for quantisation.
        kept: names of modules that are left as they are.
    """
    import bitsandbytes
    from transformers import BitsAndBytesConfig
    from transformers.pytorch_utils import Conv1D

    how = {"load_in_8bit": True} if kind == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config = BitsAndBytesConfig(**how, bnb_4bit_use_double_quant=True, llm_int8_skip_modules=kept or None)
    model: Any = load(quantization_config=config, device_map={"": str(device)})
    layers = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    for name, module in list(model.named_modules()):
        if isinstance(module, layers):
            read = partial(read_weight, Path(folder), name, model.base_model_prefix, module.source_cls is Conv1D)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, KINDS[kind].taking(module, model.dtype, read))
    _forget_how(model)
    return model


def _forget_how(model: Any) -> None:
    """Takes away what transformers and accelerate left: the layers are no longer bitsandbytes'."""
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(model, recurse=True)
    for name in ("hf_quantizer", "is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "quantization_method"):
        vars(model).pop(name, None)
    # accelerate warns before it moves a model that it has placed.
    for name in ("to", "cuda", "hf_device_map"):
        vars(model).pop(name, None)
    for name in ("quantization_config", "_pre_quantization_dtype", "_is_quantized"):
        vars(model.config).pop(name, None)


def read_weight(folder: Path, name: str, prefix: str, transposed: bool) -> Tensor:
    """The weight `(m, n)` of a linear layer as a model's folder has it.

    Args:
        name: of the layer in the model; some checkpoints leave out the `prefix` of the base model.
        transposed: whether the folder holds `(n, m)`.

    Raises:
        OptionError: the folder has no such tensor in safetensors files.
    """
    from safetensors import safe_open

    for key in (f"{name}.weight", f"{name.removeprefix(prefix + '.')}.weight"):
        file = _file_of(folder, key)
        if file is None:
            continue
        with safe_open(file, framework="pt") as tensors:
            if key in tensors.keys():  # noqa: SIM118 (no mapping)
                weight = tensors.get_tensor(key)
                return weight.T.contiguous() if transposed else weight
    raise OptionError(
        f"model: {folder} holds no {name}.weight in safetensors files; save the model with save_pretrained",
        field="model",
        value=str(folder),
    )


def _file_of(folder: Path, key: str) -> Path | None:
    index = folder / "model.safetensors.index.json"
    name = "model.safetensors"
    if index.is_file():
        name = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(key, name)
    return folder / name if (folder / name).is_file() else None


def import_peft() -> None:
    """Imports PEFT, without bitsandbytes where nothing has loaded it.

    PEFT would load it wherever it is installed, and with it torch's compiler: a second and 46 MB of each process. Its
    layers for bitsandbytes' are of no use here: see `QuantizedLinear`.
    """
    with _absent("bitsandbytes"):
        from peft.import_utils import is_bnb_4bit_available, is_bnb_available

        # It asks when the first adapter is attached, and remembers the answer.
        is_bnb_available(), is_bnb_4bit_available()


@contextmanager
def _absent(name: str) -> Iterator[None]:
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
