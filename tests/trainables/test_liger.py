from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType

import pytest
import torch

from trainables.liger import apply_liger, why_no_liger
from trainables.session import load_model
from trainables.variants.core.tiny import make_base

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def patched(monkeypatch) -> list[dict]:
    """A package called liger_kernel that knows llamas; what it was asked to patch."""
    calls: list[dict] = []
    package, transformers, patches = (
        ModuleType(name)
        for name in ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch")
    )
    package.__spec__ = importlib.machinery.ModuleSpec("liger_kernel", None)
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
    transformers._apply_liger_kernel_to_instance = lambda **how: calls.append(how)
    for module in (package, transformers, patches):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_a_model_on_a_gpu_is_patched_but_for_what_reaches_beyond_it(patched) -> None:
    base = make_base()
    assert apply_liger(base, "auto", GPU) and apply_liger(base, True, GPU)
    assert patched == 2 * [{"model": base, "rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}]


def test_nothing_is_patched_unless_it_is_wanted_nor_by_auto_where_it_does_not_run(patched) -> None:
    base = make_base()
    assert not apply_liger(base, False, GPU) and not apply_liger(base, "auto", CPU)
    base.config.model_type = "unknown"
    assert not apply_liger(base, "auto", GPU) and not patched


def test_what_is_missing_is_named_in_one_line(patched, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"^train.liger = true: it needs a GPU; or choose auto or false$"):
        apply_liger(make_base(), True, CPU)
    base = make_base()
    base.config.model_type = "rwkv"
    with pytest.raises(ValueError, match="it has no kernels for rwkv"):
        apply_liger(base, True, GPU)
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    monkeypatch.delitem(sys.modules, "liger_kernel")
    assert why_no_liger(GPU) == "it is not installed; pip install liger-kernel"


def test_a_model_is_loaded_without_where_there_is_no_gpu(tiny_model) -> None:
    load_model(tiny_model, "float32", "cpu", liger="auto")
    with pytest.raises(ValueError, match=r"train.liger = true: it needs a GPU"):
        load_model(tiny_model, "float32", "cpu", liger=True)
